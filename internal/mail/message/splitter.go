package message

import (
	"bytes"
	"fmt"
)

// maxBoundaries bounds how many declared boundaries are remembered; with more, every line that begins with "--" counts.
const maxBoundaries = 1000

// maxBoundary bounds the length of one. RFC 2046 (5.1.1) allows 70 characters; a longer one than this fits into no line.
const maxBoundary = 1000

// maxOpen bounds how many multiparts inside each other are followed.
const maxOpen = 100

// splitter cuts a message into sections and feeds each to its decoders.
type splitter struct {
	e          *finder
	under      string // what is put before the names of parts
	boundaries map[string]struct{}
	lengths    map[int]struct{} // of the boundaries
	// open are the boundaries of the multiparts that are open, the innermost last, as far as all programs must read them alike.
	open   []string
	number int

	inHeader bool
	started  bool
	header   header
	clear    bool // the header stands where all programs must see one
	real     bool // it is the header of the mail or of a part, and no text that has something like one in it
	section  *section
	lead     bool // of the section's text there was nothing yet but what could be a header
	armoured bool // the line that could be a delimiter begins an OpenPGP message
	field    bool // the line before was one of a header that was found in a body

	report   bool // the mail is a multipart/report
	returned bool // the message that it returns has begun

	whole   *stretch // from one declared delimiter to the next
	long    *stretch // from one delimiter that is one to all programs to the next; nil: it would be whole
	partial bool
}

// line takes the next line. Its error is Fatal.
func (s *splitter) line(l line) error {
	if !s.started {
		s.started, s.inHeader, s.clear, s.real = true, true, true, true
	}
	text := l.trimmed()
	if l.first && len(text) > 2 && text[0] == '-' && text[1] == '-' {
		if err := s.delimiter(text[2:]); err != nil {
			return err
		}
		s.stretch(l)
		return nil
	}
	s.stretch(l)
	if s.inHeader {
		return s.headerLine(l, text)
	}
	s.nested(l, text)
	if s.section.nested && l.first && len(text) == 0 {
		if err := s.endNested(); err != nil {
			return err
		}
	}
	s.section.line(l, text)
	return nil
}

// stretch adds a line to what goes on whatever it is.
func (s *splitter) stretch(l line) {
	if s.whole != nil {
		s.whole.line(l)
	}
	if s.long != nil {
		s.long.line(l)
	}
}

func (s *splitter) headerLine(l line, text []byte) error {
	switch {
	case l.first && len(text) == 0:
		s.beginBody(0)
	case !l.first, l.text[0] == ' ', l.text[0] == '\t':
		s.header.line(text)
	default:
		if _, ok := fieldName(text); ok {
			s.header.line(text)
			return nil
		}
		// No header any more, and no empty line before: some take it for the body. Where there was no header at all, the line
		// before was hardly a delimiter.
		s.header.odd = s.header.odd || s.header.size > 0 || speaksOfCoding(s.header.lowered(text))
		s.clear = false
		isNew := s.whole == nil
		s.beginBody(len(l.text))
		if isNew {
			s.whole.line(l)
		}
		s.section.line(l, text)
	}
	return nil
}

// beginsHeader says whether a line in a body looks like the header of a part.
func beginsHeader(text []byte) bool {
	name, ok := fieldName(text)
	return ok && (bytes.HasPrefix(name, []byte("content-")) || string(name) == "mime-version")
}

// nested looks for a header in a body. A part may begin where no delimiter is: message/rfc822, a delimiter that only another reading
// sees. What there is so far is a section, and goes on being one in the reading that sees no header here.
func (s *splitter) nested(l line, text []byte) {
	switch {
	case l.first && beginsHeader(text):
		if !s.field {
			s.header.reset()
			s.field, s.section.nested = true, true
		}
		s.header.line(text)
		return
	case s.field && len(text) > 0 && continues(l, text):
		s.header.line(text)
		return
	}
	s.field = false
	if s.lead && len(text) > 0 && !continues(l, text) && !bytes.HasPrefix(text, []byte("From ")) {
		s.lead = false
	}
}

// continues says whether a line could be one of a header that has begun.
func continues(l line, text []byte) bool {
	if !l.first || l.text[0] == ' ' || l.text[0] == '\t' {
		return true
	}
	_, ok := fieldName(text)
	return ok
}

// endNested ends a header that was found in a body.
func (s *splitter) endNested() error {
	s.field = false
	parent := s.section.header
	s.clear = s.lead && s.section.clear && parent.isMessage && !parent.encoded()
	s.real = s.lead && parent.holds
	if err := s.closeSection(); err != nil {
		return err
	}
	s.returned = s.returned || s.report && s.clear && len(s.open) == 1
	s.openSection()
	for _, t := range []*stretch{s.whole, s.long} {
		if t == nil {
			continue
		}
		t.cuts++
		t.parts++
		if s.lead {
			t.begin(&s.header, 0)
		}
	}
	return nil
}

