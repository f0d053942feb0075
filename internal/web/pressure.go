package web

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/spool"
)

// Objects wait for room on disk, and what holds it is given back when it has gone to where it goes. A client that takes 16 KiB in two
// minutes, or a site that sends no faster, would hold theirs for days. That does no harm, until others wait for room.

const (
	// pressedAfter is how long others must have waited, and how long something must have gone on, before something is given up.
	pressedAfter = 30 * time.Second
	// worthwhile is the least that something must hold to be looked at.
	worthwhile = 1 << 20
)

// errHoldsUp is why something was given up that went on too slowly.
var errHoldsUp = errors.New("others wait for room on disk, and this client holds more than its share of it: the slowest of what it has under way is given up")

// pressure gives up what goes on slowly where others wait for room. It is safe for use by many goroutines.
type pressure struct {
	after time.Duration
	total int64 // the room that there is

	mu    sync.Mutex
	holds map[*holding]struct{}
	waits map[*awaiting]struct{}
	watch *time.Timer // nil: nobody waits
}

func newPressure(total int64) *pressure {
	return &pressure{after: pressedAfter, total: total, holds: map[*holding]struct{}{}, waits: map[*awaiting]struct{}{}}
}

// awaiting is an object of a client that waits for room.
type awaiting struct {
	client netip.Addr
	since  time.Time
}

// holding is an object of a client that holds room, and goes somewhere, or comes from there.
type holding struct {
	of     *pressure
	client netip.Addr
	size   func() int64 // of the room that it holds
	since  time.Time
	moved  atomic.Int64 // bytes that have gone or come

	mu    sync.Mutex
	cut   func(error)
	ended bool
}

// wait notes that an object of a client waits for room, until end is called.
func (p *pressure) wait(client netip.Addr) (end func()) {
	w := &awaiting{counted(client), time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits[w] = struct{}{}
	if p.watch == nil {
		p.watch = time.AfterFunc(p.after, p.relieve)
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waits, w)
	}
}

// hold notes that an object of a client holds room, until its end is called. cut ends what goes on with it.
func (p *pressure) hold(client netip.Addr, size func() int64, cut func(error)) *holding {
	h := &holding{of: p, client: counted(client), size: size, since: time.Now(), cut: cut}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds[h] = struct{}{}
	return h
}

// end ends what hold began. After that nothing is cut any more. h may be nil.
func (h *holding) end() {
	if h == nil {
		return
	}
	h.of.mu.Lock()
	delete(h.of.holds, h)
	h.of.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
}

// giveUp cuts h, unless it has ended.
func (h *holding) giveUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.cut(errHoldsUp)
	}
}

// relieve gives up one object where others have waited for long enough, and looks again after a while as long as anybody waits.
func (p *pressure) relieve() {
	p.mu.Lock()
	slowest := p.choose()
	if p.watch = nil; len(p.waits) > 0 {
		p.watch = time.AfterFunc(p.after/3, p.relieve)
	}
	if slowest != nil {
		delete(p.holds, slowest)
	}
	p.mu.Unlock()
	if slowest != nil {
		slowest.giveUp()
	}
}

// choose returns the slowest object of the client that holds the most room, where that is more than its share, and others have waited
// long for room; else nil. The lock is held.
func (p *pressure) choose() *holding {
	clients, held := map[netip.Addr]struct{}{}, map[netip.Addr]int64{}
	for w := range p.waits {
		clients[w.client] = struct{}{}
	}
	var most netip.Addr
	for h := range p.holds {
		if n := h.size(); n >= worthwhile {
			clients[h.client] = struct{}{}
			if held[h.client] += n; held[h.client] > held[most] {
				most = h.client
			}
		}
	}
	if held[most] == 0 || held[most] <= p.total/int64(len(clients)) {
		return nil
	}
	for w := range p.waits {
		if w.client != most && time.Since(w.since) >= p.after {
			return p.slowest(most)
		}
	}
	return nil
}

// slowest returns the object of a client that has gone on for long, and the least of which has moved in that time. The lock is held.
func (p *pressure) slowest(client netip.Addr) (slowest *holding) {
	least := 0.0
	for h := range p.holds {
		age := time.Since(h.since)
		if h.client != client || age < p.after || h.size() < worthwhile {
			continue
		}
		if rate := float64(h.moved.Load()) / age.Seconds(); slowest == nil || rate < least {
			slowest, least = h, rate
		}
	}
	return slowest
}

// noted returns how an object of a client waits for room, which is until done is closed; dog is paused meanwhile.
func (x *exchange) noted(done <-chan struct{}, dog *watchdog) *spool.Waiting {
	return &spool.Waiting{Done: done, Note: func() func() {
		resume, end := dog.pause(), x.s.pressure.wait(x.facts.Client)
		return func() { end(); resume() }
	}}
}

// growing notes that an object is being taken in, of which in tells how large it has become.
func (c *call) growing(in *gate.Intake) *holding {
	var part atomic.Pointer[gate.Partial]
	told := in.Growing
	in.Growing = func(p gate.Partial) {
		part.Store(&p)
		if told != nil {
			told(p)
		}
	}
	size := func() int64 {
		if p := part.Load(); p != nil {
			return (*p).Size()
		}
		return 0
	}
	return c.s.pressure.hold(c.facts.Client, size, c.cancel)
}

// taken returns a reader of a body that goes to the client, and what ends the watch over how it does so.
func (c *call) taken(b *spool.Blob) (r spool.Reader, end func()) {
	if _, inMemory := b.Bytes(); inMemory {
		return b.NewReader(), func() {}
	}
	rc := http.NewResponseController(c.w)
	h := c.s.pressure.hold(c.facts.Client, b.Size, func(why error) {
		c.s.opt.Log.Warn("a download was ended", "client", c.c.addr, "url", c.facts.URL, "reason", why)
		_ = rc.SetWriteDeadline(longAgo) // see pacedWriter
	})
	return &movingReader{b.NewReader(), h}, h.end
}

// movingReader counts what is read of an object that holds room.
type movingReader struct {
	spool.Reader
	h *holding
}

func (r *movingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.h.moved.Add(int64(n))
	return n, err
}

// comingReader counts what comes of an object that will hold room.
type comingReader struct {
	io.Reader
	h *holding
}

func (r comingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.h.moved.Add(int64(n))
	return n, err
}
