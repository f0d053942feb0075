package message

import (
	"bytes"
	"errors"

	"lazaret/internal/content"
	"lazaret/internal/spool"
)

// section is the text between two lines that could be delimiters, with everything that decodes it.
type section struct {
	e      *finder
	header header
	nested bool // it has what looks like the header of a part
	clear  bool // its header stands where all programs must see one
	cut    bool // a mail server has cut it off
	again  bool // it has been read in pieces, and is no text to anybody
	looks  looks
	raw    *raw
	base64 *base64Ways
	quoted *quotedPrintable
	files  *embedded
}

// decoder is one way of reading a section, of which there are no more lines.
type decoder interface {
	// end returns the reading.
	end() *spool.Writer
	// name is what the reading is called in a path.
	name() string
	// wanted says whether the reading makes sense, now that the whole section is known.
	wanted(s *section) bool
}

func newSection(e *finder, h header) *section {
	s := &section{
		e: e, header: h, files: newEmbedded(e),
		raw: &raw{w: newSink(e)}, base64: newBase64Ways(e, h.base64 || h.unsure), quoted: &quotedPrintable{e: e, w: newSink(e)},
	}
	if h.uu {
		s.files.openUU() // there are clients that need no "begin" then, PHP's convert_uudecode in webmail
	}
	return s
}

func (s *section) line(l line, text []byte) {
	s.looks.line(text)
	if !s.again {
		s.raw.line(l)
	}
	s.base64.line(l, text)
	s.quoted.line(l, text)
	s.files.line(l, bytes.TrimRight(l.text, "\r\n")) // spaces at the end count in uuencode and yEnc
}

// decoders returns every reading of the section, the text as it stands first.
func (s *section) decoders() []decoder {
	out := []decoder{s.raw}
	for _, d := range s.base64.readings() {
		out = append(out, d)
	}
	out = append(out, s.quoted)
	if s.quoted.toLF != nil {
		out = append(out, s.quoted.toLF)
	}
	return out
}

// end hands on every reading that makes sense. Its error is Fatal.
func (s *section) end(path string) error {
	defer s.discard() // whatever an error leaves
	for i, d := range s.decoders() {
		w := d.end()
		if !d.wanted(s) {
			continue
		}
		s.e.message = i > 0 && s.header.message // the first is the text as it stands
		if err := s.e.EmitPart(w, content.Part{Path: path + d.name(), Guess: s.files.guess, Cut: s.cut}, nil); err != nil {
			return err
		}
	}
	if err := errors.Join(s.base64.err, s.quoted.err); err != nil {
		return err
	}
	return s.files.end(path)
}

// isBase64 says whether the section is base64 and nothing else, under a header that says so to everybody.
func (s *section) isBase64() bool {
	return s.clear && s.header.base64 && !s.header.odd && s.looks.pure == s.looks.chars
}

// discard gives back what was not handed on.
func (s *section) discard() {
	for _, d := range s.decoders() {
		d.end().Discard()
	}
	s.files.discard()
}

// raw is text as it stands.
type raw struct {
	w *sink
	// held is the end of the last line: the one before a delimiter belongs to the delimiter.
	held []byte
}

func (r *raw) name() string         { return "" }
func (r *raw) wanted(*section) bool { return true }
func (r *raw) end() *spool.Writer   { return r.w.end() }

func (r *raw) line(l line) {
	r.w.write(r.held)
	end := len(l.text)
	for end > 0 && (l.text[end-1] == '\n' || l.text[end-1] == '\r') && len(l.text)-end < 2 {
		end--
	}
	r.w.write(l.text[:end])
	r.held = append(r.held[:0], l.text[end:]...)
}

// looks collects what a section looks like.
type looks struct {
	chars    int // all but white space
	spaces   int
	alphabet int // of base64
	pureLong int // lines of base64 alone, long enough not to be a word
	pure     int // characters on lines of base64 alone
	escapes  int // "=XX"
	soft     int // lines that end in "="
}

// add adds what another section looks like.
func (k *looks) add(o *looks) {
	k.chars, k.spaces, k.alphabet = k.chars+o.chars, k.spaces+o.spaces, k.alphabet+o.alphabet
	k.pureLong, k.pure, k.escapes, k.soft = k.pureLong+o.pureLong, k.pure+o.pure, k.escapes+o.escapes, k.soft+o.soft
}

func (k *looks) line(text []byte) {
	alphabet, other := 0, 0
	for i, c := range text {
		switch {
		case sextets[c] < 64:
			alphabet++
		case c == ' ' || c == '\t':
			k.spaces++
			other++
		case c != '=':
			other++
		case i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]):
			k.escapes++
		}
	}
	k.alphabet += alphabet
	k.chars += len(text)
	if other == 0 && alphabet > 0 {
		k.pure += len(text)
		if alphabet >= 20 {
			k.pureLong++
		}
	}
	if n := len(text); n > 0 && text[n-1] == '=' {
		k.soft++
	}
}

// base64 says whether the text could be base64, judged by itself: English has a space every six characters.
func (k *looks) base64() bool {
	if k.alphabet < 24 {
		return false
	}
	return k.pureLong > 0 || k.pure*2 > k.chars || k.alphabet*10 > k.chars*8 && k.spaces*20 < k.chars || k.spaces*3 > k.chars
}
