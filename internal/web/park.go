package web

import (
	"net"
	"time"

	"lazaret/internal/idle"
)

// An HTTP/1.1 connection that nobody uses is parked, an opened one as well as one to the proxy: the goroutine and the
// buffers on the client's side are given up, and one goroutine for all such connections waits for what comes first, a
// request of the client or the end of either side. Most of the connections that browsers keep open are in this state most of
// the time.

// parkAfter is how long a connection must have been idle to be parked, by default. Parking and its end take some tens of
// microseconds.
const parkAfter = 500 * time.Millisecond

// park waits for the next request of a connection without serving it.
func (s *Server) park(c *client) {
	c.parkOrigins()
	if c.pinned != nil && c.pinned.dead() || !s.lieDown(c) {
		s.idle.remove(c)
		c.end()
	}
}

// lieDown has a connection be watched, unless it is closed already or the service ends.
func (s *Server) lieDown(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	x, err := s.watcher.Add(idle.TCPBelow(c.conn), s.settings.Load().IdleTimeout.Std(), func(err error) { s.unpark(c, err) })
	if err != nil {
		return false
	}
	s.parked[c] = x
	s.wg.Add(1)
	return true
}

// unpark goes on with a connection when something has come, or ends it because of err.
func (s *Server) unpark(c *client, err error) {
	defer s.wg.Done()
	s.mu.Lock()
	delete(s.parked, c)
	s.mu.Unlock()
	if err == nil {
		err = c.conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		s.idle.remove(c)
		c.end() // idle for too long, or closed already
		return
	}
	s.serveVisit(c)
}

// hangUp ends the connection of a client that waits for a request. Where it is parked, nobody else finds that out.
func (s *Server) hangUp(c *client) {
	if s.wake(c) {
		return
	}
	_ = c.hangUp() // there is nobody to tell
	s.wake(c)      // it may have been parked meanwhile
}

// wake ends the connection of a client that is parked, and says whether it was.
func (s *Server) wake(c *client) bool {
	s.mu.Lock()
	x := s.parked[c]
	s.mu.Unlock()
	if x == nil || !x.Stop() {
		return false
	}
	s.unpark(c, net.ErrClosed)
	return true
}

// closeParked ends the connections that are parked.
func (s *Server) closeParked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.parked {
		go s.hangUp(c) // closing TLS may wait for the other side
	}
}
