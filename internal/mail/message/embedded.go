package message

import (
	"bytes"
	"fmt"
	"slices"

	"lazaret/internal/content"
)

// maxEmbedded bounds how many embedded files of one section are open at a time; more than one only in garbage.
const maxEmbedded = 8

// embedded finds files that are written into a text without MIME: uuencode, yEnc, BinHex, in calendars and cards.
type embedded struct {
	e     *finder
	files []*file
	done  []*file
	// decoded says that the text came out of a decoder and may be anything: there, what looks like BinHex has to say so.
	decoded bool
	binHex  bool // something said so
	guess   bool // whether what is found is there at all depends on how the mail is read
	err     error
}

// file is one embedded file.
type file struct {
	kind   string
	w      *sink
	decode func(text []byte) (out []byte, more bool)
	// endsForSome says whether there are programs to which the file ends before this line, and others to which it goes on; nil: no.
	endsForSome func(text []byte) bool
}

// errEmbedded says that there is more inside than is looked at.
var errEmbedded = content.TooManyError(fmt.Errorf("more than %d encoded files that begin in a text and do not end", maxEmbedded))

func newEmbedded(e *finder) *embedded { return &embedded{e: e} }

func (m *embedded) line(l line, text []byte) {
	if len(m.files) > 0 {
		m.feed(text)
	}
	if !l.first || len(text) == 0 {
		return
	}
	switch {
	case beginsUU(text) && m.room("uuencode"):
		m.openUU()
	case bytes.HasPrefix(text, []byte("begin-base64 ")) && m.room("begin-base64"):
		d := m.base64()
		m.open("begin-base64", func(text []byte) ([]byte, bool) {
			d.buf = d.buf[:0]
			d.decodeInto(text)
			return d.buf, !bytes.Equal(text, []byte("===="))
		})
	case beginsProperty(text) && m.room("a property"):
		m.open("a property", decodeProperty(m.base64()))
		m.feedLast(text)
	case bytes.HasPrefix(text, []byte("=ybegin ")) && m.room("yEnc"):
		m.open("yEnc", decodeYEnc())
	case bytes.HasPrefix(text, []byte(armourBegin)) && m.room("OpenPGP"):
		m.openArmour(true)
	case bytes.Contains(text, []byte("BinHex")):
		m.binHex = true
	case text[0] == ':' && len(text) > 10 && (m.binHex || !m.decoded) && m.room("BinHex"):
		h := &binHex{}
		m.open("BinHex", h.line)
		m.feedLast(text)
	}
}

// room says whether there is room for one more file. One in which nothing has come gives way: whatever comes is the same in the new
// one. Otherwise m.err says that there is more than is looked at, and the rest is still read.
func (m *embedded) room(kind string) bool {
	if len(m.files) < maxEmbedded {
		return true
	}
	i := slices.IndexFunc(m.files, func(f *file) bool { return f.kind == kind && f.w.empty() })
	if i < 0 {
		m.err = errEmbedded
		return false
	}
	m.files[i].w.discard()
	m.files = slices.Delete(m.files, i, i+1)
	return true
}

func (m *embedded) open(kind string, decode func([]byte) ([]byte, bool)) {
	m.files = append(m.files, &file{kind: kind, w: newSink(m.e), decode: decode})
}

// openUU begins a file in uuencode.
func (m *embedded) openUU() {
	u := &uuFile{}
	m.open("uuencode", u.line)
	m.files[len(m.files)-1].endsForSome = u.endsForSome
}

// base64 returns a decoder whose own writer is not used.
func (m *embedded) base64() *base64Decoder {
	d := newBase64(m.e, joined)
	d.w.discard()
	return d
}

// feedLast gives the file that was opened last the line that it begins on.
func (m *embedded) feedLast(text []byte) {
	before := m.files[:len(m.files)-1]
	m.files = m.files[len(before):]
	m.feed(text)
	m.files = append(before, m.files...)
}

func (m *embedded) feed(text []byte) {
	open := m.files[:0]
	for _, f := range m.files {
		if f.endsForSome != nil && f.endsForSome(text) {
			w, err := f.w.fork(m.e)
			if err != nil {
				m.err = err
			}
			m.done = append(m.done, &file{kind: f.kind, w: w})
		}
		out, more := f.decode(text)
		f.w.write(out)
		if more {
			open = append(open, f)
		} else {
			m.done = append(m.done, f)
		}
	}
	m.files = open
}

