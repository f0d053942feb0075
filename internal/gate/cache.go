package gate

import (
	"context"
	"crypto/sha256"
	"hash/maphash"
	"sync"

	"lazaret/internal/scan"

	"github.com/maypok86/otter/v2"
	"github.com/maypok86/otter/v2/stats"
)

// key is what a verdict depends on: the bytes, what they are said to be (the boundary of a multipart, a charset, a name as of a mail: the
// same bytes are read in other ways under another type), and the engines with their signatures.
type key struct {
	sum     [sha256.Size]byte
	said    uint64
	version uint64
}

// cache remembers definite verdicts, and lets identical objects that are judged at the same time share one scan.
type cache struct {
	seed    maphash.Seed
	entries *otter.Cache[key, scan.Verdict]
	mu      sync.Mutex
	flying  map[key]*flight
}

// flight is a scan that others wait for.
type flight struct {
	done    chan struct{}
	verdict scan.Verdict
}

func newCache(size int) *cache {
	return &cache{
		seed: maphash.MakeSeed(),
		entries: otter.Must(&otter.Options[key, scan.Verdict]{
			MaximumSize: size, StatsRecorder: stats.NewCounter(),
			Executor: func(f func()) { f() }, // what is to be done is little: a goroutine for it costs more
		}),
		flying: make(map[key]*flight),
	}
}

// remembered returns the verdict of o from the cache, or from a scan of the same bytes that is under way, or from a scan
// of its own.
func (g *Gate) remembered(ctx context.Context, s *state, o *scan.Object) (v scan.Verdict, cached bool) {
	version, ok := s.engines.Version()
	if g.cache == nil || !ok {
		return g.examine(ctx, s, o), false
	}
	c := g.cache
	said := o.Type + "\x00" + o.TransferEncoding
	if o.Piece {
		said += "\x00piece"
	}
	if calledMail(o) {
		said += "\x00mail"
	}
	k := key{sum: o.Body.SHA256(), said: maphash.String(c.seed, said), version: maphash.String(c.seed, version)}
	for {
		if v, ok := c.entries.GetIfPresent(k); ok {
			return v, true
		}
		f, waiting := c.flight(k)
		if f == nil {
			continue // the last one has ended meanwhile
		}
		if !waiting {
			return g.fly(ctx, s, o, k, f), false
		}
		select {
		case <-f.done:
			switch {
			case definite(f.verdict):
				return f.verdict, true
			case f.verdict.Reason != scan.Cancelled:
				// What kept the other scan from an answer (its time was up, an engine failed) need not concern this one.
				return g.examine(ctx, s, o), false
			}
			// The other one's client left: those who are left share a scan again.
		case <-ctx.Done():
			return scan.FromError("gate", ctx.Err()), false
		}
	}
}

// flight returns the scan of k that is under way, or else a new one, which the caller is to make; nil where none is needed any
// more.
func (c *cache) flight(k key) (f *flight, waiting bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, waiting = c.flying[k]; !waiting {
		if _, ok := c.entries.GetIfPresent(k); ok {
			return nil, false
		}
		f = &flight{done: make(chan struct{})}
		c.flying[k] = f
	}
	return f, waiting
}

// fly scans o on behalf of everybody who waits for k.
func (g *Gate) fly(ctx context.Context, s *state, o *scan.Object, k key, f *flight) scan.Verdict {
	defer func() {
		g.cache.mu.Lock()
		delete(g.cache.flying, k)
		g.cache.mu.Unlock()
		close(f.done)
	}()
	f.verdict = g.examine(ctx, s, o)
	// Signatures that changed during the scan: which ones judged is not known, so nothing is remembered.
	if version, ok := s.engines.Version(); ok && definite(f.verdict) && maphash.String(g.cache.seed, version) == k.version {
		g.cache.entries.Set(k, f.verdict)
	}
	return f.verdict
}

// definite says whether a verdict is worth remembering: it would be the same the next time.
func definite(v scan.Verdict) bool { return v.Outcome == scan.Clean || v.Outcome == scan.Infected }

// Cached returns how many verdicts are remembered, and how many were given up for lack of room.
func (g *Gate) Cached() (entries int64, evicted uint64) {
	if g.cache == nil {
		return 0, 0
	}
	return int64(g.cache.entries.EstimatedSize()), g.cache.entries.Stats().Evictions
}
