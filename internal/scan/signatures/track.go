package signatures

import (
	"slices"
	"sort"
)

// Bounds of what is remembered of the parts that were found in one text.
const (
	maxSpans    = 4096    // places where one part may begin, as intervals
	maxAllSpans = 1 << 16 // of all parts
)

// span is an interval of places where a part may begin.
type span struct{ first, last int64 }

// track is where a part may begin, because the part before it was found.
type track struct {
	open  bool  // from everywhere from on
	from  int64 // when open
	spans []span
}

// tracks are those of one text, by the slot of the part that is waited for.
type tracks struct {
	armed  []uint64 // a bit for every slot that has a track
	bySlot map[uint32]*track
	spans  int
}

func newTracks(slots uint32) tracks {
	return tracks{armed: make([]uint64, slots/64+1), bySlot: map[uint32]*track{}}
}

// reset forgets everything.
func (t *tracks) reset() {
	for slot := range t.bySlot {
		t.armed[slot>>6] = 0
	}
	clear(t.bySlot)
	t.spans = 0
}

// get returns the track of a slot, or nil.
func (t *tracks) get(slot uint32) *track {
	if t.armed[slot>>6]>>(slot&63)&1 == 0 {
		return nil
	}
	return t.bySlot[slot]
}

// arm makes it known that the part with the slot may begin gapMin to gapMax bytes behind end. Places before passed are not
// asked about any more. It returns false when there is no room.
func (t *tracks) arm(slot uint32, end, gapMin, gapMax, passed int64) bool {
	k := t.get(slot)
	if k == nil {
		k = &track{}
		t.armed[slot>>6] |= 1 << (slot & 63)
		t.bySlot[slot] = k
		t.spans++ // counts against the room too
	}
	if gapMax == unlimited {
		if !k.open || end+gapMin < k.from {
			k.open, k.from = true, end+gapMin
		}
		return t.spans <= maxAllSpans
	}
	before := len(k.spans)
	k.insert(span{end + gapMin, end + gapMax}, passed)
	t.spans += len(k.spans) - before
	return len(k.spans) <= maxSpans && t.spans <= maxAllSpans
}

// insert adds s, and merges what touches.
func (k *track) insert(s span, passed int64) {
	old := sort.Search(len(k.spans), func(i int) bool { return k.spans[i].last >= passed })
	if old > 0 && old >= len(k.spans)/2 {
		k.spans = slices.Delete(k.spans, 0, old)
	}
	// They lie apart, in their order. Those that s touches become part of it.
	lo := sort.Search(len(k.spans), func(i int) bool { return k.spans[i].last >= s.first-1 })
	hi := lo
	for hi < len(k.spans) && k.spans[hi].first <= s.last+1 {
		s.first, s.last = min(s.first, k.spans[hi].first), max(s.last, k.spans[hi].last)
		hi++
	}
	k.spans = slices.Replace(k.spans, lo, hi, s)
}

// allows says whether the part may begin at the place at.
func (k *track) allows(at int64) bool {
	if k.open {
		return at >= k.from
	}
	i := sort.Search(len(k.spans), func(i int) bool { return k.spans[i].last >= at })
	return i < len(k.spans) && k.spans[i].first <= at
}
