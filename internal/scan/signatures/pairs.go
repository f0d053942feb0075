package signatures

import "encoding/binary"

// pairs is a filter for the grams of two and three bytes, which are looked for at more places than the long ones. For every
// pair of bytes it has eight bits, of which the byte behind the pair selects one, by the lower six bits folded into three:
// when that is set, a gram may begin there.
type pairs struct {
	known [1 << 16]uint8
}

// add makes the filter let through what k stands at, whose gram has n bytes.
func (f *pairs) add(k *keyed, n int) {
	next := uint8(0xFF)
	switch {
	case n > shortGram:
		next = 1 << ((k.gram ^ k.gram>>3) >> 16 & 7)
	case k.delta == shortGram && k.mask&0xFF == 0xFF:
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
