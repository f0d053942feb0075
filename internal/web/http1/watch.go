package http1

import (
	"errors"
	"net"
	"os"
	"time"

	"lazaret/internal/web/idle"

	"golang.org/x/sys/unix"
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
	err, idle := c.err, !c.busy && c.asleep == nil
	c.mu.Unlock()
	if err != nil || !idle || c.silent() {
		return err
	}
	return c.end(errGone)
}

// looks is how often what is there is tried to be read, before it is taken for something unasked.
const looks = 3

// silent says whether there is nothing for HTTP to read.
func (c *Conn) silent() bool {
	layered := c.nc != net.Conn(c.tcp)
	for range looks {
		there, err := readable(c.tcp)
		switch {
		case err != nil:
			return false
		case !there:
			// TLS may have read more from the socket than it has given away: that is asked for without reading any further.
			return !layered || c.stillSilent(longAgo)
		case !layered || !c.stillSilent(time.Now().Add(time.Millisecond)):
			return false
		}
		// Either it was something of TLS's own, or the time was up before anything was read.
	}
	return false
}

// stillSilent says whether what comes until then is nothing for HTTP: TLS may have something to say to itself, such as a session ticket.
func (c *Conn) stillSilent(until time.Time) bool {
	var b [1]byte
	if c.nc.SetReadDeadline(until) != nil {
		return false
	}
	n, err := c.nc.Read(b[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.nc.SetReadDeadline(time.Time{}) == nil
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
	z.alive = z.c.stillSilent(time.Now().Add(10 * time.Millisecond))
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

// readable says whether there is something to read, or an error, on a TCP connection; nil: there is nothing. The error is that of a
// closed connection, or one whose other side has ended it.
func readable(t *net.TCPConn) (there bool, err error) {
	if t == nil {
		return false, nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return false, err
	}
	ended := false
	err = raw.Control(func(fd uintptr) { there, ended = peek(fd) })
	if err == nil && ended {
		err = errGone
	}
	return there, err
}

// peek looks for what there is to read. The end is something, too.
func peek(fd uintptr) (there, ended bool) {
	var b [1]byte
	n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return false, false
	}
	return true, err != nil || n == 0
}
