package http1

import (
	"sync"
	"sync/atomic"
	"time"
)

// While a request is answered, somebody has to find out when the client leaves. Reading beside every Handler, as net/http's server does,
// costs more than all else there is to be done for most requests, which are over before anybody could leave. So it is done for those alone
// that take longer.

// lookEvery is how often it is looked for requests that have begun to take long. A client is seen to leave after twice that at most.
const lookEvery = 250 * time.Millisecond

// lookout reads ahead of a connection while a request is answered.
type lookout struct {
	free atomic.Bool // the request's content, if any, is read

	mu    sync.Mutex
	since time.Time     // when the answering began; zero: nothing is answered
	done  chan struct{} // closed when what reads has ended; nil: nothing does
	ahead []byte        // what it has read
}

// take returns what was read ahead, once.
func (l *lookout) take(p []byte) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := copy(p, l.ahead)
	l.ahead = l.ahead[n:]
	return n
}

// lookouts looks after the connections whose requests are being answered. Its zero value is ready for use.
type lookouts struct {
	mu      sync.Mutex
	conns   map[*serving]struct{}
	ticking bool
}

// enter notes that a request of c is being answered from now on; leave is called when it has been. Free says that it has no content.
func (s *lookouts) enter(c *serving, free bool) {
	c.look.free.Store(free)
	c.look.mu.Lock()
	c.look.since = time.Now()
	c.look.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[*serving]struct{}{}
	}
	s.conns[c] = struct{}{}
	if !s.ticking {
		s.ticking = true
		time.AfterFunc(lookEvery, s.tick)
	}
}

// tick has those connections read ahead whose requests take long.
func (s *lookouts) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for c := range s.conns {
		c.readAhead(now.Add(-lookEvery))
	}
	if s.ticking = len(s.conns) > 0; s.ticking {
		time.AfterFunc(lookEvery, s.tick)
	}
}

// leave ends what enter began, and returns when nothing is being read any more. It may be called more than once.
func (s *lookouts) leave(c *serving) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	l := &c.look
	l.mu.Lock()
	done := l.done
	l.since, l.done = time.Time{}, nil
	l.mu.Unlock()
	if done == nil {
		return
	}
	_ = c.v.Conn.SetReadDeadline(longAgo) // it fails where the connection has ended
	<-done
	_ = c.v.Conn.SetReadDeadline(time.Time{}) // as above
}

// Ahead returns ahead of how many requests that are being answered it is read at the moment, and how many bytes have come that way.
func (s *Server) Ahead() (reading, bytes int) {
	s.lookouts.mu.Lock()
	defer s.lookouts.mu.Unlock()
	for c := range s.lookouts.conns {
		c.look.mu.Lock()
		if c.look.done != nil {
			reading++
		}
		bytes += len(c.look.ahead)
		c.look.mu.Unlock()
	}
	return reading, bytes
}

// readAhead begins to read where a request is answered since before then.
func (c *serving) readAhead(then time.Time) {
	l := &c.look
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() || l.since.After(then) || l.done != nil || len(l.ahead) > 0 || !l.free.Load() {
		return
	}
	done := make(chan struct{})
	l.done = done
	go func() {
		defer close(done)
		var b [1]byte
		n, err := c.v.Conn.Read(b[:])
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ahead = append(l.ahead, b[:n]...)
		if err != nil && l.done == done { // else it was called off
			c.gone()
		}
	}()
}
