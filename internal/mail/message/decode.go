package message

import (
	"bytes"

	"lazaret/internal/spool"
)

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

// quotedPrintable is RFC 2045, 6.7, read leniently: what is no escape stays as it is.
type quotedPrintable struct {
	e     *finder
	w     *sink
	any   bool
	buf   []byte
	begun []byte // an escape that the end of a piece cut
	err   error  // what was read could not be had for toLF

	// toLF reads what others read otherwise: to them (CPython's binascii) "=" and a lone CR break a line softly, and all goes with it
	// up to the next LF. nil: there was none.
	toLF     *quotedPrintable
	isToLF   bool
	skipping bool // up to the LF
}

func (d *quotedPrintable) name() string {
	if d.isToLF {
		return " (quoted-printable, soft breaks up to LF)"
	}
	return " (quoted-printable)"
}

func (d *quotedPrintable) wanted(s *section) bool {
	h := &s.header
	if !d.any {
		return false
	}
	// Whatever is declared, some client decodes it all the same. A line of base64 may end in "=" without meaning that.
	return h.quoted || h.odd || s.nested || s.looks.escapes > 0 || s.looks.soft > 0 && !h.base64
}

func (d *quotedPrintable) line(l line, text []byte) {
	if d.skipping {
		d.skipping = l.text[len(l.text)-1] != '\n'
		return
	}
	soft := len(text) > 0 && text[len(text)-1] == '=' && len(text) != len(l.text)
	cr := soft && l.text[len(l.text)-1] == '\r'
	if cr && !d.isToLF && d.toLF == nil {
		d.fork()
	}
	if d.toLF != nil {
		d.toLF.line(l, text)
	}
	if soft {
		d.skipping = cr && d.isToLF
		d.decode(text[:len(text)-1]) // a soft line break, white space behind it included
		d.any = true
		return
	}
	d.decode(l.text)
}

func (d *quotedPrintable) fork() {
	d.toLF = &quotedPrintable{e: d.e, any: d.any, begun: bytes.Clone(d.begun), isToLF: true}
	d.toLF.w, d.err = d.w.fork(d.e)
}

func (d *quotedPrintable) decode(text []byte) {
	if len(d.begun) > 0 {
		text = append(append([]byte(nil), d.begun...), text...)
		d.begun = d.begun[:0]
	}
	d.buf = d.buf[:0]
	for i := 0; i < len(text); i++ {
		if text[i] != '=' {
			plain := bytes.IndexByte(text[i:], '=')
			if plain < 0 {
				plain = len(text) - i
			}
			d.buf = append(d.buf, text[i:i+plain]...)
			i += plain - 1
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
		d.buf = append(d.buf, '=')
	}
	d.w.write(d.buf)
}

func (d *quotedPrintable) end() *spool.Writer {
	d.w.write(d.begun)
	return d.w.end()
}
