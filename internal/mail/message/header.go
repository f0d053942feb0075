package message

import "bytes"

// maxHeader is how long a header may be; of a longer one it is not sure who reads it to its end.
const maxHeader = 256 << 10

// maxTyped bounds how much of the fields that could be Content-Type is looked at as a whole.
const maxTyped = 8 << 10

// header is what a part's header declares, under every reading of it.
type header struct {
	size       int    // of its lines
	lower      []byte // the line that is read, in lower case
	boundaries []string
	transfer   int  // how many Content-Transfer-Encoding fields there are, misspelt ones included
	base64     bool // one of them could mean base64
	quoted     bool // one of them could mean quoted-printable
	uu         bool // one of them could mean uuencode
	unsure     bool // such a field has a value that is none, or is folded
	odd        bool // something in it is not as it should be, so that nothing that it says is believed
	coded      bool // the field that is being read is about the encoding
	message    bool // it could be, for somebody, a message or a multipart

	// What follows is about Content-Type alone, and fields that could be meant to be.
	typing  bool   // the field that is being read is one
	types   int    // how many there are
	typed   []byte // their values in lower case, as far as maxTyped
	partial bool   // message/partial

	// What finish finds out.
	holds       bool // it is something that could have parts
	isMessage   bool // it is message/rfc822, or like it, to everybody
	isMultipart bool // it is a multipart with one boundary to everybody
	isReport    bool // and a multipart/report (RFC 6522)
}

func (h *header) reset() { *h = header{lower: h.lower[:0], typed: h.typed[:0]} }

// flags returns the header without what was read of it.
func (h *header) flags() header {
	out := *h
	out.lower, out.typed, out.boundaries = nil, nil, nil
	return out
}

// encoded says whether a body under it could be encoded, by what it declares.
func (h *header) encoded() bool { return h.base64 || h.quoted || h.uu || h.unsure }

// lowered returns lowered(text), until the next line.
func (h *header) lowered(text []byte) []byte {
	h.lower = appendLowered(h.lower[:0], text)
	return h.lower
}

var plainCodings = map[string]bool{"7bit": true, "8bit": true, "binary": true, "base64": true, "quoted-printable": true}

// line takes a line of the header, continuation lines included.
func (h *header) line(text []byte) {
	h.size += len(text) + 1
	h.odd = h.odd || h.size > maxHeader
	lower := h.lowered(text)
	h.boundary(text, lower)
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
	if h.typing = bytes.Contains(name, []byte("typ")); h.typing {
		h.types++
		h.typeLine(value)
	}
}

// continuation takes a line that belongs to the field before. Only fields that matter make the header odd.
func (h *header) continuation(lower []byte) {
	h.unsure = h.unsure || h.coded
	h.odd = h.odd || h.unsure || speaksOfCoding(lower)
	h.coding(lower)
	if h.typing {
		h.typeLine(lower)
	}
}

// typeLine takes a line of a field that could be Content-Type.
func (h *header) typeLine(lower []byte) {
	if len(h.typed)+len(lower) >= maxTyped {
		h.types += 2 // it means nothing to everybody
		h.partial = h.partial || bytes.Contains(lower, []byte("partial"))
		return
	}
	h.typed = append(append(h.typed, lower...), '\n')
}

// finish finds out what takes the whole header. It may be called again.
func (h *header) finish() {
	if h.types == 0 {
		return
	}
	h.partial = h.partial || isPartial(h.typed)
	h.holds = h.types > 2 || speaksOfMessage(h.typed)
	value := bytes.TrimSpace(h.typed)
	if h.types > 1 {
		return
	}
	h.isMessage = bytes.HasPrefix(value, []byte("message/rfc822")) || bytes.HasPrefix(value, []byte("message/global"))
	h.isMultipart = bytes.HasPrefix(value, []byte("multipart/")) && len(h.boundaries) > 0 && len(h.boundaries) <= maxCandidates
	for _, b := range h.boundaries {
		h.isMultipart = h.isMultipart && b == h.boundaries[0]
	}
	h.isReport = h.isMultipart && bytes.HasPrefix(value, []byte("multipart/report"))
}

// isPartial says whether the value of a Content-Type field says message/partial to somebody, comments, white space and encoded words
// allowed for, and has what RFC 2046 (5.2.2) wants with it: nobody puts together what has neither number nor identifier.
func isPartial(value []byte) bool {
	if !bytes.Contains(value, []byte("number")) && !bytes.Contains(value, []byte("total")) && !bytes.Contains(value, []byte("id")) {
		return false
	}
	for {
		_, rest, ok := bytes.Cut(value, []byte("message"))
		if !ok {
			return false
		}
		value = rest
		for len(rest) > 0 {
			switch c := rest[0]; {
			case c == '(':
				_, rest, _ = bytes.Cut(rest, []byte(")"))
				continue
			case bytes.HasPrefix(rest, []byte("=2f")), bytes.HasPrefix(rest, []byte("%2f")):
				rest = rest[3:]
				continue
			case c <= ' ', c == '/', c == '"', c == '\\', c == ')':
				rest = rest[1:]
				continue
			}
			break
		}
		if bytes.HasPrefix(rest, []byte("partial")) {
			return true
		}
	}
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

// maxCandidates bounds what one header declares.
const maxCandidates = 50

func (h *header) add(value []byte) {
	if len(h.boundaries) > maxCandidates {
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
