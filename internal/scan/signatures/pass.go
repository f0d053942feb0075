package signatures

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sort"
)

// windowSize is how much of a text that is not in memory is looked at a time, besides the surroundings of what is looked at.
const windowSize = 256 << 10

// The work that may be spent on a text of n bytes, beyond running through it, is baseWork + n*workPerByte.
const (
	baseWork    = 128 << 10
	workPerByte = 12
)

// errWork says that a text needs more work than it is worth.
var errWork = errors.New("so much of it resembles signatures that comparing was given up")

// pass is one run through one text. It is used again for others.
type pass struct {
	db      *database
	targets uint16
	layout  layout
	tracks  tracks
	work    int64
	found   *bodySignature

	text []byte // the window
	base int64  // its place in the text; a multiple of 4
	// What is to be compared at one place: the pins that count from the start, which are in the database's order, and the
	// others, both by their places.
	starts []pin
	pins   []pinned
	// matched is set when a part matches in a block; nothingNew says that the last block repeated itself, and none did.
	matched, nothingNew bool
	wantedFrom          int64 // where a part that was passed over in the last block is wanted

	// The later parts are looked for up to this place, because one before them was found.
	waitsUntil int64

	hits       hits
	narrowed   hits
	finds      finds
	atPlace    []survivor
	laterFinds finds
	spots      [4]spots
	window     []byte // room for a window, made when it is first needed
}

// pinned is a pin's place in this text.
type pinned struct {
	at  int64
	pin *pin
}

func newPass(db *database) *pass {
	return &pass{db: db, tracks: newTracks(db.slots)}
}

// begin makes p ready for a text of size bytes, in which the bodies of the given targets are looked for.
func (p *pass) begin(targets uint16, l layout, size int64) {
	p.targets, p.layout, p.found = targets, l, nil
	p.work = baseWork + size*workPerByte
	p.tracks.reset()
	p.matched, p.nothingNew, p.waitsUntil = false, false, -1
	p.starts = p.db.pins[:p.db.fixed]
	p.starts = p.starts[:sort.Search(len(p.starts), func(i int) bool { return p.starts[i].where.value >= size })]
	p.pins = p.pins[:0]
	for i := p.db.fixed; i < len(p.db.pins); i++ {
		pin := &p.db.pins[i]
		if pin.targets&targets == 0 {
			continue
		}
		if at, _, ok := l.places(pin.where); ok && at >= 0 && at < size {
			p.pins = append(p.pins, pinned{at, pin})
		}
	}
	byPlace := func(a, b pinned) int { return cmp.Compare(a.at, b.at) }
	if !slices.IsSortedFunc(p.pins, byPlace) { // those that count from the end, mostly the only ones, are in order
		slices.SortStableFunc(p.pins, byPlace)
	}
}

// nextPin takes the next pin that lies before end.
func (p *pass) nextPin(end int64) (next pinned, ok bool) {
	for len(p.starts) > 0 && p.starts[0].targets&p.targets == 0 {
		p.starts = p.starts[1:]
	}
	if len(p.starts) > 0 {
		next = pinned{p.starts[0].where.value, &p.starts[0]}
	}
	if len(p.pins) > 0 && (next.pin == nil || p.pins[0].at < next.at) {
		if next = p.pins[0]; next.at < end {
			p.pins = p.pins[1:]
		}
	} else if next.pin != nil && next.at < end {
		p.starts = p.starts[1:]
	}
	return next, next.pin != nil && next.at < end
}

// all runs through a text that is in memory.
func (p *pass) all(ctx context.Context, text []byte) error {
	p.text, p.base = text, 0
	defer func() { p.text = nil }()
	return p.scan(ctx, 0, len(text))
}

// stream runs through what r gives until its end. It looks at ctx once a window.
func (p *pass) stream(ctx context.Context, r io.Reader) error {
	if p.window == nil {
		p.window = make([]byte, windowSize+2*p.db.margin)
	}
	p.base = 0
	have, from := 0, 0
	for p.found == nil {
		n, err := io.ReadFull(r, p.window[have:])
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return err
		}
		have += n
		to := have
		if !ended {
			to = have - p.db.margin
		}
		p.text = p.window[:have]
		if err := p.scan(ctx, from, to); err != nil || ended {
			return err
		}
		keep := to - p.db.margin
		copy(p.window, p.window[keep:have])
		p.base += int64(keep)
		have -= keep
		from = to - keep
	}
	return nil
}

