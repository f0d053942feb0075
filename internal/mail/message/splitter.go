package message

import (
	"bytes"
	"fmt"
)

// maxBoundaries bounds how many declared boundaries are remembered; with more, every line that begins with "--" counts.
const maxBoundaries = 1000

// maxBoundary bounds the length of one. RFC 2046 (5.1.1) allows 70 characters; a longer one than this fits into no line.
const maxBoundary = 1000

// maxHeader is how much of one header is looked at for what it declares; the rest is read as text all the same.
const maxHeader = 256 << 10

// splitter cuts a message into sections and feeds each to its decoders.
type splitter struct {
	e          *finder
	under      string // what is put before the names of parts
	boundaries map[string]struct{}
	lengths    map[int]struct{} // of the boundaries
	number     int
	inHeader   bool
	started    bool
	header     header
	section    *section
	whole      *raw // from one declared delimiter to the next, whatever looks like one in between
	partial    bool
}

// line takes the next line. Its error is Fatal.
func (s *splitter) line(l line) error {
	if !s.started {
		s.started, s.inHeader = true, true
	}
	text := l.trimmed()
	if l.first && len(text) > 2 && text[0] == '-' && text[1] == '-' {
		if err := s.delimiter(text[2:]); err != nil {
			return err
		}
		if s.whole != nil {
			s.whole.line(l)
		}
		return nil
	}
	if s.whole != nil {
		s.whole.line(l)
	}
	if s.inHeader {
		return s.headerLine(l, text)
	}
	if l.first && beginsHeader(text) {
		// A part may begin where no delimiter is: message/rfc822, a delimiter that only another reading sees. What there is
		// so far is a section, and goes on being one in the reading that sees no header here.
		s.header.reset()
		s.header.nested = true
		s.header.line(text)
		s.section.nested = true
	}
	if s.section.nested && l.first && len(text) == 0 {
		if err := s.closeSection(); err != nil {
			return err
		}
		s.openSection()
	}
	s.section.line(l, text)
	return nil
}

func (s *splitter) headerLine(l line, text []byte) error {
	switch {
	case l.first && len(text) == 0:
		s.beginBody()
	case !l.first, l.text[0] == ' ', l.text[0] == '\t':
		s.header.line(text)
	default:
		if _, ok := fieldName(text); ok {
			s.header.line(text)
			return nil
		}
		// No header any more, and no empty line before: some take it for the body. Where there was no header at all, the line
		// before was hardly a delimiter.
		s.header.odd = s.header.odd || len(s.header.text) > 0 || speaksOfCoding(lowered(text))
		s.beginBody()
		s.section.line(l, text)
	}
	return nil
}

// beginsHeader says whether a line in a body looks like the header of a part.
func beginsHeader(text []byte) bool {
	name, ok := fieldName(text)
	return ok && (bytes.HasPrefix(name, []byte("content-")) || string(name) == "mime-version")
}

func (s *splitter) beginBody() {
	s.inHeader = false
	s.openSection()
	if s.whole == nil {
		s.whole = &raw{w: newSink(s.e)}
	}
}

// openSection begins a section under the header that was read.
func (s *splitter) openSection() {
	s.number++
	s.partial = s.partial || s.header.partial
	for _, b := range s.header.boundaries {
		if len(s.boundaries) < maxBoundaries {
			s.boundaries[b] = struct{}{}
			s.lengths[len(b)] = struct{}{}
		}
	}
	s.section = newSection(s.e, s.header)
}

// path returns the name of the part that is read.
func (s *splitter) path() string { return fmt.Sprintf("%spart %d", s.under, max(1, s.number)) }

