package web

import (
	"context"
	"net/http"
	"time"

	"lazaret/internal/idle"
	"lazaret/internal/policy"
	"lazaret/internal/web/http1"
)

// A visit is the time in which the HTTP/1.1 requests of a connection are answered: from its beginning, or from when it was woken up, until
// it is idle, ends, or becomes something else.

// newHTTP1 returns what answers requests of HTTP/1.1.
func (s *Server) newHTTP1(cfg Config) *http1.Server {
	return &http1.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if clientOf(r.Context()).session == nil {
				s.serveProxy(w, r)
			} else {
				s.serveInside(w, r)
			}
		}),
		MaxHead:  int64(cfg.MaxHeader),
		HeadTime: cfg.HeaderTimeout.Std(),
		Stall:    func() time.Duration { return s.settings.Load().StallTimeout.Std() },
		Linger:   lingering,
		Last:     func() bool { return s.retired.Load() || s.ending() },
		Log:      s.opt.Log,
	}
}

// lingering is how long a connection is read from after its last answer.
const lingering = 2 * time.Second

// serveVisit begins a visit, and returns at once. Where the service has ended it ends the connection.
func (s *Server) serveVisit(c *client) {
	s.mu.Lock()
	over := s.ended
	if !over {
		s.visits[c] = struct{}{}
		s.wg.Add(1)
	}
	s.mu.Unlock()
	if over {
		s.idle.remove(c)
		c.end()
		return
	}
	go func() {
		defer s.wg.Done()
		s.visit(c)
	}()
}

func (s *Server) visit(c *client) {
	end := s.answerAll(c)
	s.mu.Lock()
	delete(s.visits, c) // before another visit can begin
	s.mu.Unlock()
	if end == http1.Idle && parkable(c) {
		s.park(c)
	} else if s.idle.remove(c); end != http1.Taken {
		c.end()
	}
}

// answerAll answers the requests of a visit. A panic costs this connection alone.
func (s *Server) answerAll(c *client) http1.Ending {
	defer s.guard(c.conn, policy.Facts{Protocol: c.scheme, Direction: policy.Download, Client: c.addr.Addr(), Host: c.to.host})
	ctx := context.WithValue(context.WithValue(s.ctx, clientKey{}, c), http.LocalAddrContextKey, c.conn.LocalAddr())
	v := &http1.Visit{
		Conn: c.conn, Context: ctx, Next: func() time.Duration { return s.patience(c) },
		Rests:  func() { s.rests(c) },
		Begins: func() { s.begins(c) },
		Unread: func(m *http1.Malformed) []byte { return s.unread(c, m) },
	}
	if c.session == nil && !c.begun.Load() {
		v.First = s.http1.HeadTime // whoever comes to the proxy wants something
	}
	return s.http1.Serve(v)
}

// parkable says whether c can be parked: what is below it is a TCP connection, and nothing of it has been read ahead.
func parkable(c *client) bool { return idle.TCPBelow(c.conn) != nil }

// patience is how long a request of c is waited for, other than the first.
func (s *Server) patience(c *client) time.Duration {
	if parkable(c) {
		return s.parkAfter
	}
	return s.settings.Load().IdleTimeout.Std()
}

// rests notes that a request of c is waited for. Its origin may have gone while the answer was being sent, or before there was anything to
// be answered.
func (s *Server) rests(c *client) {
	c.resting.Store(true)
	c.reading.Store(true)
	s.idle.add(c)
	if c.pinned != nil && c.pinned.dead() {
		s.originGone(c)
	}
}

// begins notes that a request of c begins.
func (s *Server) begins(c *client) {
	c.begun.Store(true)
	c.resting.Store(false)
	s.idle.remove(c)
}

// newcomer is how long a connection that has not had a request yet is waited for when the service ends.
const newcomer = 5 * time.Second

// endVisits ends the connections that wait for a request, and returns how many there still are. New ones have some time.
func (s *Server) endVisits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.visits {
		if (c.begun.Load() || time.Since(c.born) >= newcomer) && c.resting.CompareAndSwap(true, false) {
			go s.hangUp(c) // closing TLS may wait for the other side
		}
	}
	return len(s.visits)
}

// closeVisits ends all of them.
func (s *Server) closeVisits() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.visits {
		go c.end() // as above
	}
}
