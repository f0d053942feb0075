package web

import (
	"context"
	"net/netip"
	"sync"

	"golang.org/x/sync/semaphore"
)

// turns bounds how many requests of one client are under way at a time, over all of its connections, so that one machine
// cannot fill the spool and the scanners' queue for everybody. What is too much waits; nothing is dropped.
type turns struct {
	mu   sync.Mutex
	each map[netip.Addr]*turn
}

// turn is one client's share.
type turn struct {
	*semaphore.Weighted
	users int // requests that have a place or wait for one
}

func newTurns() *turns { return &turns{each: map[netip.Addr]*turn{}} }

// take waits for a place among the limit of addr until ctx ends; the error is the context's. leave gives the place back; it
// may be called more than once. A limit that was changed holds for a client as soon as nothing of it is under way.
func (t *turns) take(ctx context.Context, addr netip.Addr, limit int) (leave func(), err error) {
	addr = counted(addr)
	t.mu.Lock()
	s := t.each[addr]
	if s == nil {
		s = &turn{Weighted: semaphore.NewWeighted(int64(limit))}
		t.each[addr] = s
	}
	s.users++
	t.mu.Unlock()
	if err := s.Acquire(ctx, 1); err != nil {
		t.forget(addr, s)
		return nil, err
	}
	return sync.OnceFunc(func() {
		s.Release(1)
		t.forget(addr, s)
	}), nil
}

// forget drops a client that has nothing under way any more.
func (t *turns) forget(addr netip.Addr, s *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(t.each, addr)
	}
}

// clients returns how many clients have requests under way.
func (t *turns) clients() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.each)
}