func (s *splitter) closeSection() error {
	if s.section == nil {
		return nil
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
	if s.whole != nil {
		s.whole.w.discard()
	}
}

// delimiter ends the section: the line could be one.
func (s *splitter) delimiter(name []byte) error {
	if err := s.closeSection(); err != nil {
		return err
	}
	if s.declared(name) && s.whole != nil {
		w := s.whole.end()
		s.whole, s.e.message = nil, false
		if err := s.e.Emit(w, s.path(), "", nil); err != nil {
			return err
		}
	}
	s.inHeader = true
	s.header.reset()
	return nil
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
	path := s.path()
	if s.inHeader {
		// A header without a body, or one that some reader takes for a body.
		s.partial = s.partial || s.header.partial
	}
	if err := s.closeSection(); err != nil {
		return err
	}
	if s.whole == nil {
		return nil
	}
	w := s.whole.end()
	s.whole, s.e.message = nil, false
	return s.e.Emit(w, path, "", nil)
}

// header is what a part's header declares, under every reading of it.
type header struct {
	text       []byte // lower case, as far as maxHeader
	boundaries []string
	transfer   int  // how many Content-Transfer-Encoding fields there are, misspelt ones included
	base64     bool // one of them could mean base64
	quoted     bool // one of them could mean quoted-printable
	uu         bool // one of them could mean uuencode
	unsure     bool // such a field has a value that is none, or is folded
	odd        bool // something in it is not as it should be, so that nothing that it says is believed
	coded      bool // the field that is being read is about the encoding
	nested     bool // it was found inside a body
	partial    bool // message/partial
	message    bool // it could be, for somebody, a message or a multipart
}

func (h *header) reset() { *h = header{text: h.text[:0]} }

var plainCodings = map[string]bool{"7bit": true, "8bit": true, "binary": true, "base64": true, "quoted-printable": true}

// line takes a line of the header, continuation lines included.
func (h *header) line(text []byte) {
	if len(h.text)+len(text) > maxHeader {
		h.odd = true
		return
	}
	lower := lowered(text)
	h.text = append(append(h.text, lower...), '\n')
	h.boundary(text, lower)
	if bytes.Contains(lower, []byte("message/partial")) {
		h.partial = true
	}
	h.message = h.message || speaksOfMessage(lower)
	name, ok := fieldName(text)
	if !ok {
		h.continuation(lower)
		return
	}
	value := bytes.TrimSpace(lower[bytes.IndexByte(lower, ':')+1:])
	h.coded = bytes.Contains(name, []byte("encod")) || bytes.Contains(name, []byte("transfer"))
	switch {
	case string(name) == "content-transfer-encoding":
		h.transfer++
		h.unsure = h.unsure || h.transfer > 1 || !plainCodings[string(value)]
	case h.coded:
		h.unsure = true // nearly the field: somebody may take it for it
	}
	h.odd = h.odd || h.unsure
	h.coding(lower)
}

// continuation takes a line that belongs to the field before. Only fields that matter make the header odd.
func (h *header) continuation(lower []byte) {
	h.unsure = h.unsure || h.coded
	h.odd = h.odd || h.unsure || speaksOfCoding(lower)
	h.coding(lower)
}

// speaksOfCoding says whether a line could be, for somebody, a declaration of a transfer encoding.
func speaksOfCoding(lower []byte) bool {
	for _, w := range []string{"base64", "base-64", "quoted", "encod", "7bit", "8bit", "binary", "uue"} {
		if bytes.Contains(lower, []byte(w)) {
			return true
		}
	}
	return false
}

// speaksOfMessage says whether a line could declare a message or a multipart, by its type or by a name that could be ".eml".
func speaksOfMessage(lower []byte) bool {
	for _, w := range []string{"message/", "multipart/", "rfc822", ".eml", ".mht", ".nws", "=?", "%2e"} {
		if bytes.Contains(lower, []byte(w)) {
			return true
		}
	}
	return false
}

func (h *header) coding(lower []byte) {
	h.base64 = h.base64 || bytes.Contains(lower, []byte("base64"))
	h.quoted = h.quoted || bytes.Contains(lower, []byte("quoted-printable"))
	h.uu = h.uu || h.coded && bytes.Contains(lower, []byte("uu"))
}

// boundary collects what a boundary parameter could be meant to be: quoted, unquoted, cut at several characters.
func (h *header) boundary(text, lower []byte) {
	for at := 0; ; {
		i := bytes.Index(lower[at:], []byte("boundary"))
		if i < 0 {
			return
		}
		at += i + len("boundary")
		// RFC 2231 allows boundary*=, boundary*0=, boundary*0*=charset'language'value.
		eq := bytes.IndexByte(lower[at:], '=')
		if eq < 0 || eq > 8 {
			continue
		}
		value := bytes.TrimLeft(text[at+eq+1:], " \t")
		h.add(value)
		if i := bytes.LastIndexByte(value, '\''); i >= 0 {
			h.add(value[i+1:])
		}
	}
}

func (h *header) add(value []byte) {
	if len(h.boundaries) > 50 {
		return
	}
	if q := bytes.TrimLeft(value, `"'`); len(q) < len(value) {
		if end := bytes.IndexAny(q, `"'`); end > 0 && end <= maxBoundary {
			h.boundaries = append(h.boundaries, string(q[:end]))
		}
		value = q
	}
	if end := bytes.IndexAny(value, "; \t\""); end >= 0 {
		value = value[:end]
	}
	if len(value) > 0 && len(value) <= maxBoundary {
		h.boundaries = append(h.boundaries, string(value))
	}
}
