package signatures

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// hashMultiplier spreads what it is multiplied with over the upper bits (Fibonacci hashing).
const hashMultiplier = 0x9E3779B97F4A7C15

// tier is an index of grams of n bytes each, which are looked for at every step-th byte of the text.
type tier struct {
	n    int
	mask uint64 // what of a word is the gram
	// The bitmap has a bit for every hash of a gram: what is not there is in no part.
	bitmap   []uint64
	bitShift uint
	// The slots are a hash table with linear probing, at most half full.
	slots     []slot
	slotShift uint
	groups    []group
	entries   []entry
}

// slot tells where the entries of a gram are: their number, the first of them, and bits of the gram's hash. Zero is empty.
// A large group has the number 0 and the place in groups instead.
type slot uint64

// manyCount is from how many entries on a group is large.
const manyCount = 16

// From the lowest bit: the number in 4 bits, the first in 32, 27 of the hash, and one that is always set.
func newSlot(hash uint64, first, count uint32) slot {
	return slot(1<<63 | hash<<17>>37<<36 | uint64(first)<<4 | uint64(count))
}

func (s slot) is(hash uint64) bool { return uint64(s)<<1>>37 == hash<<17>>37 }
func (s slot) first() uint32       { return uint32(s >> 4) }
func (s slot) count() uint32       { return uint32(s & 15) }

// group is many parts that share a gram.
type group struct {
	first  uint32 // in entries
	count  uint32
	sorted uint32 // so many of them are sorted by word, which is whole and lies at delta
	delta  int32
}

// entry is one place of a gram in one part.
type entry struct {
	// word and mask are 8 more bytes of the part, which lie delta bytes from the gram; they are compared before the part
	// itself is looked at.
	word, mask uint64
	delta      int16
	off        uint16 // of the gram in the part's anchor
	size       uint16 // of the anchor
	masked     bool   // the anchor has a mask
	run        uint32 // place of the anchor in database.runs
	part       uint32
}

// keyed is an entry with its gram, while an index is built.
type keyed struct {
	gram uint64
	entry
}

// newTier makes an index of all, which it takes over. n is 2 to 6.
func newTier(n int, all []keyed) *tier {
	slices.SortFunc(all, compareKeyed)
	t := &tier{n: n, mask: 1<<uint(8*n) - 1, entries: make([]entry, len(all))}
	t.bitShift = 64 - logAtLeast(40*len(all), 12, 26)
	t.bitmap = make([]uint64, 1<<(64-t.bitShift)/64)
	t.slotShift = 64 - logAtLeast(2*len(all), 4, 30)
	t.slots = make([]slot, 1<<(64-t.slotShift))
	for first := 0; first < len(all); {
		g := group{first: uint32(first)}
		gram := all[first].gram
		h := gram * hashMultiplier
		for ; first < len(all) && all[first].gram == gram; first++ {
			k := &all[first]
			t.entries[first] = k.entry
			g.add(k)
		}
		bit := h >> t.bitShift
		t.bitmap[bit>>6] |= 1 << (bit & 63)
		s := newSlot(h, g.first, g.count)
		if g.count >= manyCount {
			s = newSlot(h, uint32(len(t.groups)), 0)
			t.groups = append(t.groups, g)
		}
		at := h >> t.slotShift
		for t.slots[at] != 0 {
			at = (at + 1) & uint64(len(t.slots)-1)
		}
		t.slots[at] = s
	}
	return t
}

// logAtLeast returns the logarithm of the power of two that is at least n, between lowest and highest.
func logAtLeast(n int, lowest, highest uint) uint {
	for lowest < highest && 1<<lowest < n {
		lowest++
	}
	return lowest
}

// compareKeyed is the order of the entries of an index.
func compareKeyed(a, b keyed) int {
	if c := cmp.Compare(a.gram, b.gram); c != 0 {
		return c
	}
	if c := cmp.Compare(a.rank(), b.rank()); c != 0 {
		return c
	}
	if c := cmp.Compare(a.word, b.word); c != 0 {
		return c
	}
	return cmp.Compare(a.part, b.part)
}

// add counts another entry of the group; they come in their order.
func (g *group) add(k *keyed) {
	if g.count == 0 {
		g.delta = int32(k.delta)
	}
	if g.count++; k.mask == ^uint64(0) && int32(k.delta) == g.delta && g.sorted == g.count-1 {
		g.sorted++
	}
}

// rank puts entries whose word is whole first, those of one delta together.
func (k *keyed) rank() int {
	if k.mask == ^uint64(0) {
		return int(k.delta)
	}
	return 1 << 20
}

// blockSize is how many places of a text are filtered at a time.
const blockSize = 85 * period

// hits is the places of one block, counted from its start, that the filter let through.
type hits [blockSize + 8]uint16

// filter writes to out the places from <= i < to of text, every fourth, whose gram could be in the index, and returns their
// number. from is a multiple of 4.
func (t *tier) filter(text []byte, from, to int, out *hits) int {
	bitmap, shift, mask := t.bitmap, t.bitShift&63, t.mask
	to = min(to, len(text)-t.n+1)
	n, i := 0, from
	for end := min(to, len(text)-7); i < end; i += 4 {
		h := binary.LittleEndian.Uint64(text[i:]) & mask * hashMultiplier >> shift
		if bitmap[h>>6]&(1<<(h&63)) != 0 {
			out[n] = uint16(i - from)
			n++
		}
	}
	for ; i < to; i += 4 { // the last few bytes of the text
		if t.knows(wordAt(text, i)) != 0 {
			out[n] = uint16(i - from)
			n++
		}
	}
	return n
}

