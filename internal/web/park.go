package web

import (
	"net"
	"time"

	"lazaret/internal/web/http1"
)

// An HTTP/1.1 connection that nobody uses is parked, an opened one as well as one to the proxy: net/http's goroutine and
// buffers on the client's side are given up, and small goroutines, one for each connection, wait for what comes first, a
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
			err = http1.WaitReadable(tcpBelow(c.conn))
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
