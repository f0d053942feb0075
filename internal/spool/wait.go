package spool

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Waiting says how a Writer waits for room on disk. The zero value waits as long as the pool's settings say.
type Waiting struct {
	Done <-chan struct{}     // nobody waits for the object any more when it is closed; nil: somebody does
	Note func() (end func()) // called when the waiting begins; end is called when it ends. nil: nobody minds
}

// How far ahead of what it holds a growing object is thought of before a further one may begin. Of many that begin at the same
// time, so many are to begin as can grow side by side; the others would hold a little each, and could only be finished one
// after the other. An announced length counts for no more than this, because anybody can announce anything.
const (
	aheadAnnounced = 64 << 20
	aheadUnknown   = 8 << 20
)

// room shares the disk out among Writers that wait.
//
// Those that wait until others give room back must not all wait for each other. A request is therefore granted only where, after
// that, all growing objects could still be finished one after the other, each to its full claim, with the room that those before
// it give back (the banker's algorithm, for one resource). What is sealed is given back some day without asking for more.
// Writers that do not wait, an archive's members for instance, have a share that others leave to them; they fail where even that
// is full, and so hold nobody up.
type room struct {
	mu      sync.Mutex
	growing map[*Writer]struct{}
	freed   chan struct{} // closed when something may have changed; nil: nobody waits
}

// Wait has w wait when there is no room on disk, instead of failing at once. Claim is how many bytes it will need at most; 0 or
// less: as many as its limit. Whoever uses it must hold no other object that waits for this one.
func (w *Writer) Wait(claim int64, h Waiting) {
	w.ahead = aheadAnnounced
	if claim <= 0 {
		w.ahead = aheadUnknown
	}
	if claim <= 0 || claim > w.limit {
		claim = w.limit
	}
	w.waits, w.claim = &h, claim
}

// Hurry has w, which has nothing on disk yet, not wait after all.
func (w *Writer) Hurry() { w.waits, w.claim = nil, 0 }

// shared is how much of the disk Writers that wait have.
func (p *Pool) shared() int64 {
	total, most := int64(p.cfg.TotalDisk), int64(p.cfg.MaxObject)
	return total - min(total/8, total-most)
}

// await takes step bytes of the disk for w, as soon as that is safe, and says ErrFull where the time is up.
func (w *Writer) await(step int64) error {
	p := w.pool
	changed, ok := p.grant(w, step)
	for !ok && p.reclaim() {
		changed, ok = p.grant(w, step)
	}
	if ok {
		return nil
	}
	if w.waits.Note != nil {
		defer w.waits.Note()()
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	patience := time.NewTimer(p.cfg.Wait.Std())
	defer patience.Stop()
	for {
		select {
		case <-changed:
		case <-w.waits.Done:
			return ErrFull
		case <-patience.C:
			return ErrFull
		}
		for changed, ok = p.grant(w, step); !ok && p.reclaim(); {
			changed, ok = p.grant(w, step)
		}
		if ok {
			return nil
		}
	}
}

// grant takes step bytes for w if that is safe, and says whether it did. If not, changed is closed when it may be different.
func (p *Pool) grant(w *Writer, step int64) (changed <-chan struct{}, ok bool) {
	r := &p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.growing[w] = struct{}{}
	w.claim = max(w.claim, w.onDisk+step) // where more comes than was said
	if p.disk.Load()+step <= p.shared() && (w.onDisk > 0 || p.admits(w)) && p.safe(w, step) && take(&p.disk, step, p.cfg.TotalDisk) {
		w.onDisk += step
		return nil, true
	}
	if r.freed == nil {
		r.freed = make(chan struct{})
	}
	return r.freed, false
}

// admits says whether w, which has nothing yet, may begin beside those that grow. The lock is held.
func (p *Pool) admits(w *Writer) bool {
	soon := min(w.claim, w.ahead)
	for g := range p.room.growing {
		if g.onDisk > 0 {
			soon += min(g.claim, g.onDisk+g.ahead)
		}
	}
	return soon <= p.shared() || soon == min(w.claim, w.ahead)
}

// safe says whether all growing objects could be finished one after the other when w has step bytes more. The lock is held.
func (p *Pool) safe(w *Writer, step int64) bool {
	type one struct{ held, need int64 }
	left := p.shared() - step
	most := int64(0)
	all := make([]one, 0, len(p.room.growing))
	for g := range p.room.growing {
		o := one{g.onDisk, g.claim - g.onDisk}
		left -= g.onDisk
		if g == w {
			o.held, o.need = o.held+step, o.need-step
		}
		most = max(most, o.need)
		all = append(all, o)
	}
	if most <= left {
		return true
	}
	slices.SortFunc(all, func(a, b one) int { return cmp.Compare(a.need, b.need) })
	for _, o := range all {
		if o.need > left {
			return false
		}
		left += o.held
	}
	return true
}

// settled notes that w grows no more.
func (w *Writer) settled() {
	if w.waits == nil {
		return
	}
	r := &w.pool.room
	r.mu.Lock()
	delete(r.growing, w)
	r.mu.Unlock()
	w.pool.changed()
}

// changed wakes those that wait for room.
func (p *Pool) changed() {
	r := &p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.freed != nil {
		close(r.freed)
		r.freed = nil
	}
}

// giveBack returns n bytes of the disk.
func (p *Pool) giveBack(n int64) {
	if n == 0 {
		return
	}
	p.disk.Add(-n)
	p.changed()
}