// beginBody begins a body. back is how much of it the stretches have already.
func (s *splitter) beginBody(back int) {
	s.inHeader, s.lead, s.field = false, back == 0, false
	s.openSection()
	for _, t := range []*stretch{s.whole, s.long} {
		if t != nil && s.header.size > 0 {
			t.parts++
			t.begin(&s.header, int64(back))
		}
	}
	if s.whole == nil {
		s.whole = newStretch(s.e, &s.header)
	}
}

// openSection begins a section under the header that was read.
func (s *splitter) openSection() {
	s.number++
	h := &s.header
	h.finish()
	s.partial = s.partial || h.partial && s.real
	for _, b := range h.boundaries {
		if len(s.boundaries) < maxBoundaries {
			s.boundaries[b] = struct{}{}
			s.lengths[len(b)] = struct{}{}
		}
	}
	if s.clear && h.isMultipart && !h.encoded() && len(s.open) < maxOpen {
		s.report = s.report || h.isReport && s.number == 1
		s.open = append(s.open, h.boundaries[0])
	}
	s.section = newSection(s.e, *h)
	s.section.clear = s.clear
	if s.armoured {
		s.section.files.openArmour(false)
	}
	s.armoured = false
}

// path returns the name of the part that is read.
func (s *splitter) path() string { return fmt.Sprintf("%spart %d", s.under, max(1, s.number)) }

func (s *splitter) closeSection() error {
	if s.section == nil {
		return nil
	}
	if s.whole != nil {
		s.whole.saw(s.section)
	}
	if s.long != nil {
		s.long.saw(s.section)
	}
	err := s.section.end(s.path())
	s.section = nil
	return err
}

// discard gives back what a reading that was broken off holds.
func (s *splitter) discard() {
	if s.section != nil {
		s.section.discard()
	}
	for _, t := range []*stretch{s.whole, s.long} {
		if t != nil {
			t.text.w.discard()
		}
	}
}

// delimiter ends the section: the line could be one.
func (s *splitter) delimiter(name []byte) error {
	depth := len(s.open)
	isClear, isLast := s.isClear(name)
	if isLast && len(s.open) == 0 {
		s.noteCut(depth)
	}
	if err := s.closeSection(); err != nil {
		return err
	}
	declared := isClear || s.declared(name)
	s.returned = s.returned && len(s.open) > 1
	s.real = declared || s.whole == nil || s.whole.bodies[0].header.holds
	s.clear = isClear && !isLast
	switch {
	case isClear:
		if err := s.endStretch(&s.whole); err != nil {
			return err
		}
		if err := s.endStretch(&s.long); err != nil {
			return err
		}
	case declared && s.whole != nil:
		if s.long == nil {
			var err error
			if s.long, err = s.whole.fork(s.e); err != nil {
				return err
			}
		}
		s.long.cuts++
		if err := s.endStretch(&s.whole); err != nil {
			return err
		}
	default:
		for _, t := range []*stretch{s.whole, s.long} {
			if t != nil {
				t.cut(name)
			}
		}
	}
	s.armoured = bytes.HasPrefix(name, []byte(armourBegin[2:]))
	s.inHeader = true
	s.header.reset()
	return nil
}

// noteCut notes, at the end of a mail, whether it returns a message that was cut off within the section. depth is how many multiparts
// were open: one in the message that has no end is how it shows.
func (s *splitter) noteCut(depth int) {
	if s.section != nil && s.returned && depth > 1 {
		s.section.cut = s.section.isBase64()
	}
}

// isClear says whether name is that of a delimiter of an open multipart to all programs, and whether it is the multipart's last.
func (s *splitter) isClear(name []byte) (ok, last bool) {
	for i := len(s.open) - 1; i >= 0; i-- {
		rest, ok := bytes.CutPrefix(name, []byte(s.open[i]))
		switch {
		case !ok:
		case len(rest) == 0:
			s.open = s.open[:i+1]
			return true, false
		case string(rest) == "--":
			s.open = s.open[:i]
			return true, true
		}
	}
	return false, false
}

// declared says whether name begins with a declared boundary: RFC 2046 says "is", clients say "begins with".
func (s *splitter) declared(name []byte) bool {
	if len(s.boundaries) >= maxBoundaries {
		return true
	}
	for n := range s.lengths {
		if n > len(name) {
			continue
		}
		if _, ok := s.boundaries[string(name[:n])]; ok {
			return true
		}
	}
	return false
}

func (s *splitter) end() error {
	if s.inHeader {
		// A header without a body, or one that some reader takes for a body.
		s.header.finish()
		s.partial = s.partial || s.header.partial && s.real
	}
	s.noteCut(len(s.open))
	if err := s.closeSection(); err != nil {
		return err
	}
	if err := s.endStretch(&s.whole); err != nil {
		return err
	}
	return s.endStretch(&s.long)
}
