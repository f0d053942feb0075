package web

import (
	"container/list"
	"errors"
	"sync"
)

// A process has so many file descriptors, and without one left nothing works any more: no connection is taken, no object is written,
// no scanner is asked. So connections to origins are bounded in all, as clients' are, and what is idle makes room.

// errTooManyOrigins says that there is no connection to an origin that could make room for another one.
var errTooManyOrigins = errors.New("there are as many connections to origins as the limit on open files allows, and none of them could make room; raise it (LimitNOFILE= in the unit, ulimit -n)")

// openOrigins are the connections to origins. It is safe for use by many goroutines.
type openOrigins struct {
	mu   sync.Mutex
	most int                       // 0: any number
	by   map[*origin]*list.Element // the places in order
	// order has them by their last use, the longest ago first. Those that belong to an opened connection of a client are not in it:
	// they end with that.
	order *list.List
}

func newOpenOrigins(most int) *openOrigins {
	return &openOrigins{most: most, by: map[*origin]*list.Element{}, order: list.New()}
}

// enter takes a place for o, which the one makes that was idle longest where there is none. It says false where none is idle.
func (s *openOrigins) enter(o *origin) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.by[o]; ok {
		return true
	}
	if s.most > 0 && len(s.by) >= s.most && !s.makeRoom(o) {
		return false
	}
	s.add(o)
	return true
}

func (s *openOrigins) add(o *origin) {
	var e *list.Element
	if o.gone == nil {
		e = s.order.PushBack(o)
	}
	s.by[o] = e
}

// makeRoom has the connection that was idle longest be closed, other than o's. The lock is held.
func (s *openOrigins) makeRoom(o *origin) bool {
	for e := s.order.Front(); e != nil; e = e.Next() {
		idle := e.Value.(*origin)
		if idle == o || idle.users.Load() > 0 {
			continue
		}
		s.remove(idle)
		go idle.rest()
		return true
	}
	return false
}

// again takes a place for o, whether there is one or not.
func (s *openOrigins) again(o *origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.by[o]; !ok {
		s.add(o)
	}
}

// leave gives o's place back. Without one it does nothing.
func (s *openOrigins) leave(o *origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(o)
}

func (s *openOrigins) remove(o *origin) {
	if e := s.by[o]; e != nil {
		s.order.Remove(e)
	}
	delete(s.by, o)
}

// used notes that o is in use.
func (s *openOrigins) used(o *origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.by[o]; e != nil {
		s.order.MoveToBack(e)
	}
}

// count returns how many there are.
func (s *openOrigins) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.by)
}

// rest ends the connection of an origin that nobody uses now; the next request opens another one.
func (o *origin) rest() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.users.Load() > 0 && o.nc != nil {
		o.server.origins.again(o) // somebody was faster
		return
	}
	o.hangUpLocked()
}

// idlers are the clients' connections that wait for a request, the one that has done so longest first. It is safe for use by many
// goroutines.
type idlers struct {
	mu    sync.Mutex
	by    map[*client]*list.Element
	order *list.List
}

func newIdlers() *idlers { return &idlers{by: map[*client]*list.Element{}, order: list.New()} }

// add notes that c waits for a request, if it did not before.
func (s *idlers) add(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[c] == nil {
		s.by[c] = s.order.PushBack(c)
	}
}

// remove notes that c waits no longer.
func (s *idlers) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.by[c]; e != nil {
		s.order.Remove(e)
		delete(s.by, c)
	}
}

// take removes up to n of those that have waited longest, and returns them.
func (s *idlers) take(n int) []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*client
	for e := s.order.Front(); e != nil && len(out) < n; e = s.order.Front() {
		c := s.order.Remove(e).(*client)
		delete(s.by, c)
		if c.active.Load() == 0 {
			out = append(out, c)
		}
	}
	return out
}

// count returns how many there are.
func (s *idlers) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.by)
}

// giveUpAtOnce is how many idle connections are ended at a time, at least.
const giveUpAtOnce = 16

// GiveUpIdle ends a part of the connections of clients that wait for a request, those that have been idle longest: there are no file
// descriptors left. It returns how many those are.
func (s *Server) GiveUpIdle() int {
	all := s.idle.take(max(giveUpAtOnce, s.idle.count()/16))
	for _, c := range all {
		go s.hangUp(c) // closing TLS may wait for the other side
	}
	return len(all)
}
