// Package eventstream leaves of an event stream (HTML Standard, 9.2, "Server-sent events") what a reader of one understands, while it
// comes. It is pure.
package eventstream

import (
	"bytes"
	"slices"
)

var (
	bom    = []byte("\ufeff")
	fields = [][]byte{[]byte("data"), []byte("event"), []byte("id"), []byte("retry")}
)

// Observer is told of the values of data fields, of which a reader makes its events.
type Observer interface {
	// Line says that a data line begins, and whether it is the first one of its event.
	Line(first bool)
	// Value gives what comes next of its value. It must not keep p.
	Value(p []byte)
}

// Filter passes the lines whose field is data, event, id or retry, comments, blank lines and a BOM at the beginning, byte for byte, and
// drops all other lines: every reader ignores them (section 9.2.6). Lines end with CR, LF or CRLF. It holds no more than five
// bytes, of a field's name that is not complete; those at the end of a stream belong to nothing. It is used by one goroutine.
type Filter struct {
	see  Observer
	held []byte // of a name, or of the BOM
	in   place
	data bool // the value is one of data
	open bool // the event has data already

	begun bool // what comes next is not the beginning of the stream
	bare  bool // the value's first byte is still to come: one space does not belong to it
	cr    ending
	last  byte // that was passed
}

type place uint8

const (
	name    place = iota // within a field's name, or before it
	value                // behind it, in a line that passes
	dropped              // in a line that does not
)

// ending says what became of a CR that an LF may follow.
type ending uint8

const (
	none ending = iota
	passedCR
	droppedCR
)

// New returns a Filter of a stream from its beginning. See is told of the data; nil: nobody is.
func New(see Observer) *Filter { return &Filter{see: see} }

// Next appends to dst what passes of piece, which comes next in the stream, and returns the extended slice.
func (f *Filter) Next(dst, piece []byte) []byte {
	for len(piece) > 0 {
		if cr := f.cr; cr != none {
			if f.cr = none; piece[0] == '\n' {
				if cr == passedCR {
					dst = f.pass(dst, '\n')
				}
				piece = piece[1:]
				continue
			}
		}
		if f.in == name {
			dst = f.named(dst, piece[0])
			piece = piece[1:]
			continue
		}
		line := piece
		end := bytes.IndexAny(piece, "\r\n")
		if end >= 0 {
			line = piece[:end]
		}
		if f.in == value {
			dst = f.pass(dst, line...)
			f.tell(line)
		}
		if piece = piece[len(line):]; end >= 0 {
			dst = f.end(dst, piece[0], f.in == value)
			piece = piece[1:]
		}
	}
	return dst
}

func (f *Filter) pass(dst []byte, p ...byte) []byte {
	if len(p) > 0 {
		f.last = p[len(p)-1]
	}
	return append(dst, p...)
}

// named takes a byte of what may be a field's name.
func (f *Filter) named(dst []byte, c byte) []byte {
	f.held = append(f.held, c)
	if !f.begun && bytes.HasPrefix(bom, f.held) {
		if len(f.held) == len(bom) {
			dst, f.held, f.begun = f.pass(dst, bom...), f.held[:0], true
		}
		return dst
	}
	f.begun = true
	before := f.held[:len(f.held)-1]
	known := slices.ContainsFunc(fields, func(n []byte) bool { return bytes.Equal(n, before) })
	switch {
	case (c == '\r' || c == '\n') && len(before) == 0:
		f.open = false
		return f.end(dst, c, true)
	case (c == '\r' || c == '\n') && known:
		f.begin(before)
		return f.end(f.pass(dst, before...), c, true)
	case c == '\r' || c == '\n':
		return f.end(dst, c, false)
	case c == ':' && (known || len(before) == 0):
		f.begin(before)
		dst, f.in, f.held = f.pass(dst, f.held...), value, f.held[:0]
	case !slices.ContainsFunc(fields, func(n []byte) bool { return bytes.HasPrefix(n, f.held) }):
		f.in, f.held = dropped, f.held[:0]
	}
	return dst
}

// begin notes that a line of that field passes.
func (f *Filter) begin(field []byte) {
	f.data, f.bare = string(field) == "data", true
	if f.data && f.see != nil {
		f.see.Line(!f.open)
	}
	f.open = f.open || f.data
}

// tell hands on what comes next of a value.
func (f *Filter) tell(p []byte) {
	if f.bare && len(p) > 0 {
		f.bare = false
		p = bytes.TrimPrefix(p, []byte(" "))
	}
	if f.data && f.see != nil && len(p) > 0 {
		f.see.Value(p)
	}
}

// end ends a line by c.
func (f *Filter) end(dst []byte, c byte, passes bool) []byte {
	f.in, f.held, f.cr = name, f.held[:0], none
	if c == '\r' {
		f.cr = droppedCR
		if passes {
			f.cr = passedCR
		}
	}
	if !passes {
		return dst
	}
	if c == '\n' && f.last == '\r' {
		// Lines between the two have been dropped: the one LF would only complete the CR.
		dst = f.pass(dst, '\n')
	}
	return f.pass(dst, c)
}
