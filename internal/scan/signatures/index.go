package signatures

import (
	"cmp"
	"slices"
	"sync"
)

// database is what objects are judged by. It does not change.
type database struct {
	names   *names
	digests [algorithms]*digests
	allowed *allowed
	sigs    []bodySignature
	parts   []part
	slots   uint32 // the highest slot of a part
	runs    []byte // the anchors of all parts that are in the index
	// The bodies' first parts are looked for in every text, the later ones where one of them is waited for.
	first, later stage
	pins         []pin // sorted by where they begin
	fixed        int   // so many pins count from the start
	inText       bool  // some body could be in a text that was lower-cased and folded
	fromEnd      bool  // of those, some count from the end
	margin       int   // how far from a gram its part and what is beside it can be; a multiple of 4
	report       *Loaded
	passes       sync.Pool // of *pass
}

// pin is the bodies that begin at one exact place.
type pin struct {
	where   where
	targets uint16
	group   group // without a gram
	entries []entry
}

// index makes everything that is derived from the signatures.
func (db *database) index() {
	db.margin = period
	seen := newSketch(db.parts)
	var first, later anchors
	for i := range db.parts {
		p := &db.parts[i]
		db.margin = max(db.margin, (p.longest()+surroundings+8)&^3)
		if p.pinned {
			continue
		}
		a := chooseAnchor(p, seen)
		a.part = uint32(i)
		if a.part == db.sigs[p.sig].first {
			first[a.tier] = append(first[a.tier], a)
		} else {
			later[a.tier] = append(later[a.tier], a)
		}
	}
	db.first, db.later = db.newStage(&first), db.newStage(&later)
	db.runs = slices.Clip(db.runs)
	db.pinBodies()
	for i := range db.sigs {
		if s := &db.sigs[i]; db.canBeInText(s) {
			db.inText = true
			db.fromEnd = db.fromEnd || s.where.kind == fromEnd
		}
	}
}

// newKeyed returns the entry of the gram of n bytes that stands at off in the anchor m of a part, with the best 8 bytes of m
// to compare first: those behind the gram, those before it, or what there is.
func newKeyed(m *masked, off, n int) keyed {
	k := keyed{gram: wordAt(m.value, off) & (1<<uint(8*n) - 1), entry: entry{off: uint16(off), delta: int16(n)}}
	k.word, k.mask = m.wordAt(off + n)
	if k.mask != ^uint64(0) && off >= 8 {
		if w, mask := m.wordAt(off - 8); mask == ^uint64(0) {
			k.word, k.mask, k.delta = w, mask, -8
		}
	}
	if k.mask == 0 && off > 0 {
		k.delta = -8
		if off < 8 {
			// What is before the run is not compared: its mask is zero.
			k.word, k.mask = m.wordAt(0)
			k.word, k.mask = k.word<<uint(8*(8-off)), k.mask<<uint(8*(8-off))
		} else {
			k.word, k.mask = m.wordAt(off - 8)
		}
	}
	return k
}

// wordAt returns 8 bytes of m and their mask, which is zero beyond its end.
func (m *masked) wordAt(i int) (word, mask uint64) {
	if i >= len(m.value) {
		return 0, 0
	}
	word = wordAt(m.value, i)
	if m.mask != nil {
		return word, wordAt(m.mask, i)
	}
	if n := len(m.value) - i; n < 8 {
		return word, 1<<uint(8*n) - 1
	}
	return word, ^uint64(0)
}

// pinBodies makes the pins.
func (db *database) pinBodies() {
	var which []int
	for i := range db.parts {
		if db.parts[i].pinned {
			which = append(which, i)
		}
	}
	at := func(i int) where { return db.sigs[db.parts[i].sig].where }
	slices.SortFunc(which, func(a, b int) int { return compareWhere(at(a), at(b)) })
	for len(which) > 0 {
		w := at(which[0])
		n := 1
		for n < len(which) && at(which[n]) == w {
			n++
		}
		p := pin{where: w}
		var all []keyed
		for _, i := range which[:n] {
			k := keyed{entry: entry{part: uint32(i)}}
			if e := &db.parts[i].elems[0]; e.kind == isRun {
				k.word, k.mask = e.wordAt(0)
			}
			all = append(all, k)
			p.targets |= db.parts[i].targets
		}
		slices.SortFunc(all, compareKeyed)
		for i := range all {
			p.group.add(&all[i])
			p.entries = append(p.entries, all[i].entry)
		}
		db.pins = append(db.pins, p)
		if w.kind == fromStart {
			db.fixed = len(db.pins)
		}
		which = which[n:]
	}
}

func compareWhere(a, b where) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.value, b.value), cmp.Compare(a.section, b.section))
}

// canBeInText says whether s is about texts and could be in one that was lower-cased and folded.
func (db *database) canBeInText(s *bodySignature) bool {
	if s.targets&(everyTarget|textTargets) == 0 || s.where.kind > fromEnd {
		return false
	}
	for _, p := range db.parts[s.first : s.first+uint32(s.parts)] {
		for _, e := range p.elems {
			if e.kind == isRun && !e.canBeInText() {
				return false
			}
		}
	}
	return true
}

// anchor is what the index knows of a part: the gram at off in the element elem, and as many behind it as the step is long.
type anchor struct {
	part      uint32
	tier      int
	elem, off int
	score     int32
}

// chooseAnchor returns the rarest gram of p: by how rare its bytes are one behind the other, and by how many other bodies
// have it.
func chooseAnchor(p *part, seen *sketch) anchor {
	best := anchor{elem: -1}
	var costs, prefixes []int32
	for i := range p.elems {
		e := &p.elems[i]
		if e.kind != isRun {
			continue
		}
		e.fixedRuns(func(at int, run []byte) {
			prefixes = gramCosts(run, midGram, prefixes)
			for tier, c := range tierKinds {
				costs = gramCosts(run, c.gram, costs)
				length := c.gram + c.step - 1
				for o := 0; o+length <= len(run); o++ {
					score := seen.score(run[o:], costs[o:], c.gram, c.step)
					if tier == sixTier {
						// It is not commoner than what it begins with, which is looked at as well, if not as closely.
						prefix := prefixes[o] - seen.log(run[o:], midGram)*costScale
						score = min(max(score, prefix), prefix+prefixBonus)
					}
					// The bonus makes every long gram that is rare enough better than any shorter one, and than more places.
					if score -= c.handicap; tier == longTier && score > enough {
						score += 1 << 20
					}
					if best.elem < 0 || score > best.score {
						best = anchor{tier: tier, elem: i, off: at + o, score: score}
					}
				}
			}
		})
	}
	return best
}

// prefixBonus is what it counts that looking at three bytes is cheaper than at six. It was found by trying.
const prefixBonus = 3 * costScale

// enough is the score from which on a long gram is taken in any case: one of 2^8 places, when nothing else has it.
const enough = 8 * costScale

// fixedRuns calls yield with every longest run of fixed bytes of m.
func (m *masked) fixedRuns(yield func(at int, run []byte)) {
	begin := 0
	for i := 0; i <= len(m.value); i++ {
		if i < len(m.value) && (m.mask == nil || m.mask[i] == 0xFF) {
			continue
		}
		if i-begin >= shortGram {
			yield(begin, m.value[begin:i])
		}
		begin = i + 1
	}
}
