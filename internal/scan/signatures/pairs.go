package signatures

import "encoding/binary"

// threes is a filter for the grams that are looked for at every byte and have three bytes or more: it has a bit for every hash
// of the first three. It is small enough for the processor's nearest cache.
type threes struct {
	known [1 << (threesLog - 6)]uint64
}

const (
	threesLog  = 17
	threesMask = 1<<(8*midGram) - 1
)

// threesHash returns the place of the lowest three bytes of w.
func threesHash(w uint64) uint64 { return w & threesMask * hashMultiplier >> (64 - threesLog) }

// add makes the filter let through what begins with the first three bytes of gram.
func (f *threes) add(gram uint64) {
	h := threesHash(gram)
	f.known[h>>6] |= 1 << (h & 63)
}

func (f *threes) bit(w uint64) uint64 {
	h := threesHash(w)
	return f.known[h>>6] >> (h & 63) & 1
}

// filter writes to out the places from <= i < to of text where a gram may begin, and returns their number.
func (f *threes) filter(text []byte, from, to int, out *hits) int {
	to = min(to, len(text)-midGram+1)
	n, i := 0, from
	for end := min(to-3, len(text)-7); i < end; i += 4 {
		w := binary.LittleEndian.Uint64(text[i:])
		a, b, c, d := f.bit(w), f.bit(w>>8), f.bit(w>>16), f.bit(w>>24)
		at := uint16(i - from)
		out[n] = at
		n += int(a)
		out[n] = at + 1
		n += int(b)
		out[n] = at + 2
		n += int(c)
		out[n] = at + 3
		n += int(d)
	}
	for ; i < to; i++ { // the last few bytes of the text
		out[n] = uint16(i - from)
		n += int(f.bit(wordAt(text, i)))
	}
	return n
}

// pairs is a filter for the grams of two bytes. For every pair it has eight bits, of which the byte behind the pair selects one, by
// the lower six bits folded into three: when that is set, a gram may begin there.
type pairs struct {
	known [1 << 16]uint8
}

// add makes the filter let through what k stands at.
func (f *pairs) add(k *keyed) {
	next := uint8(0xFF)
	if k.delta == shortGram && k.mask&0xFF == 0xFF {
		next = 1 << ((k.word ^ k.word>>3) & 7)
	}
	f.known[uint16(k.gram)] |= next
}

// filter writes to out the places from <= i < to of text where a gram may begin, and returns their number.
func (f *pairs) filter(text []byte, from, to int, out *hits) int {
	to = min(to, len(text)-1)
	known := &f.known
	n, i := 0, from
	end := min(to-3, len(text)-7)
	for ; i < end; i += 4 {
		w := binary.LittleEndian.Uint64(text[i:])
		x := w ^ w>>3
		a, b := known[uint16(w)]>>(x>>16&7), known[uint16(w>>8)]>>(x>>24&7)
		c, d := known[uint16(w>>16)]>>(x>>32&7), known[uint16(w>>24)]>>(x>>40&7)
		if (a|b|c|d)&1 == 0 {
			continue
		}
		at := uint16(i - from)
		out[n] = at
		n += int(a & 1)
		out[n] = at + 1
		n += int(b & 1)
		out[n] = at + 2
		n += int(c & 1)
		out[n] = at + 3
		n += int(d & 1)
	}
	for ; i < to; i++ { // the last few bytes of the text
		w := wordAt(text, i)
		if f.known[uint16(w)]>>((w^w>>3)>>16&7)&1 != 0 || i+2 == len(text) && f.known[uint16(w)] != 0 {
			out[n] = uint16(i - from)
			n++
		}
	}
	return n
}