// scan looks at the pins and grams from <= i < to of the window, until something is found.
func (p *pass) scan(ctx context.Context, from, to int) error {
	for n := 0; from < to && p.found == nil; n++ {
		if n%64 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		end := min(to, from+blockSize)
		for at, ok := p.nextPin(p.base + int64(end)); ok && p.found == nil; at, ok = p.nextPin(p.base + int64(end)) {
			if err := p.atPin(at); err != nil {
				return err
			}
			p.nothingNew = false // what was not looked for in the last block may be looked for now
		}
		if p.found != nil {
			return nil
		}
		repeats := p.repeats(from, end)
		if !repeats || !p.nothingNew || p.base+int64(end+p.db.margin) >= p.wantedFrom {
			p.matched, p.wantedFrom = false, math.MaxInt64
			if err := p.block(from, end); err != nil {
				return err
			}
			p.nothingNew = repeats && !p.matched && end-from >= period
		}
		from = end
	}
	return nil
}

// period is a multiple of the periods that are common in files: runs of one byte, of UTF-16, of pixels. It divides blockSize.
const period = 48

// repeats says whether a block of the window, and what the parts in it could reach, repeats itself in period. Where it does,
// and so did the block before, in which no part matched, none matches in this one either: every place in it looks like one
// of that block. So long runs cost nothing, whatever the signatures are.
func (p *pass) repeats(from, to int) bool {
	from, to = from-p.db.margin, to+p.db.margin
	return from >= 0 && to <= len(p.text) && bytes.Equal(p.text[from:to-period], p.text[from+period:to])
}

// block looks at the grams from <= i < to of the window.
func (p *pass) block(from, to int) error {
	p.find(&p.db.first, from, to, &p.finds)
	waiting := p.base+int64(from) <= p.waitsUntil
	if waiting {
		p.find(&p.db.later, from, to, &p.laterFinds)
	}
	// In the order of the text, because a part is only looked for once the one before it was found.
	left := p.finds
	var later finds
	if waiting {
		later = p.laterFinds
	}
	for p.found == nil {
		if p.work < 0 {
			return errWork
		}
		next := left.earliest()
		if other := later.earliest(); next == nil || other != nil && (*other)[0].at < (*next)[0].at {
			next = other
		}
		if next == nil {
			return nil
		}
		s := (*next)[0]
		*next = (*next)[1:]
		if err := p.candidate(from+int(s.at), s.entry); err != nil {
			return err
		}
		if !waiting && p.waitsUntil >= p.base+int64(from) {
			// A first part was found, so that later ones count from here on. They lie behind it.
			waiting = true
			p.find(&p.db.later, from, to, &p.laterFinds)
			later = p.laterFinds
			later.skip(s.at)
		}
	}
	return nil
}

// candidate looks whether the part of e is where its gram was found, at i, and its anchor matches unless it is masked.
func (p *pass) candidate(i int, e *entry) error {
	d := &p.db.parts[e.part]
	if p.work -= costWanted; d.targets&p.targets == 0 || !p.wanted(e.part, d, i) {
		return nil
	}
	if p.work -= costPart; p.work < 0 {
		return errWork
	}
	anchor := i - int(e.off)
	if e.masked && !d.elems[d.anchor].matches(p.text[anchor:]) {
		return nil
	}
	begin, end := [1]int{anchor}, [1]int{anchor + int(e.size)}
	begins, ends := begin[:], end[:]
	if len(d.elems) > 1 {
		begins = p.walk(d.elems[:d.anchor], begins, -1)
		ends = p.walk(d.elems[d.anchor+1:], ends, 1)
	}
	if len(begins) == 0 || len(ends) == 0 {
		return nil
	}
	p.matched = true
	return p.partFound(e.part, d, begins, ends)
}

