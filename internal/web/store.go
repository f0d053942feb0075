package web

import (
	"container/list"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/scan"
)

// maxStored is how many objects the store keeps at most: each has an open file.
const maxStored = 1024

// confirmedFor is how long after an origin's answer about a stored object others that ask for it do not wait for each
// other's answers any more. Each of them is asked about all the same.
const confirmedFor = 10 * time.Second

// store keeps objects that were judged, so that a client which fetches one piece by piece, or resumes a download, does not
// make the whole come again for each piece. What it gives was taken in whole; it is judged again for each use, which the
// gate's memory makes cheap, and used only after the origin has confirmed its validator to the very client that asks.
//
// Requests of one client for parts of one object that nobody has yet wait for the first of them to bring it.
type store struct {
	mu      sync.Mutex
	max     int64         // bytes in all; 0: nothing is kept
	keep    time.Duration // since the last use
	size    int64
	entries map[storeKey]*list.Element // of *stored
	recent  *list.List                 // the last used first
	flights map[storeKey]*flight
}

// storeKey says whose object it is.
type storeKey struct {
	owner string // the client's address and user; "": everybody's, as the origin says that it is public
	url   string
}

// stored is one object. But for the fields that its store's lock guards it does not change.
type stored struct {
	key     storeKey
	object  *scan.Object // its Body is the store's reference
	in      gate.Intake
	codings []string    // that the object still has
	request http.Header // fields of the request that the answer was chosen by
	header  http.Header // the answer's, as a client gets it
	origin  http.Header // the conditions that ask the origin whether it is still the same

	expiry    *time.Timer
	confirmed time.Time // when an origin last said that it is still the same
}

// flight is a request that others wait for: it brings the object, or word of it.
type flight struct {
	done chan struct{}
	once sync.Once
	// worked says that waiting was worthwhile; gone that the request's client left: it may be different for another one.
	worked, gone bool

	// These are under the store's lock: how many wait for it, and, where its own client has gone, what ends it, and when.
	waiting int
	giveUp  func()
	idle    *time.Timer
}

func newStore() *store {
	return &store{entries: map[storeKey]*list.Element{}, recent: list.New(), flights: map[storeKey]*flight{}}
}

// limit sets the bounds.
func (s *store) limit(size int64, keep time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.max, s.keep = size, keep
	for s.size > s.max {
		s.dropLocked(s.recent.Back())
	}
}

// on says whether anything is kept at all.
func (s *store) on() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.max > 0
}

// find returns what there is for a request: an object whose Body the caller closes, nil where there is none. Where the
// origin has not been asked about it lately, or there is none, lead is the flight that the caller then makes and must end;
// without it, another one's is to be waited for with await.
func (s *store) find(keys []storeKey, h http.Header) (e *stored, lead, wait *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		el := s.entries[k]
		if el == nil {
			continue
		}
		if known := el.Value.(*stored); known.serves(h) {
			e = known
			break
		}
	}
	if e != nil && time.Since(e.confirmed) < confirmedFor {
		return s.useLocked(e), nil, nil
	}
	if f := s.flights[keys[0]]; f != nil {
		if f.waiting++; f.idle != nil {
			f.idle.Stop()
		}
		return nil, nil, f
	}
	lead = &flight{done: make(chan struct{})}
	s.flights[keys[0]] = lead
	if e != nil {
		s.useLocked(e)
	}
	return e, lead, nil
}

// serves says whether the answer that is kept would be chosen for a request with these fields as well.
func (e *stored) serves(h http.Header) bool {
	for name, values := range e.request {
		if !slices.Equal(values, h[name]) {
			return false
		}
	}
	return true
}

func (s *store) useLocked(e *stored) *stored {
	s.recent.MoveToFront(s.entries[e.key])
	e.expiry.Reset(s.keep)
	e.object.Body.Retain()
	return e
}

// confirm notes that an origin said that e is still the same.
func (s *store) confirm(e *stored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.confirmed = time.Now()
}

// end ends a flight. Whoever waits for it looks again where it worked, or its client had gone.
func (s *store) end(k storeKey, f *flight, worked, gone bool) {
	f.once.Do(func() {
		s.mu.Lock()
		delete(s.flights, k)
		if f.idle != nil {
			f.idle.Stop()
			f.idle = nil
		}
		s.mu.Unlock()
		f.worked, f.gone = worked, gone
		close(f.done)
	})
}

// put keeps an object, instead of the one that it has for the same key, and says whether it does. The caller keeps its own
// reference.
func (s *store) put(e *stored) bool {
	size := e.object.Body.Size()
	s.mu.Lock()
	defer s.mu.Unlock()
	if size > s.max {
		return false
	}
	s.dropLocked(s.entries[e.key])
	for s.size+size > s.max || s.recent.Len() >= maxStored {
		s.dropLocked(s.recent.Back())
	}
	e.object.Body.Retain()
	e.confirmed = time.Now()
	s.size += size
	el := s.recent.PushFront(e)
	s.entries[e.key] = el
	e.expiry = time.AfterFunc(s.keep, func() { s.drop(e) })
	return true
}

// drop gives e up, where it is still there.
func (s *store) drop(e *stored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.entries[e.key]; el != nil && el.Value == e {
		s.dropLocked(el)
	}
}

// dropLocked gives an object up. Requests that use it have references of their own.
func (s *store) dropLocked(el *list.Element) {
	if el == nil {
		return
	}
	e := s.recent.Remove(el).(*stored)
	delete(s.entries, e.key)
	e.expiry.Stop()
	s.size -= e.object.Body.Size()
	_ = e.object.Body.Close() // the room is given back; nothing is lost with it
}

// shrink gives up the object that was not used for the longest, because the spool needs room, and says whether there was
// one.
func (s *store) shrink() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	el := s.recent.Back()
	s.dropLocked(el)
	return el != nil
}

// close gives everything up, for good.
func (s *store) close() {
	s.limit(0, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flights {
		if f.idle != nil {
			f.giveUp()
		}
	}
}

// usage returns how many objects are kept, and their bytes.
func (s *store) usage() (objects int, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recent.Len(), s.size
}

// wait waits until f has ended or ctx does, whose error it returns.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
