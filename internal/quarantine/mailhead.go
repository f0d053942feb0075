package quarantine

import (
	"bytes"
	"io"
	"mime"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
)

// headBytes is how much of a mail is looked at for its header.
const headBytes = 64 << 10

// DescribeMail fills in From, To, Subject and Date from the header of a mail (RFC 5322), of which r gives the beginning. It is
// lenient: what cannot be read is left out. Encoded words (RFC 2047) are decoded.
func (e *Entry) DescribeMail(r io.Reader) {
	head, err := io.ReadAll(io.LimitReader(r, headBytes))
	if err != nil {
		return // described without it
	}
	want := map[string]*string{"from": &e.From, "to": &e.To, "subject": &e.Subject, "date": &e.Date}
	var last *string
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte("\n"))
		head = rest
		line = bytes.TrimRight(line, "\r")
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			if last != nil && len(*last) < 4*maxText {
				*last += " " + string(bytes.TrimSpace(line))
			}
			continue
		}
		last = nil
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		name = bytes.ToLower(bytes.TrimSpace(name))
		if p := want[string(name)]; p != nil && *p == "" {
			*p, last = string(bytes.TrimSpace(value)), p
		}
	}
	decoder := mime.WordDecoder{CharsetReader: func(charset string, input io.Reader) (io.Reader, error) {
		c, err := htmlindex.Get(charset)
		if err != nil {
			return nil, err
		}
		return c.NewDecoder().Reader(input), nil
	}}
	for _, p := range want {
		if text, err := decoder.DecodeHeader(*p); err == nil {
			*p = text
		}
		*p = bound(strings.Map(printable, *p), maxText)
	}
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}
