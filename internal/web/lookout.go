package web

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// net/http reads one byte beside every handler, to find out when the client leaves, by a goroutine that it has to call off before the
// next request. Most requests are over before anybody could leave, and that cost more than all else that net/http does for them. So its
// read returns at once, and the reading is done here, for those requests alone that take longer.

// lookEvery is how often it is looked for requests that have begun to take long. A client is seen to leave after twice that at most.
const lookEvery = 250 * time.Millisecond

// lookout reads ahead of an HTTP/1.1 connection while a request is answered. It belongs to one visit of a client.
type lookout struct {
	gone context.CancelFunc // ends the context of the connection's requests

	active atomic.Bool // net/http has read the head of a request, and has not come to the next one
	begun  atomic.Bool // it begins its read beside the handler: it has taken the deadline away just now
	free   atomic.Bool // net/http would read ahead now: the request's content, if any, is read

	mu    sync.Mutex
	since time.Time     // when the answering began; zero: nothing is answered
	done  chan struct{} // closed when what reads has ended; nil: nothing does
	ahead []byte        // what it has read
}

// unbounded notes that net/http has taken the read deadline away.
func (l *lookout) unbounded() {
	if l.active.Load() {
		l.begun.Store(true)
	}
}

// offered says whether a read of net/http's is the one beside a handler: one byte, just after it has taken the deadline away.
func (l *lookout) offered(p []byte) bool {
	if len(p) != 1 || !l.begun.Swap(false) {
		return false
	}
	l.free.Store(true)
	return true
}

// take returns what was read ahead, once.
func (l *lookout) take(p []byte) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := copy(p, l.ahead)
	l.ahead = l.ahead[n:]
	return n
}

// begins notes that net/http has read the head of a request, and rests that it waits for the next one.
func (l *lookout) begins() {
	l.rests()
	l.active.Store(true)
}

func (l *lookout) rests() {
	l.active.Store(false)
	l.begun.Store(false)
	l.free.Store(false)
}

// lookouts looks after the connections whose requests are being answered.
type lookouts struct {
	mu      sync.Mutex
	conns   map[*watchedConn]struct{}
	ticking bool
}

func newLookouts() *lookouts { return &lookouts{conns: map[*watchedConn]struct{}{}} }

// enter notes that a request of c is being answered from now on; leave is called when it has been.
func (s *lookouts) enter(c *watchedConn) {
	c.look.mu.Lock()
	c.look.since = time.Now()
	c.look.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
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
func (s *lookouts) leave(c *watchedConn) {
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
	_ = c.Conn.SetReadDeadline(longAgo) // it fails where the connection has ended
	<-done
	_ = c.Conn.SetReadDeadline(time.Time{}) // as above; net/http sets its own for the next request
}

// readAhead begins to read where a request is answered since before then.
func (c *watchedConn) readAhead(then time.Time) {
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
		n, err := c.Conn.Read(b[:])
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ahead = append(l.ahead, b[:n]...)
		if err != nil && l.done == done { // else it was called off
			l.gone()
		}
	}()
}
