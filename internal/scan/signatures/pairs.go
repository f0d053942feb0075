package signatures

import "encoding/binary"

// pairs is a filter for the grams of two and three bytes, which are looked for at more places than the long ones. For every
// pair of bytes it has eight bits, of which the lowest three bits of the byte behind the pair select one: when that is set,
// a gram may begin there.
type pairs struct {
	step  int // 1 or 2
	known [1 << 16]uint8
}

// add makes the filter let through what k stands at, whose gram has n bytes.
func (f *pairs) add(k *keyed, n int) {
	next := uint8(0xFF)
	switch {
	case n > shortGram:
		next = 1 << (k.gram >> 16 & 7)
	case k.delta == shortGram && k.mask&0xFF == 0xFF:
		next = 1 << (k.word & 7)
	}
	f.known[uint16(k.gram)] |= next
}

// filter writes to out the places from <= i < to of text, every step-th, where a gram may begin, and returns their number.
// from is a multiple of 4.
func (f *pairs) filter(text []byte, from, to int, out *hits) int {
	to = min(to, len(text)-1)
	var n, i int
	if f.step == 1 {
		n, i = f.every(text, from, to, out)
	} else {
		n, i = f.even(text, from, to, out)
	}
	for ; i < to; i += f.step { // the last few bytes of the text
		w := wordAt(text, i)
		if f.known[uint16(w)]>>(w>>16&7)&1 != 0 || i+2 == len(text) && f.known[uint16(w)] != 0 {
			out[n] = uint16(i - from)
			n++
		}
	}
	return n
}

// every is filter for every place, as far as whole words can be read; it stops at i.
func (f *pairs) every(text []byte, from, to int, out *hits) (n, i int) {
	known := &f.known
	end := min(to-3, len(text)-7)
	for i = from; i < end; i += 4 {
		w := binary.LittleEndian.Uint64(text[i:])
		a, b := known[uint16(w)]>>(w>>16&7), known[uint16(w>>8)]>>(w>>24&7)
		c, d := known[uint16(w>>16)]>>(w>>32&7), known[uint16(w>>24)]>>(w>>40&7)
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
	return n, i
}

// even is filter for every second place.
func (f *pairs) even(text []byte, from, to int, out *hits) (n, i int) {
	known := &f.known
	end := min(to-3, len(text)-7)
	for i = from; i < end; i += 4 {
		w := binary.LittleEndian.Uint64(text[i:])
		a, b := known[uint16(w)]>>(w>>16&7), known[uint16(w>>16)]>>(w>>32&7)
		if (a|b)&1 == 0 {
			continue
		}
		at := uint16(i - from)
		out[n] = at
		n += int(a & 1)
		out[n] = at + 2
		n += int(b & 1)
	}
	return n, i
}
