package message

import (
	"bytes"
	"slices"

	"lazaret/internal/spool"
)

// noSextet is in sextets for what is not of the alphabet: it shows in the union of many.
const noSextet = 0xff

// sextets are the values of base64's alphabet (RFC 4648, 4).
var sextets = func() (out [256]byte) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range out {
		out[i] = noSextet
	}
	for i := range len(alphabet) {
		out[alphabet[i]] = byte(i)
	}
	return out
}()

// base64Way is a way to read base64 that is not as it should be.
type base64Way uint8

const (
	joined        base64Way = iota // junk is skipped; "=" ends a stream, and another begins
	ignorePadding                  // junk and "=" are skipped
	pureLines                      // lines that have junk in them are skipped
	pureRuns                       // such lines, and empty ones, end a stream, and another begins
	untilPadding                   // junk is skipped; "=" ends it all
	eachLine                       // junk is skipped; every line is a stream of its own
	zeroPadding                    // junk is skipped; "=" is a character of a group, and stands for zeros (GLib)
)

var base64Names = [...]string{"", " (padding ignored)", " (clean lines)", " (runs)", " (until padding)", " (line by line)", " (padding as zeros)"}

// base64Decoder is RFC 2045, 6.8, read in one of the ways.
type base64Decoder struct {
	way   base64Way
	w     *sink
	bits  uint32
	n     int
	any   bool
	ended bool
	pads  byte // which of the last characters were "=", the last in the lowest bit
	buf   []byte
}

func newBase64(e *finder, way base64Way) *base64Decoder {
	return &base64Decoder{way: way, w: newSink(e)}
}

func (d *base64Decoder) name() string { return base64Names[d.way] }

func (d *base64Decoder) wanted(s *section) bool {
	return d.any && (s.header.base64 || s.header.odd || s.nested || s.looks.base64())
}

func (d *base64Decoder) line(l line, text []byte) {
	if d.way == pureLines || d.way == pureRuns {
		if !pureBase64(text) {
			if d.way == pureRuns {
				d.flush()
			}
			return
		}
	}
	if d.way == eachLine && l.first {
		d.flush()
	}
	d.buf = d.buf[:0]
	d.decodeInto(l.text)
	d.w.write(d.buf)
}

// decodeInto appends to buf what text stands for.
func (d *base64Decoder) decodeInto(text []byte) {
	if d.way == zeroPadding {
		d.decodeZeros(text)
		return
	}
	for _, c := range text {
		v := sextets[c]
		switch {
		case d.ended:
		case v < 64:
			d.bits = d.bits<<6 | uint32(v)
			d.n++
			if d.n == 4 {
				d.buf = append(d.buf, byte(d.bits>>16), byte(d.bits>>8), byte(d.bits))
				d.bits, d.n = 0, 0
				d.any = true
			}
		case c == '=' && d.way != ignorePadding:
			d.buf = d.tail(d.buf)
			d.ended = d.way == untilPadding
		}
	}
}

// decodeZeros is decodeInto for zeroPadding: as g_base64_decode_step does it.
func (d *base64Decoder) decodeZeros(text []byte) {
	for _, c := range text {
		v := sextets[c]
		switch {
		case v < 64:
			d.pads <<= 1
		case c == '=':
			v = 0
			d.pads = d.pads<<1 | 1
		default:
			continue
		}
		d.bits = d.bits<<6 | uint32(v)
		if d.n++; d.n < 4 {
			continue
		}
		d.buf = append(d.buf, byte(d.bits>>16))
		if d.pads&2 == 0 {
			d.buf = append(d.buf, byte(d.bits>>8))
		}
		if d.pads&1 == 0 {
			d.buf = append(d.buf, byte(d.bits))
		}
		d.bits, d.n, d.any = 0, 0, true
	}
}

// strays says whether "=" stands in text where it is no padding at the end of a group.
func (d *base64Decoder) strays(text []byte) bool {
	n, padded := d.n, false
	for _, c := range text {
		v := sextets[c]
		switch {
		case v < 64 && padded, c == '=' && n < 2:
			return true
		case c == '=':
			padded = true
		case v >= 64:
			continue
		}
		if n++; n == 4 {
			n, padded = 0, false
		}
	}
	return padded
}

