package unpack

import (
	"context"
	"slices"
	"sync"
	"time"

	"lazaret/internal/spool"
	"lazaret/internal/units"
)

// Budget is the memory that all decoders share. Each takes what its content declares (a window, a dictionary) before it allocates
// it, and gives it back at its end. It is safe for use by many goroutines.
//
// Nobody waits for ever, and those that wait do not wait for each other for ever:
//
//   - A decoder takes all that it needs at once, and holds nothing while it waits.
//   - Decoders whose content comes as slowly as its sender likes have half of the memory (Lasting), those whose content is at hand,
//     or that need little, three quarters (Brief): senders that stall hold up each other, and nobody else. Those of content without
//     an end have half of that half together (Endless): however many there are, the others go on.
//   - Archives that are being scanned, and bodies that hold room on disk while they are undone, have all of it (Inner). They never wait
//     for room on disk while they hold memory, and so end by themselves: the last quarter always comes free, whatever all others wait
//     for. A decoder of theirs that needs more than that does not wait. An archive that needs more while it holds some, for an archive inside the archive, waits as long as anybody who holds
//     some goes on; where all of them wait, the one that came last is refused.
type Budget struct {
	mu      sync.Mutex
	total   int64
	used    int64
	endless int64 // of it, by Endless
	most    int64 // that was ever in use
	queue   []*wanting
	claims  map[*claim]struct{} // that hold something
}

// Share says how much of a Budget somebody may bring into use.
type Share uint8

// The shares.
const (
	Endless Share = iota // half, and all of that share together a quarter
	Lasting              // half
	Brief                // three quarters
	Inner                // all
)

// objectMemory is how much the codings of one body may need together. RFC 7932 and RFC 9659 allow up to 16 MiB and 8 MiB for one,
// and nobody has a use for two.
const objectMemory = 64 << 20

// littleMemory is what counts as little: gzip, deflate, and zstd of small content.
const littleMemory = 256 << 10

// decoders is the budget of this process.
var decoders = NewBudget(Default().TotalMemory)

// Memory returns the budget of all decoders of this process.
func Memory() *Budget { return decoders }

// NewBudget returns a budget of total bytes.
func NewBudget(total units.Size) *Budget {
	return &Budget{total: int64(total), claims: map[*claim]struct{}{}}
}

// Resize changes the budget. What is in use stays.
func (b *Budget) Resize(total units.Size) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total = int64(total)
	b.changed()
}

// Used returns how many bytes decoders have now, and how many they ever had at the same time.
func (b *Budget) Used() (now, most int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.most
}

// Total returns how many bytes the budget is of.
func (b *Budget) Total() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total
}

// Waiting returns how many decoders wait for memory.
func (b *Budget) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue)
}

// limit returns how much may be in use when somebody of that share takes some; of Endless, by that share alone.
func (b *Budget) limit(s Share) int64 {
	switch s {
	case Endless:
		return b.total / 4
	case Lasting:
		return b.total / 2
	case Brief:
		return b.total / 4 * 3
	case Inner:
	}
	return b.total
}

// left returns how much somebody of that share can take now. The lock is held.
func (b *Budget) left(s Share) int64 {
	if s == Endless {
		return min(b.limit(Endless)-b.endless, b.left(Lasting))
	}
	return b.limit(s) - b.used
}

// sure returns how much whoever has the share Inner gets some day, whatever all others wait for: nobody else takes any of it.
func (b *Budget) sure() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total - b.limit(Brief)
}

// Patience says how a decoder waits for memory. The zero value does not wait.
type Patience struct {
	For time.Duration // at most
	spool.Waiting
}

// claim is what one decoder, or one walk, has of a budget.
type claim struct {
	b       *Budget
	held    int64
	endless int64 // of it, of that share
	waits   int   // how often it is in the queue
}

// wanting is one that waits.
type wanting struct {
	*claim
	share Share
	n     int64
	done  chan error // gets what came of it, once
}

// take takes n bytes. The error is of kind TooLarge: they can never be had; or SpoolFull: they could not be had in time.
func (c *claim) take(n int64, s Share, p Patience, what string) error {
	b := c.b
	b.mu.Lock()
	switch {
	case n < 0 || n > b.limit(s)-c.held:
		defer b.mu.Unlock()
		return errorf(TooLarge, what, "decoding it takes %d bytes of memory, and may take %d (unpack.total_memory is %v)", n, b.limit(s)-c.held, units.Size(b.total))
	case b.grant(c, s, n):
		b.mu.Unlock()
		return nil
	case p.For <= 0:
		defer b.mu.Unlock()
		return errorf(SpoolFull, what, "decoding it takes %d bytes of memory, and others have it (unpack.total_memory is %v)", n, units.Size(b.total))
	}
	w := &wanting{claim: c, share: s, n: n, done: make(chan error, 1)}
	b.queue = append(b.queue, w)
	c.waits++
	b.changed()
	b.mu.Unlock()
	if p.Note != nil {
		defer p.Note()()
	}
	patience := time.NewTimer(p.For)
	defer patience.Stop()
	why := "others had it"
	select {
	case err := <-w.done:
		return err
	case <-p.Done:
		why = "whoever waited for it has gone"
	case <-patience.C:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case err := <-w.done: // meanwhile
		return err
	default:
	}
	b.leave(w)
	b.changed()
	return errorf(SpoolFull, what, "decoding it takes %d bytes of memory, and %s (unpack.total_memory is %v)", n, why, units.Size(b.total))
}

// give gives n bytes back.
func (c *claim) give(n int64) {
	if n == 0 {
		return
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.held -= n
	c.b.used -= n
	endless := min(n, c.endless)
	c.endless -= endless
	c.b.endless -= endless
	if c.held == 0 {
		delete(c.b.claims, c)
	}
	c.b.changed()
}

// grant takes n bytes for c if there are as many, and says whether it did. The lock is held.
func (b *Budget) grant(c *claim, s Share, n int64) bool {
	if n > b.left(s) {
		return false
	}
	b.used += n
	if s == Endless {
		b.endless += n
		c.endless += n
	}
	b.most = max(b.most, b.used)
	c.held += n
	if c.held > 0 {
		b.claims[c] = struct{}{}
	}
	return true
}

// leave takes w out of the queue. The lock is held.
func (b *Budget) leave(w *wanting) {
	w.waits--
	b.queue = slices.DeleteFunc(b.queue, func(o *wanting) bool { return o == w })
}

// changed gives those that wait what there is, in the order in which they came, and refuses one where they all wait for each other.
// The lock is held.
func (b *Budget) changed() {
	for _, w := range slices.Clone(b.queue) {
		if b.grant(w.claim, w.share, w.n) {
			b.leave(w)
			w.done <- nil
		}
	}
	for c := range b.claims {
		if c.waits == 0 {
			return // it will give back what it has
		}
	}
	for _, w := range slices.Backward(b.queue) {
		if w.held > 0 {
			b.leave(w)
			w.done <- errorf(SpoolFull, "", "decoding it takes %d bytes of memory more, and all who have some wait for more (unpack.total_memory is %v)", w.n, units.Size(b.total))
			return
		}
	}
}

type togetherKey struct{}

// Together returns a context under which all walks and decoders count as one who takes memory: they belong to one object, and those
// inside hold up those outside.
func Together(ctx context.Context) context.Context {
	return context.WithValue(ctx, togetherKey{}, &claim{b: decoders})
}

// claimOf returns what ctx's object has of the memory.
func claimOf(ctx context.Context) *claim {
	if c, ok := ctx.Value(togetherKey{}).(*claim); ok {
		return c
	}
	return &claim{b: decoders}
}
