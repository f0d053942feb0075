package message

import (
	"bytes"

	"lazaret/internal/spool"
)

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/'
}

func isHex(c byte) bool { _, ok := hexDigit(c); return ok }

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// base64Way is a way to read base64 that is not as it should be.
type base64Way uint8

const (
	joined        base64Way = iota // junk is skipped; "=" ends a stream, and another begins
	ignorePadding                  // junk and "=" are skipped
	untilPadding                   // junk is skipped; "=" ends it all
	pureLines                      // lines that have junk in them are skipped
	pureRuns                       // such lines, and empty ones, end a stream, and another begins
	eachLine                       // junk is skipped; every line is a stream of its own
)

var base64Names = [...]string{"", " (padding ignored)", " (until padding)", " (clean lines)", " (runs)", " (line by line)"}

// base64Decoder is RFC 2045, 6.8, read in one of the ways.
type base64Decoder struct {
	way   base64Way
	w     *sink
	bits  uint32
	n     int
	any   bool
	ended bool
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
	for _, c := range text {
		v, ok := sextet(c)
		switch {
		case d.ended:
		case ok:
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

func sextet(c byte) (byte, bool) {
	switch {
	case c >= 'A' && c <= 'Z':
		return c - 'A', true
	case c >= 'a' && c <= 'z':
		return c - 'a' + 26, true
	case c >= '0' && c <= '9':
		return c - '0' + 52, true
	case c == '+':
		return 62, true
	case c == '/':
		return 63, true
	}
	return 0, false
}

func pureBase64(text []byte) bool {
	for _, c := range bytes.TrimRight(text, "= \t") {
		if !isBase64(c) {
			return false
		}
	}
	return len(text) > 0
}

// quotedPrintable is RFC 2045, 6.7, read leniently: what is no escape stays as it is.
type quotedPrintable struct {
	w     *sink
	any   bool
	buf   []byte
	begun []byte // an escape that the end of a piece cut
}

func (d *quotedPrintable) name() string { return " (quoted-printable)" }

func (d *quotedPrintable) wanted(s *section) bool {
	h := &s.header
	if !d.any {
		return false
	}
	// Whatever is declared, some client decodes it all the same. A line of base64 may end in "=" without meaning that.
	return h.quoted || h.odd || s.nested || s.looks.escapes > 0 || s.looks.soft > 0 && !h.base64
}

func (d *quotedPrintable) line(l line, text []byte) {
	if len(text) > 0 && text[len(text)-1] == '=' && len(text) != len(l.text) {
		d.decode(text[:len(text)-1]) // a soft line break, white space behind it included
		d.any = true
		return
	}
	d.decode(l.text)
}

func (d *quotedPrintable) decode(text []byte) {
	if len(d.begun) > 0 {
		text = append(append([]byte(nil), d.begun...), text...)
		d.begun = d.begun[:0]
	}
	d.buf = d.buf[:0]
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c != '=' {
			d.buf = append(d.buf, c)
			continue
		}
		if i+2 >= len(text) && len(text)-i < 3 && text[len(text)-1] != '\n' && text[len(text)-1] != '\r' {
			d.begun = append(d.begun, text[i:]...)
			break
		}
		if i+2 < len(text) {
			hi, ok1 := hexDigit(text[i+1])
			lo, ok2 := hexDigit(text[i+2])
			if ok1 && ok2 {
				d.buf = append(d.buf, hi<<4|lo)
				d.any = true
				i += 2
				continue
			}
		}
		d.buf = append(d.buf, c)
	}
	d.w.write(d.buf)
}

func (d *quotedPrintable) end() *spool.Writer {
	d.w.write(d.begun)
	return d.w.end()
}
