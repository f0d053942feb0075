package web

import (
	"net/http"
	"sync"
	"time"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
)

const (
	// stoppedTime is how long it is remembered that a transfer was aborted: long enough for the client, or its user, to try
	// again.
	stoppedTime = 10 * time.Minute
	// stoppedMost bounds how many are remembered.
	stoppedMost = 4096
)

// stopped remembers the transfers that were aborted because of what was found at their end, so that who tries again is told
// why, at once. It is safe for use by many goroutines.
type stopped struct {
	mu    sync.Mutex
	known map[stoppedKey]stoppedEntry
	order []stoppedKey // oldest first; those that were replaced may be in it twice
}

type stoppedKey struct{ client, user, method, url string }

type stoppedEntry struct {
	notice  notice.Notice
	until   time.Time
	engines string // the version that judged
}

func newStopped() *stopped { return &stopped{known: map[stoppedKey]stoppedEntry{}} }

func (x *exchange) stoppedKey() stoppedKey {
	return stoppedKey{client: x.facts.Client.String(), user: x.facts.User, method: x.r.Method, url: x.facts.URL}
}

// remember notes n as the reason why x was aborted, where it is about its object and will be the same the next time.
func (s *stopped) remember(x *exchange, n notice.Notice) {
	switch {
	case x.r.Method != http.MethodGet:
		return // the next one may ask for something else by its content
	case n.Decision.Action != policy.Block:
		return
	case n.Kind != notice.Infected && n.Kind != notice.NotAllowed && n.Kind != notice.NotScanned:
		return
	}
	version, _ := x.s.opt.Gate.Engines().Version()
	s.mu.Lock()
	defer s.mu.Unlock()
	k := x.stoppedKey()
	s.known[k] = stoppedEntry{notice: n, until: time.Now().Add(stoppedTime), engines: version}
	s.order = append(s.order, k)
	for len(s.order) > stoppedMost {
		delete(s.known, s.order[0])
		s.order = s.order[1:]
	}
}

// recall returns why the same request was aborted not long ago, and whether it was.
func (s *stopped) recall(x *exchange) (notice.Notice, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) == 0 {
		return notice.Notice{}, false
	}
	k := x.stoppedKey()
	e, ok := s.known[k]
	if !ok {
		return notice.Notice{}, false
	}
	if version, _ := x.s.opt.Gate.Engines().Version(); version != e.engines || time.Now().After(e.until) {
		delete(s.known, k)
		return notice.Notice{}, false
	}
	return e.notice, true
}

// forget forgets everything.
func (s *stopped) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.known)
	s.order = nil
}