// tail ends a group that is not full.
func (d *base64Decoder) tail(buf []byte) []byte {
	switch d.n {
	case 2:
		buf = append(buf, byte(d.bits>>4))
	case 3:
		buf = append(buf, byte(d.bits>>10), byte(d.bits>>2))
	}
	d.bits, d.n = 0, 0
	return buf
}

func (d *base64Decoder) flush() {
	if d.n > 0 {
		d.w.write(d.tail(nil))
	}
}

func (d *base64Decoder) end() *spool.Writer {
	d.flush()
	return d.w.end()
}

func pureBase64(text []byte) bool {
	var all byte
	for _, c := range bytes.TrimRight(text, "= \t") {
		all |= sextets[c]
	}
	return all < 64 && len(text) > 0
}

// groups takes a line of whole groups and nothing else, and says whether it was one. It may be called between groups alone.
func (d *base64Decoder) groups(text []byte) bool {
	if len(text)%4 != 0 {
		return false
	}
	var all byte
	d.buf = slices.Grow(d.buf[:0], len(text)/4*3)
	for ; len(text) >= 4; text = text[4:] {
		a, b, c, e := sextets[text[0]], sextets[text[1]], sextets[text[2]], sextets[text[3]]
		all |= a | b | c | e
		d.buf = append(d.buf, a<<2|b>>4, b<<4|c>>2, c<<6|e)
	}
	if all >= 64 {
		return false
	}
	d.any = true
	d.w.write(d.buf)
	return true
}

// base64Ways reads a section in every base64Way. As long as all of them read the same, which they do in an ordinary part from
// its beginning to its end, one does it for all.
type base64Ways struct {
	e      *finder
	one    *base64Decoder   // reads for all of them
	padded []byte           // a line that ends in padding, which all read alike where only empty lines follow
	all    []*base64Decoder // in the order of the ways, one among them; nil: they have not parted
	zeros  bool             // zeroPadding is among them
	// declared says that the header speaks of base64, or of what nobody knows. Programs that know zeroPadding look at it.
	declared bool
	err      error // what one has read could not be had for the others
}

func newBase64Ways(e *finder, declared bool) *base64Ways {
	return &base64Ways{e: e, one: newBase64(e, joined), declared: declared}
}

// line takes the next line; text is it without its end.
func (b *base64Ways) line(l line, text []byte) {
	if b.all == nil {
		switch {
		case len(text) == 0: // nothing to any of them between groups
			return
		case len(b.padded) > 0:
		case b.one.groups(text):
			return
		case text[len(text)-1] == '=' && pureBase64(bytes.TrimRight(text, "=")):
			b.padded = append(b.padded, text...)
			return
		}
		b.part()
	}
	b.feed(l, text)
}

// feed gives a line to all ways. zeroPadding is joined until "=" stands where it is no padding.
func (b *base64Ways) feed(l line, text []byte) {
	if b.declared && !b.zeros && bytes.IndexByte(text, '=') >= 0 && b.one.strays(text) {
		b.zeros = true
		b.fork(zeroPadding)
	}
	for _, d := range b.all {
		d.line(l, text)
	}
}

// fork has one more way read by itself from here on.
func (b *base64Ways) fork(way base64Way) {
	d := &base64Decoder{way: way, any: b.one.any, bits: b.one.bits, n: b.one.n}
	var err error
	if d.w, err = b.one.w.fork(b.e); err != nil {
		b.err = err
	}
	b.all = append(b.all, d)
}

// part has each way read by itself from here on.
func (b *base64Ways) part() {
	b.all = append(b.all, b.one)
	for way := joined + 1; way <= eachLine; way++ {
		b.fork(way)
	}
	if len(b.padded) > 0 {
		b.feed(line{text: b.padded, first: true}, b.padded)
		b.padded = nil
	}
}

// readings returns the decoders of all readings that may differ, when there are no more lines.
func (b *base64Ways) readings() []*base64Decoder {
	if b.all != nil {
		return b.all
	}
	if len(b.padded) > 0 {
		b.one.line(line{text: b.padded, first: true}, b.padded)
		b.padded = nil
	}
	return []*base64Decoder{b.one}
}
