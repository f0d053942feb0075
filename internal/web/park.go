package web

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// An HTTP/1.1 connection that nobody uses is parked, an opened one as well as one to the proxy: net/http's goroutines and
// buffers on both of its sides are given up, and small goroutines, one for each connection, wait for what comes first, a
// request of the client or the end of either side. Most of the connections that browsers keep open are in this state most of
// the time.

// parkAfter is how long a connection must have been idle to be parked, by default. Parking and its end take some tens of
// microseconds.
const parkAfter = 500 * time.Millisecond

// visit has the server that a connection belongs to serve it until it is idle.
func (s *Server) visit(c *client, served net.Conn) {
	var ok bool
	if c.session == nil {
		ok = s.outerFeed.serve(served)
	} else {
		ok = s.serveVisit(served)
	}
	if !ok {
		s.idle.remove(c)
		_ = served.Close() // nobody is left to serve it
		s.inside.Delete(served)
		c.close()
	}
}

// serveVisit hands an opened connection to the inner server, or, where that ends, to the one that comes after.
func (s *Server) serveVisit(served net.Conn) bool {
	return !s.lateOnly.Load() && s.feed.serve(served) || s.lateFeed.serve(served)
}

// newVisit returns the connection for one visit of c to the server that it belongs to.
func (s *Server) newVisit(c *client) *watchedConn {
	return &watchedConn{Conn: c.conn, server: s, owner: c}
}

// park waits for the next request of a connection that net/http has given up.
func (s *Server) park(c *client) {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		s.idle.remove(c)
		_ = c.conn.Close() // idle, and the service ends
		c.close()
		return
	}
	s.parked[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		c.parkOrigins()
		err := c.conn.SetReadDeadline(time.Now().Add(s.settings.Load().IdleTimeout.Std()))
		if err == nil {
			err = waitReadable(tcpBelow(c.conn))
		}
		s.mu.Lock()
		delete(s.parked, c)
		s.mu.Unlock()
		if err == nil {
			err = c.conn.SetReadDeadline(time.Time{})
		}
		if err != nil {
			s.idle.remove(c)
			_ = c.conn.Close() // idle for too long, or closed already
			c.close()
			return
		}
		s.visit(c, s.newVisit(c))
	}()
}

// closeParked ends the connections that are parked.
func (s *Server) closeParked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.parked {
		go c.conn.Close() //nolint:errcheck // closing TLS may wait for the other side; there is nobody to tell
	}
}

// waitReadable waits until there is something to read, or the end, or an error, on a TCP connection, and leaves it there.
// Its error is the connection's own: closed, or its read deadline has passed.
func waitReadable(t *net.TCPConn) error {
	if t == nil {
		return net.ErrClosed
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var b [1]byte
	return raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
}

// lent is a connection that is lent to an HTTP client, which can be made to give it back while it is idle.
type lent struct {
	net.Conn
	mu     sync.Mutex
	last   error // of the last Read; nil: it brought something
	recall bool  // it is to be given back: closing it leaves the connection alone
	given  chan struct{}
}

// Read implements net.Conn.
func (l *lent) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last = err; n > 0 {
		l.last = nil
	}
	return n, err
}

// Close implements net.Conn.
func (l *lent) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.recall {
		return l.Conn.Close()
	}
	select {
	case <-l.given:
	default:
		close(l.given)
	}
	return nil
}

// giveBack has the HTTP client, which must be idle, give the connection up, and says whether the connection is as if it
// had never been lent: nothing was read that is lost now.
func (l *lent) giveBack() bool {
	l.mu.Lock()
	l.recall, l.given = true, make(chan struct{})
	l.mu.Unlock()
	if l.SetReadDeadline(longAgo) != nil {
		return false
	}
	select {
	case <-l.given:
	case <-time.After(time.Second):
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Is(l.last, os.ErrDeadlineExceeded) && l.SetReadDeadline(time.Time{}) == nil
}

// sleeper watches an idle connection to an origin that no HTTP client has.
type sleeper struct {
	nc     net.Conn
	waking atomic.Bool
	done   chan struct{}
	alive  bool // once done is closed: whether the connection can be used again
}

// sleep watches nc until wake, and calls gone when the origin ends the connection, or says something unasked.
func sleep(nc net.Conn, gone func()) *sleeper {
	z := &sleeper{nc: nc, done: make(chan struct{})}
	go func() {
		z.alive = z.watch()
		close(z.done)
		if !z.alive {
			gone()
		}
	}()
	return z
}

// watch returns true when it was woken, false at the end of the connection.
func (z *sleeper) watch() bool {
	for !z.waking.Load() {
		if err := waitReadable(tcpBelow(z.nc)); err != nil {
			return z.waking.Load() && errors.Is(err, os.ErrDeadlineExceeded)
		}
		// TLS may have something to say to itself, such as a session ticket.
		var b [1]byte
		if z.nc.SetReadDeadline(time.Now().Add(10*time.Millisecond)) != nil {
			return false
		}
		if n, err := z.nc.Read(b[:]); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if z.nc.SetReadDeadline(time.Time{}) != nil {
			return false
		}
	}
	return true
}

// wake ends the watch, and says whether the connection can be used.
func (z *sleeper) wake() bool {
	z.waking.Store(true)
	err := z.nc.SetReadDeadline(longAgo)
	// The watch may be setting a deadline of its own at this moment: it looks at waking after that.
	for {
		select {
		case <-z.done:
			return z.alive && err == nil && z.nc.SetReadDeadline(time.Time{}) == nil
		case <-time.After(10 * time.Millisecond):
			err = errors.Join(err, z.nc.SetReadDeadline(longAgo))
		}
	}
}
