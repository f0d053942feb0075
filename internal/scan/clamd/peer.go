package clamd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"lazaret/internal/scan"
)

// How long an address that could not be reached is left alone: doubled from the first to the last.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// errClosed says that the Scanner was closed.
var errClosed = errors.New("the clamd client is closed")

// peer is one address: its connections, and what is known of the clamd there.
type peer struct {
	at    endpoint
	cfg   Config
	log   *slog.Logger
	slots chan struct{} // one for each scan under way

	mu         sync.Mutex
	closed     bool
	idle       []*session // the last one was used last
	up         bool       // the last answer to VERSION, or the last connection, was good
	since      time.Time  // of up, or of its end
	err        error      // why it is not up
	failures   int        // connections that failed, one after the other
	retryAt    time.Time  // not before then
	generation uint64     // counts the clamds that may have been here
	version    scan.Version
	known      bool // version is
	noFiles    bool // FILDES does not arrive here
	limits     *limits
	counts     counts
}

type counts struct{ scans, failed, retried int64 }

func newPeer(at endpoint, cfg Config, log *slog.Logger) *peer {
	return &peer{
		at: at, cfg: cfg, log: log.With("clamd", at.String()), since: time.Now(),
		slots: make(chan struct{}, cfg.MaxConnections), limits: newLimits(identity{}),
	}
}

// acquire returns a session for one scan, waiting for a free slot; fresh: not one that was used before. The caller gives
// it back by release.
func (p *peer) acquire(ctx context.Context, fresh bool) (*session, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for one of %d connections to clamd: %w", cap(p.slots), ctx.Err())
	}
	s, err := p.session(ctx, fresh)
	if err != nil {
		<-p.slots
		return nil, err
	}
	return s, nil
}

func (p *peer) session(ctx context.Context, fresh bool) (*session, error) {
	for !fresh {
		s := p.pop()
		if s == nil {
			break
		}
		if p.current(s) && s.alive() {
			return s, nil
		}
		s.close()
	}
	p.mu.Lock()
	wait, last, closed := time.Until(p.retryAt), p.err, p.closed
	p.mu.Unlock()
	switch {
	case closed:
		return nil, &scan.Error{Reason: scan.Unavailable, Err: errClosed}
	case wait > 0:
		return nil, &scan.Error{Reason: scan.Unavailable, Err: fmt.Errorf("%s is not tried again for %v: %w", p.at, wait.Round(time.Millisecond), last)}
	}
	return p.dial(ctx)
}

// dial opens a session, and notes whether that worked.
func (p *peer) dial(ctx context.Context) (*session, error) {
	p.mu.Lock()
	generation := p.generation
	p.mu.Unlock()
	s, err := open(ctx, p.at, p.cfg.ConnectTimeout.Std())
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err = &scan.Error{Reason: scan.Unavailable, Err: fmt.Errorf("%s: %w", p.at, err)}
		p.failed(err)
		return nil, err
	}
	s.of.generation = generation
	p.mu.Lock()
	p.failures, p.retryAt = 0, time.Time{}
	p.mu.Unlock()
	return s, nil
}

// reopen puts a new connection into s, in place of one that was lost. It fails when another clamd than before answers,
// because what is asked over s then is about the one before.
func (p *peer) reopen(ctx context.Context, s *session) error {
	t, err := p.dial(ctx)
	if err != nil {
		return err
	}
	if t.of != s.of {
		t.close()
		return &scan.Error{Reason: scan.Unavailable, Err: fmt.Errorf("%s: another clamd than before: %w", p.at, errLost)}
	}
	s.close()
	*s = *t
	return nil
}

// failed notes that no connection could be had.
func (p *peer) failed(err error) {
	p.mu.Lock()
	pause := min(firstPause<<min(p.failures, 10), lastPause)
	p.failures++
	// Spread, so that several gateways do not come back all at once.
	p.retryAt = time.Now().Add(pause/2 + rand.N(pause/2)) //nolint:gosec // no secret
	p.mu.Unlock()
	p.setUp(false, err)
}

// pop takes the idle session that was used last, nil when there is none.
func (p *peer) pop() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	s := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return s
}

// release gives s back: kept for the next scan if good.
func (p *peer) release(s *session, good bool) {
	defer func() { <-p.slots }()
	p.mu.Lock()
	keep := good && !p.closed && !s.spoiled
	if keep {
		s.used = time.Now()
		p.idle = append(p.idle, s)
	}
	p.mu.Unlock()
	if !keep {
		s.close()
	}
}

// trim closes the sessions that have been idle for longer than d.
func (p *peer) trim(d time.Duration) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].used) >= d {
		n++
	}
	old := append([]*session(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	p.mu.Unlock()
	for _, s := range old {
		s.close()
	}
}

// close ends every idle session; those in use end when they are given back.
func (p *peer) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.trim(0)
}

// setUp notes whether the address answers, and logs it when that changes.
func (p *peer) setUp(up bool, err error) {
	p.mu.Lock()
	changed := p.up != up || (p.err == nil) != (err == nil)
	p.up, p.err = up, err
	if changed {
		p.since = time.Now()
	}
	closed := p.closed
	p.mu.Unlock()
	switch {
	case !changed || closed:
	case up:
		p.log.Info("clamd answers")
	default:
		p.log.Warn("clamd does not answer", "error", err)
	}
}

// another notes that the clamd at this address may be another one from now on.
func (p *peer) another() {
	p.mu.Lock()
	p.generation++
	p.known, p.noFiles = false, false
	p.limits = newLimits(identity{generation: p.generation})
	p.mu.Unlock()
}

// current says whether s is connected to the clamd that is there now, as far as is known.
func (p *peer) current(s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return s.of.generation == p.generation
}

// limitsOf returns what is known of the limits of the clamd that s is connected to.
func (p *peer) limitsOf(s *session) *limits {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limits.of != s.of {
		p.limits = newLimits(s.of)
	}
	return p.limits
}
