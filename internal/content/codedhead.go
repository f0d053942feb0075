package content

// What almost any bytes are tried as is not what they are, nearly always, and their first bits tell: a decoder, and the memory that
// their chance numbers would have it take, is spared where it could only find that out.

// bitReader reads bits, the least significant first. Beyond the end they are 0, and short.
type bitReader struct {
	text  []byte
	at    int // in bits
	short bool
}

func (r *bitReader) bits(n int) (v int) {
	for i := range n {
		byteAt := r.at >> 3
		if byteAt >= len(r.text) {
			r.short = true
			return v
		}
		v |= int(r.text[byteAt]>>(r.at&7)&1) << i
		r.at++
	}
	return v
}

// brotliHead says what a body of size bytes, which begins with text, would be in the br coding (RFC 7932, 9.1 and 9.2): surely nothing
// that has content, or a first meta-block that is stored, and has no end: then all that a decoder makes of it is what is behind its header, which is
// so many bytes. Else, where header is 0, a decoder has to find out.
func brotliHead(text []byte, size int64) (header int64, never bool) {
	if len(text) < 6 {
		return 0, false // the longest header
	}
	r := &bitReader{text: text}
	if r.bits(1) == 1 && r.bits(3) == 0 && r.bits(3) == 1 {
		return 0, true // the large windows are not of the format
	}
	last := r.bits(1) == 1
	if last && r.bits(1) == 1 {
		return 0, true // it is empty
	}
	nibbles := 4 + r.bits(2)
	if nibbles == 7 { // metadata
		return 0, last || r.bits(1) == 1
	}
	length := int64(r.bits(4*nibbles)) + 1
	if nibbles > 4 && (length-1)>>(4*(nibbles-1)) == 0 {
		return 0, true // more of them than it needs
	}
	if last || r.bits(1) == 0 {
		return 0, false
	}
	if r.bits(-r.at&7) != 0 {
		return 0, true
	}
	if header = int64(r.at >> 3); length < size-header {
		return 0, false
	}
	return header, false
}

// neverDeflate says whether text, the beginning of a body, can surely not be the beginning of one in the deflate coding, in neither of
// its readings.
func neverDeflate(text []byte) bool {
	if len(text) < 2 || text[0]&0x0f == 8 && text[0]>>4 <= 7 && (int(text[0])<<8|int(text[1]))%31 == 0 {
		return false // RFC 1950
	}
	r := &bitReader{text: text}
	r.bits(1)
	switch r.bits(2) { // RFC 1951, 3.2.3
	case 0:
		if len(text) < 5 {
			return false
		}
		return text[1] != ^text[3] || text[2] != ^text[4]
	case 2:
		return neverDynamic(r)
	case 3:
		return true
	}
	return false
}

// neverDynamic says whether what comes is surely no beginning of a block with codes of its own (RFC 1951, 3.2.7): there would be more
// symbols than there are, or lengths that make no prefix code.
func neverDynamic(r *bitReader) bool {
	literals, distances := r.bits(5), r.bits(5)
	lengths := 4 + r.bits(4)
	if literals > 29 || distances > 29 {
		return true
	}
	used, room := 0, 1<<7
	for range lengths {
		if n := r.bits(3); n > 0 {
			used++
			room -= 1 << (7 - n)
		}
	}
	return !r.short && used > 1 && room != 0
}