// end hands on what was found. A file whose end is missing is one all the same.
func (m *embedded) end(path string) error {
	for _, f := range append(m.done, m.files...) {
		m.e.message = true
		part := content.Part{Path: fmt.Sprintf("%s (%s)", path, f.kind), Guess: m.guess}
		if err := m.e.EmitPart(f.w.end(), part, nil); err != nil {
			return err
		}
	}
	m.e.tooMuch(m.err)
	return nil
}

// found says whether there was any.
func (m *embedded) found() bool { return len(m.files)+len(m.done) > 0 }

// discard gives back what was not handed on.
func (m *embedded) discard() {
	for _, f := range append(m.done, m.files...) {
		f.w.discard()
	}
	m.done, m.files = nil, nil
}

// beginsUU says whether a line is "begin 644 name", with any mode.
func beginsUU(text []byte) bool {
	const begin = "begin "
	if len(text) < len(begin) || !bytes.EqualFold(text[:len(begin)], []byte(begin)) {
		return false
	}
	mode, _, _ := bytes.Cut(bytes.TrimLeft(text[len(begin):], " "), []byte(" "))
	for _, c := range mode {
		if c < '0' || c > '7' {
			return false
		}
	}
	return len(mode) >= 3
}

// uuFile decodes uuencode (POSIX, uuencode), as many bytes of a line as its count says, or as there are. The end is "end" behind a line
// of no bytes. Where there is none before, some programs take it for the end all the same, and others for data.
type uuFile struct {
	empty bool // the last line had no bytes
	early bool // there was an "end" that is none to all
}

func (u *uuFile) endsForSome(text []byte) bool { return !u.empty && !u.early && string(text) == "end" }

func (u *uuFile) line(text []byte) ([]byte, bool) {
	if string(text) == "end" {
		if u.empty {
			return nil, false
		}
		u.early = true
	}
	out := decodeUU(text)
	u.empty = len(text) > 0 && (text[0]-' ')&0x3f == 0
	return out, true
}

// decodeUU decodes a line.
func decodeUU(text []byte) []byte {
	if len(text) == 0 || text[0] == '`' {
		return nil
	}
	want := int(text[0]-' ') & 0x3f
	var out []byte
	body := text[1:]
	for i := 0; i < len(body); i += 4 {
		var g [4]byte
		for k := range g {
			if i+k < len(body) {
				g[k] = (body[i+k] - ' ') & 0x3f
			}
		}
		out = append(out, g[0]<<2|g[1]>>4, g[1]<<4|g[2]>>2, g[2]<<6|g[3])
	}
	return out[:min(want, len(out))]
}

// decodeYEnc returns what decodes the lines of a yEnc file.
func decodeYEnc() func(text []byte) ([]byte, bool) {
	return func(text []byte) ([]byte, bool) {
		if bytes.HasPrefix(text, []byte("=yend")) {
			return nil, false
		}
		if bytes.HasPrefix(text, []byte("=y")) {
			return nil, true // =ypart
		}
		out := make([]byte, 0, len(text))
		for i := 0; i < len(text); i++ {
			c := text[i]
			if c == '=' && i+1 < len(text) {
				i++
				c = text[i] - 64
			}
			out = append(out, c-42)
		}
		return out, true
	}
}

// binHexAlphabet is that of BinHex 4.0 (RFC 1741).
const binHexAlphabet = "!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr"

// binHex decodes BinHex 4.0: six bits a character, then run lengths. What comes out is the whole stream, the header with the
// name and both forks: signatures match anywhere in it.
type binHex struct {
	bits    uint32
	n       int
	started bool
	last    byte
	run     bool
}

func (h *binHex) line(text []byte) ([]byte, bool) {
	var out []byte
	for _, c := range text {
		if c == ':' {
			if h.started {
				return out, false
			}
			h.started = true
			continue
		}
		v := bytes.IndexByte([]byte(binHexAlphabet), c)
		if v < 0 {
			continue
		}
		h.bits = h.bits<<6 | uint32(v)
		h.n += 6
		if h.n >= 8 {
			h.n -= 8
			out = h.expand(out, byte(h.bits>>h.n))
		}
	}
	return out, true
}

// expand undoes the run lengths: 0x90 n repeats the byte before, 0x90 0 is 0x90 itself.
func (h *binHex) expand(out []byte, c byte) []byte {
	switch {
	case h.run:
		h.run = false
		if c == 0 {
			h.last = 0x90
			return append(out, 0x90)
		}
		for range c - 1 {
			out = append(out, h.last)
		}
		return out
	case c == 0x90:
		h.run = true
		return out
	}
	h.last = c
	return append(out, c)
}
