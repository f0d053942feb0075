package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"lazaret/internal/content"
	"lazaret/internal/spool"
)

// The bounds of reading stretches again: how many bodies that begin in one, and how much in all, as a multiple of its size, and a
// little. More is in no mail that is meant to be read.
const (
	maxBodies   = 32
	againFactor = 8
	againFree   = 1 << 20
)

// errBodies says that there is more to be read in one stretch than is.
var errBodies = content.TooManyError(errors.New("more parts inside each other, without clear delimiters, than are looked at"))

// stretch is the text from one delimiter to the next, with everything in between that could be a delimiter or a header to some, and is
// text to others: to those who decode base64 it is junk, which they skip.
type stretch struct {
	text    *raw
	size    int64 // of the text so far
	looks   looks // of its sections
	files   bool  // encoded files begin in one of them
	long    bool  // it goes on over delimiters that somebody has declared
	cuts    int   // how many lines in it could be delimiters, or ends of headers
	parts   int   // how many of those have a header
	armours int   // how many of those begin or end something in ASCII armour
	bodies  []body
}

// body is where a body begins in a stretch, under a header that could say how it is encoded.
type body struct {
	at          int64
	cuts, parts int // those before it
	header      header
}

func newStretch(e *finder, h *header) *stretch {
	t := &stretch{text: &raw{w: newSink(e)}}
	t.bodies = append(t.bodies, body{header: h.flags()})
	return t
}

func (t *stretch) line(l line) {
	t.text.line(l)
	t.size += int64(len(l.text))
}

// begin notes that a body begins under h, so many bytes before the end.
func (t *stretch) begin(h *header, back int64) {
	if h.encoded() || h.odd {
		if len(t.bodies) <= maxBodies {
			t.bodies = append(t.bodies, body{at: t.size - back, cuts: t.cuts, parts: t.parts, header: h.flags()})
		}
	}
}

// cut notes a line that could be a delimiter; name is what follows the dashes.
func (t *stretch) cut(name []byte) {
	t.cuts++
	if bytes.HasPrefix(name, []byte("---BEGIN ")) || bytes.HasPrefix(name, []byte("---END ")) {
		t.armours++
	}
}

// saw takes what is known of a section of it, when there are no more lines of that.
func (t *stretch) saw(s *section) {
	t.looks.add(&s.looks)
	t.files = t.files || s.files.found()
}

// fork returns one that is the same so far, and goes on.
func (t *stretch) fork(e *finder) (*stretch, error) {
	w, err := t.text.w.fork(e)
	out := *t
	out.text, out.long = &raw{w: w, held: bytes.Clone(t.text.held)}, true
	out.bodies = append([]body(nil), t.bodies...)
	return &out, err
}

// decodable says whether there is anything to be decoded behind b that its sections did not show whole.
func (t *stretch) decodable(b *body) bool {
	if b.header.encoded() {
		return b.cuts < t.cuts
	}
	// What is in armour, under a header that speaks of no encoding, is whole in its section.
	return b.cuts+t.armours < t.cuts && (t.looks.base64() || t.looks.escapes > 0 || t.looks.soft > 0 || t.files)
}

// endStretch hands on what a stretch is as text, and what its bodies are when they are decoded over all that cuts them.
func (s *splitter) endStretch(p **stretch) error {
	t := *p
	if t == nil {
		return nil
	}
	*p = nil
	w := t.text.end()
	defer w.Discard()
	if err := s.again(t, w); err != nil {
		return err
	}
	s.e.message = false
	return s.e.EmitPart(w, content.Part{Path: s.path(), Guess: t.long}, nil)
}

func (s *splitter) again(t *stretch, w *spool.Writer) error {
	size := w.Size()
	budget := againFactor*size + againFree
	for i := range t.bodies {
		b := &t.bodies[i]
		if !t.decodable(b) || b.at >= size {
			continue
		}
		if budget -= size - b.at; budget < 0 || i >= maxBodies {
			s.e.tooMuch(errBodies)
			return nil
		}
		one := newSection(s.e, b.header)
		// Where what cuts it looks like a part, it may be one; that what goes on over it is broken says nothing.
		one.again, one.files.guess = true, t.long || t.parts > b.parts
		if err := one.read(io.NewSectionReader(w, b.at, size-b.at)); err != nil {
			one.discard()
			return fmt.Errorf("reading a part once more: %w", err)
		}
		if err := one.end(s.path() + " (as one)"); err != nil {
			return err
		}
	}
	return nil
}

// read takes all of r as the section's lines.
func (s *section) read(r io.Reader) error {
	lines := newLinesOf(r)
	for {
		l, err := lines.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(l.text) > 0 {
			s.line(l, l.trimmed())
		}
		if err != nil {
			return nil //nolint:nilerr // it is the end
		}
	}
}
