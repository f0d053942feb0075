// Package header reads the header of a mail message or of a MIME part (RFC 5322, 2.2; RFC 2045) the way that editing needs:
// where each field begins and ends, byte for byte, and whether everybody would read it alike.
package header

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
)

// Field is a field of a header, with all its lines.
type Field struct {
	Name  string // lower case
	Start int    // of its first byte, from the beginning of the header
	End   int    // behind its last line end
	Raw   []byte
}

// Value returns what follows the colon, on one line (RFC 5322, 2.2.3), with white space at its ends removed.
func (f Field) Value() string {
	_, v, _ := bytes.Cut(f.Raw, []byte(":"))
	lines := bytes.FieldsFunc(v, func(r rune) bool { return r == '\r' || r == '\n' })
	return strings.TrimSpace(string(bytes.Join(lines, nil)))
}

// Header is a header that was read.
type Header struct {
	Fields []Field
	// End is where its last field ends; Body is where the body begins, behind the empty line. Body is -1 where the text ended
	// before an empty line.
	End, Body int
	// Odd says that not everybody reads it alike: line ends other than CRLF, control characters, lines that are no fields,
	// continuations that are blank or belong to nothing.
	Odd bool
}

// Parse reads the header at the beginning of text. It reads what it can: lines that end in a bare LF count as lines, and
// what is no field is skipped, but Odd says so.
func Parse(text []byte) Header {
	h := Header{Body: -1}
	for at := 0; at < len(text); {
		n := bytes.IndexByte(text[at:], '\n') + 1
		if n == 0 {
			h.Odd = true
			n = len(text) - at
		}
		line := text[at : at+n]
		bare, crlf := bytes.CutSuffix(line, []byte("\r\n"))
		if !crlf {
			h.Odd = true
			bare = bytes.TrimSuffix(line, []byte("\n"))
		}
		if len(bare) == 0 {
			h.End, h.Body = at, at+n
			return h
		}
		h.line(text, bare, at, at+n)
		at += n
	}
	h.End = len(text)
	return h
}

// line takes one line that is not empty.
func (h *Header) line(text, bare []byte, start, end int) {
	if !printable(bare) {
		h.Odd = true
	}
	if bare[0] == ' ' || bare[0] == '\t' {
		if len(h.Fields) == 0 || len(bytes.TrimSpace(bare)) == 0 || h.Fields[len(h.Fields)-1].End != start {
			h.Odd = true
			return
		}
		f := &h.Fields[len(h.Fields)-1]
		f.End, f.Raw = end, text[f.Start:end]
		return
	}
	name, ok := nameOf(bare)
	if !ok {
		h.Odd = true
		return
	}
	h.Fields = append(h.Fields, Field{Name: name, Start: start, End: end, Raw: text[start:end]})
}

// Leading returns the fields at the beginning of text, up to the empty line, to what is no field, or to a line that has no end yet. Only
// lines that end in CRLF and have no control characters in them count: others are not the same to every reader.
func Leading(text []byte) (list []Field) {
	end := 0
	for end < len(text) {
		start := end
		end += bytes.IndexByte(text[start:], '\n') + 1
		line, crlf := bytes.CutSuffix(text[start:end], []byte("\r\n"))
		if !crlf || len(line) == 0 || !printable(line) {
			return list
		}
		if line[0] == ' ' || line[0] == '\t' {
			if len(list) == 0 || len(bytes.TrimSpace(line)) == 0 {
				return list
			}
			f := &list[len(list)-1]
			f.End, f.Raw = end, text[f.Start:end]
			continue
		}
		name, ok := nameOf(line)
		if !ok {
			return list
		}
		list = append(list, Field{Name: name, Start: start, End: end, Raw: text[start:end]})
	}
	return list
}

func printable(text []byte) bool {
	for _, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// nameOf returns the name of a field in lower case (RFC 5322, 3.6.8).
func nameOf(text []byte) (string, bool) {
	colon := bytes.IndexByte(text, ':')
	if colon <= 0 || colon > 100 {
		return "", false
	}
	for _, c := range text[:colon] {
		if c <= ' ' || c >= 0x7f {
			return "", false
		}
	}
	return string(bytes.ToLower(text[:colon])), true
}

// All returns the fields of that name (lower case), in their order.
func (h Header) All(name string) []Field {
	var out []Field
	for _, f := range h.Fields {
		if f.Name == name {
			out = append(out, f)
		}
	}
	return out
}

// Value returns the value of the first field of that name (lower case); empty where there is none.
func (h Header) Value(name string) string {
	for _, f := range h.Fields {
		if f.Name == name {
			return f.Value()
		}
	}
	return ""
}

// maxEncoded bounds what is read out of one encoded word.
const maxEncoded = 64 << 10

var words = mime.WordDecoder{CharsetReader: func(charset string, in io.Reader) (io.Reader, error) {
	e, err := htmlindex.Get(charset)
	if err != nil {
		return nil, err
	}
	return io.LimitReader(e.NewDecoder().Reader(in), maxEncoded), nil
}}

// Decode returns a value with its encoded words (RFC 2047) as UTF-8; what cannot be decoded stays as it is. The result is as
// hostile as the value: it may have line ends and anything else in it.
func Decode(value string) string {
	s, err := words.DecodeHeader(value)
	if err != nil {
		return value
	}
	return s
}

// maxWord is how many bytes of text go into one encoded word, which may have 75 characters (RFC 2047, 2).
const maxWord = 42

// Encode returns a text as the value of an unstructured field (RFC 2047): as it is where it is plain ASCII that nobody could
// take for an encoded word, and as encoded words otherwise, folded. Line ends and other control characters never come through
// as such.
func Encode(text string) string {
	plain := !strings.Contains(text, "=?") && len(text) <= 900 && text == strings.TrimSpace(text)
	for i := 0; plain && i < len(text); i++ {
		plain = text[i] >= ' ' && text[i] <= '~'
	}
	if plain {
		return text
	}
	var out []string
	word := ""
	flush := func() {
		if word != "" {
			out = append(out, "=?utf-8?B?"+base64.StdEncoding.EncodeToString([]byte(word))+"?=")
			word = ""
		}
	}
	for _, r := range strings.ToValidUTF8(text, "\ufffd") {
		if len(word)+len(string(r)) > maxWord {
			flush()
		}
		word += string(r)
	}
	flush()
	return strings.Join(out, "\r\n ")
}