// knows is 1 where there may be a gram that a text beginning with the bytes of w begins with, else 0.
func (t *tier) knows(w uint64) uint64 {
	h := w & t.mask * hashMultiplier >> (t.bitShift & 63)
	return t.bitmap[h>>6] >> (h & 63) & 1
}

// narrow writes to out those of the n places of in whose gram could be in the index, and returns their number.
func (t *tier) narrow(text []byte, from int, in *hits, n int, out *hits) int {
	kept := 0
	// Whether a place is kept cannot be foreseen: a branch would cost more than the store.
	for _, at := range in[:n] {
		i := from + int(at)
		if i+8 > len(text) { // the last few bytes of the text
			if i+t.n <= len(text) && t.knows(wordAt(text, i)) != 0 {
				out[kept] = at
				kept++
			}
			continue
		}
		out[kept] = at
		kept += int(t.knows(binary.LittleEndian.Uint64(text[i:])))
	}
	return kept
}

// wordAt returns the 8 bytes of text at i, with zeros beyond its end.
func wordAt(text []byte, i int) uint64 {
	if i+8 <= len(text) {
		return binary.LittleEndian.Uint64(text[i:])
	}
	var b [8]byte
	copy(b[:], text[i:])
	return binary.LittleEndian.Uint64(b[:])
}

// survivor is an entry whose gram and word were found at a place of a text.
type survivor struct {
	at    int32 // of the gram, counted from the start of the block
	entry *entry
}

// maxSurvivors bounds those of one block. Where there are more, the text is taken for one that needs too much work.
const maxSurvivors = 1 << 16

// Costs in units of work, of about a nanosecond.
const (
	costHit    = 6  // looking a hit up
	costGroup  = 4  // finding the start in a sorted group
	costEntry  = 1  // comparing an entry's word
	costRun    = 8  // comparing an anchor
	costPart   = 24 // looking at a part
	costWanted = 3  // seeing whether that is of any use
	costArm    = 16 // taking note of one
)

// lookUp appends to out the survivors of the n hits of the block of text that begins at from, in the order of their places,
// and returns the work that is left. It stops when there is none.
func (t *tier) lookUp(text []byte, from int, h *hits, n int, out []survivor, work int64) ([]survivor, int64) {
	// The look-ups do not depend on each other, so that the processor waits for many at once.
	var found [64]slot
	for done := 0; done < n; done += len(found) {
		batch := h[done:min(n, done+len(found))]
		for i, at := range batch {
			hash := wordAt(text, from+int(at)) & t.mask * hashMultiplier
			found[i] = t.slots[hash>>t.slotShift]
		}
		for i, at := range batch {
			s := found[i]
			if s == 0 {
				continue
			}
			hash := wordAt(text, from+int(at)) & t.mask * hashMultiplier
			if !s.is(hash) {
				if s = t.probe(hash); s == 0 {
					continue
				}
			}
			if s.count() == 0 {
				g := &t.groups[s.first()]
				out, work = g.compare(t.entries[g.first:g.first+g.count], text, from, int(at), out, work)
			} else {
				out = compare(t.entries[s.first():s.first()+s.count()], text, from, int(at), out)
				work -= int64(costEntry * s.count())
			}
			if work < 0 || len(out) > maxSurvivors {
				return out, -1
			}
		}
		work -= int64(costHit * len(batch))
	}
	return out, work
}

// probe returns the slot of the gram with that hash which is not at its first place, or zero.
func (t *tier) probe(hash uint64) slot {
	at := hash >> t.slotShift
	for {
		at = (at + 1) & uint64(len(t.slots)-1)
		if s := t.slots[at]; s == 0 || s.is(hash) {
			return s
		}
	}
}

// compare appends those of entries whose word is right for the gram at from+at.
func compare(entries []entry, text []byte, from, at int, out []survivor) []survivor {
	for j := range entries {
		e := &entries[j]
		i := from + at + int(e.delta)
		if i >= 0 && i+8 <= len(text) {
			if binary.LittleEndian.Uint64(text[i:])&e.mask == e.word {
				out = append(out, survivor{int32(at), e})
			}
		} else if e.atEdge(text, i) {
			out = append(out, survivor{int32(at), e})
		}
	}
	return out
}

// atEdge says whether the entry's word is at i, which lies beyond the text by some of the 8 bytes. What is fixed there is not
// found: a short text would have every signature of its first place looked at otherwise.
func (e *entry) atEdge(text []byte, i int) bool {
	for k := range 8 {
		mask := byte(e.mask >> (8 * k))
		if mask == 0 {
			continue
		}
		if at := i + k; at < 0 || at >= len(text) || text[at]&mask != byte(e.word>>(8*k)) {
			return false
		}
	}
	return true
}

// compare appends those of the group's entries whose word is right for the gram at from+at.
func (g *group) compare(entries []entry, text []byte, from, at int, out []survivor, work int64) ([]survivor, int64) {
	if g.sorted > 8 {
		if i := from + at + int(g.delta); i >= 0 && i+8 <= len(text) {
			word := binary.LittleEndian.Uint64(text[i:])
			whole := entries[:g.sorted]
			j, _ := slices.BinarySearchFunc(whole, word, func(e entry, w uint64) int { return cmp.Compare(e.word, w) })
			for ; j < len(whole) && whole[j].word == word; j++ {
				out = append(out, survivor{int32(at), &whole[j]})
				work -= costEntry
			}
		} // else some byte of each of those words lies outside of the text
		work -= costGroup
		entries = entries[g.sorted:]
	}
	return compare(entries, text, from, at, out), work - int64(costEntry*len(entries))
}