// walk moves places over elements, backwards from the last or forwards from the first, and counts the work. What it returns
// is overwritten by the next walk in the same direction.
func (p *pass) walk(elems []element, places []int, direction int) []int {
	k := 0
	if direction < 0 {
		k = 2
	}
	in, out := &p.spots[k], &p.spots[k+1]
	in.n = copy(in.at[:], places)
	for i := range elems {
		out.n = 0
		e := &elems[i]
		if direction < 0 {
			e = &elems[len(elems)-1-i]
			e.backward(p.text, in, out)
		} else {
			e.forward(p.text, in, out)
		}
		p.work -= int64(in.n * (4 + len(e.variants) + len(e.value)/8))
		in, out = out, in
		if in.n == 0 {
			break
		}
	}
	return in.at[:in.n]
}

// wanted says whether it is of any use to find the part number n, whose gram is at i, there.
func (p *pass) wanted(n uint32, d *part, i int) bool {
	if n > p.db.sigs[d.sig].first {
		k := p.tracks.get(d.slot)
		if k == nil {
			return false // the one before it was not found
		}
		if k.open && p.base+int64(i) < k.from {
			p.wantedFrom = min(p.wantedFrom, k.from)
			return false
		}
	} else if sig := &p.db.sigs[d.sig]; sig.where.kind != anywhere {
		first, last, ok := p.layout.places(sig.where)
		switch {
		case !ok || p.base+int64(i-p.db.margin) > last:
			return false
		case p.base+int64(i) < first:
			p.wantedFrom = min(p.wantedFrom, first)
			return false
		}
	}
	if d.last || d.gapMax != unlimited {
		return true
	}
	// The next one may begin anywhere behind an earlier end already.
	next := p.tracks.get(d.slot + 1)
	return next == nil || !next.open || next.from-d.gapMin > p.base+int64(i)
}

// partFound takes note of a part that was found, from each of begins to each of ends.
func (p *pass) partFound(n uint32, d *part, begins, ends []int) error {
	sig := &p.db.sigs[d.sig]
	var before *track
	first, last := int64(0), int64(0)
	if n > sig.first {
		if before = p.tracks.get(d.slot); before == nil {
			return nil
		}
	} else if !d.pinned {
		var ok bool
		if first, last, ok = p.layout.places(sig.where); !ok {
			return nil
		}
	}
	p.work -= int64(len(begins) * len(ends))
	for _, begin := range begins {
		at := p.base + int64(begin)
		switch {
		case before != nil && !before.allows(at), before == nil && !d.pinned && (at < first || at > last):
			continue
		}
		for _, end := range ends {
			if d.edges != nil && !d.edges.holds(p.text, begin, end) {
				continue
			}
			if d.last {
				p.found = sig
				return nil
			}
			p.work -= costArm
			p.waitFor(d, p.base+int64(end))
			if !p.tracks.arm(d.slot+1, p.base+int64(end), d.gapMin, d.gapMax, p.base+int64(begin-p.db.margin)) {
				return errWork
			}
		}
	}
	return nil
}

// waitFor has the later parts looked for as far as the gram of the one behind d, which ends at end, can be.
func (p *pass) waitFor(d *part, end int64) {
	until := int64(math.MaxInt64)
	if d.gapMax != unlimited {
		until = end + d.gapMax + int64(p.db.margin)
	}
	p.waitsUntil = max(p.waitsUntil, until)
}

// atPin compares the bodies that begin at a pin's place, which is in the window.
func (p *pass) atPin(at pinned) error {
	from := int(at.at - p.base)
	p.atPlace, p.work = at.pin.group.compare(at.pin.entries, p.text, from, 0, p.atPlace[:0], p.work)
	for _, s := range p.atPlace {
		if p.work -= costPart; p.work < 0 {
			return errWork
		}
		d := &p.db.parts[s.entry.part]
		if d.targets&p.targets == 0 {
			continue
		}
		begins := [1]int{from}
		ends := p.walk(d.elems, begins[:], 1)
		if err := p.partFound(s.entry.part, d, begins[:], ends); err != nil || p.found != nil {
			return err
		}
	}
	return nil
}
