package http1

import (
	"errors"
	"time"

	"lazaret/internal/idle"
)

// longAgo is a deadline that ends a read at once.
var longAgo = time.Unix(1, 0)

// errGone is why a connection cannot be used that the origin has ended while it was idle.
var errGone = errors.New("the origin has closed the idle connection, or sent something that was not asked for")

// Look looks at what the other side has done since the last answer, without waiting, and returns why the connection cannot be used any
// more, nil when it can. While a request is under way, or the connection is watched, it does nothing. Half a TLS record is not seen:
// nobody knows yet what it will say.
func (c *Conn) Look() error {
	c.mu.Lock()
	err, unused := c.err, !c.busy && c.asleep == nil
	c.mu.Unlock()
	if err != nil || !unused || idle.Silent(c.nc, c.tcp) {
		return err
	}
	return c.end(errGone)
}

// sleeper is what watches an idle connection.
type sleeper struct {
	c     *Conn
	gone  func()
	watch *idle.Watch
	done  chan struct{} // closed when stir has found that the connection is not to be watched any more
	alive bool          // once done is closed: whether the connection can be used again
}

// Watch watches an idle connection, until Wake, and calls gone when the origin has ended it, or has said something unasked. It says false,
// and does nothing, where there is nothing to watch: a request is under way, or the connection cannot be used any more.
func (c *Conn) Watch(gone func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy || c.err != nil || c.tcp == nil || c.watcher == nil || c.asleep != nil {
		return false
	}
	z := &sleeper{c: c, gone: gone, done: make(chan struct{})}
	return z.lieDown()
}

// lieDown begins the watch. The connection's lock is held.
func (z *sleeper) lieDown() bool {
	w, err := z.c.watcher.Add(z.c.tcp, 0, func(error) { z.stir() })
	if err != nil {
		return false
	}
	z.watch, z.c.asleep = w, z
	return true
}

// stir looks at what has come over a connection that is watched.
func (z *sleeper) stir() {
	z.alive = idle.StillSilent(z.c.nc, time.Now().Add(10*time.Millisecond))
	z.c.mu.Lock()
	if z.alive && z.c.asleep == z { // it was something of TLS's own, or the time was up before anything was read
		if z.lieDown() {
			z.c.mu.Unlock()
			return
		}
		z.alive = false
	}
	z.c.mu.Unlock()
	if !z.alive {
		_ = z.c.end(errGone)
	}
	close(z.done)
	if !z.alive {
		z.gone()
	}
}

// Wake ends what Watch began, if it did, and returns when nothing is being read any more. Err then says whether the connection can be used.
func (c *Conn) Wake() {
	c.mu.Lock()
	z := c.asleep
	c.asleep = nil
	stopped := z == nil || z.watch.Stop()
	c.mu.Unlock()
	if stopped {
		return
	}
	err := c.nc.SetReadDeadline(longAgo)
	// What looks at the connection may be setting a deadline of its own at this moment.
	for {
		select {
		case <-z.done:
			if !z.alive || err != nil || c.nc.SetReadDeadline(time.Time{}) != nil {
				_ = c.end(errGone)
			}
			return
		case <-time.After(10 * time.Millisecond):
			err = errors.Join(err, c.nc.SetReadDeadline(longAgo))
		}
	}
}
