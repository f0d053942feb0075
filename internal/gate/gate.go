// Package gate is the one choke point: every object that goes to a peer is taken in here, judged here, and recorded here.
//
// It has no error result. What fails on the way (the spool is full, a decoder finds garbage, a scanner is gone, this
// package itself panics) becomes a verdict, policy says what follows from it, and nothing but an explicit "clean" is
// clean.
package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"lazaret/internal/audit"
	"lazaret/internal/content"
	"lazaret/internal/filetype"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/spool"
	"lazaret/internal/units"
	"lazaret/internal/unpack"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/semaphore"
)

// Config bounds the judging.
type Config struct {
	Timeout    units.Duration `toml:"timeout" doc:"how long the judging of one object may take, waiting for its turn included"`
	Concurrent int            `toml:"concurrent" doc:"objects over 1 MiB that are judged at a time; smaller ones have four times as many places of their own; 0: one a processor"`
	Cache      bool           `toml:"cache" doc:"whether verdicts are remembered, by SHA-256, engine and signature version"`
	CacheSize  int            `toml:"cache_size" doc:"how many verdicts are remembered; one takes about 200 bytes"`
}

// Default returns the settings that work without a file.
func Default() Config {
	return Config{Timeout: units.Duration(5 * 60e9), Cache: true, CacheSize: 200_000}
}

// Validate returns what cannot be used in c.
func (c Config) Validate() error {
	var errs []error
	if c.Timeout <= 0 {
		errs = append(errs, errors.New("timeout: must be greater than zero, such as \"5m\""))
	}
	if c.Concurrent < 0 {
		errs = append(errs, fmt.Errorf("concurrent: %d is negative; write 0 for one a processor", c.Concurrent))
	}
	if c.Cache && c.CacheSize <= 0 {
		errs = append(errs, fmt.Errorf("cache_size: %d is no size for a cache; write cache = false to have none", c.CacheSize))
	}
	return errors.Join(errs...)
}

// smallObject is the size up to which an object has a place among the small ones, so that a page's pictures do not wait
// behind somebody's disk image.
const smallObject = 1 << 20

// Options are the gate's parts.
type Options struct {
	Pool    *spool.Pool
	Limits  unpack.Limits  // of decoding and unpacking
	Content content.Limits // of the other readings of a body
	Sink    audit.Sink
	Keeper  Keeper // nil: no originals are kept
	Log     *slog.Logger
}

// Gate judges objects. It is safe for use by many goroutines.
type Gate struct {
	cfg   Config
	opt   Options
	small *semaphore.Weighted
	large *semaphore.Weighted
	cache *cache
	kinds *otter.Cache[kindsKey, []filetype.Info] // what sorts of files objects hold; nil: not remembered
	state atomic.Pointer[state]
}

// state is what a reload exchanges. Judgements hold its lock for reading, so that the engines of the old one are closed
// only when the last judgement by them has ended.
type state struct {
	using    sync.RWMutex
	engines  *scan.Set
	policy   policy.Config
	degraded bool
}

// New returns a gate without engines: until Use is called, every object is Incomplete (scanner-down).
func New(cfg Config, opt Options) *Gate {
	n := int64(cfg.Concurrent)
	if n <= 0 {
		n = int64(runtime.GOMAXPROCS(0))
	}
	g := &Gate{cfg: cfg, opt: opt, small: semaphore.NewWeighted(4 * n), large: semaphore.NewWeighted(n)}
	if cfg.Cache {
		g.cache, g.kinds = newCache(cfg.CacheSize), newKinds(cfg.CacheSize)
	}
	g.state.Store(&state{engines: scan.NewSet(), policy: policy.Default()})
	return g
}

// Use has objects judged by these engines and this policy from now on. Judgements under way end with the former ones,
// which are then closed. Degraded says that the built-in signatures alone stand guard; notices tell.
func (g *Gate) Use(engines *scan.Set, p policy.Config, degraded bool) {
	old := g.state.Swap(&state{engines: engines, policy: p, degraded: degraded})
	if old.engines == engines {
		return
	}
	go func() {
		old.using.Lock()
		if err := old.engines.Close(); err != nil {
			g.opt.Log.Warn("closing the former scanners", "error", err)
		}
	}()
}

// OnShortage is spool.Pool.OnShortage of the pool that objects are taken into.
func (g *Gate) OnShortage(give func() bool) { g.opt.Pool.OnShortage(give) }

// Engines returns the engines in use.
func (g *Gate) Engines() *scan.Set { return g.state.Load().engines }

// Close closes the engines once nothing is judged by them any more; whatever comes later is Incomplete.
func (g *Gate) Close() { g.Use(scan.NewSet(), policy.Default(), false) }

// acquire returns the present state, held for reading.
func (g *Gate) acquire() *state {
	for {
		s := g.state.Load()
		// A state that is being closed cannot be locked; its successor is there already.
		if s.using.TryRLock() {
			if g.state.Load() == s {
				return s
			}
			s.using.RUnlock()
		}
		runtime.Gosched()
	}
}

// place waits for a place among the objects that are judged at a time, and returns what gives it back.
func (g *Gate) place(ctx context.Context, size int64) (release func(), err error) {
	s := g.small
	if size > smallObject {
		s = g.large
	}
	if err := s.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { s.Release(1) }, nil
}
