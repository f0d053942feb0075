package replacement

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"regexp"
	"strings"

	"lazaret/internal/mail/header"

	"golang.org/x/text/encoding/htmlindex"
)

// template is an operator's notice: the fields of its own, and a part or several.
type template struct {
	fields []templateField // without those that say how the body is written
	part   part
}

type templateField struct{ name, value string }

// part is a text that is expanded, several parts, or something that stays as it is.
type part struct {
	subtype string // of text/; "" for others
	text    string // UTF-8
	raw     []byte // fields, empty line and body of what stays as it is
	multi   string // "multipart/alternative" and so on; "" for others
	parts   []part
}

// maxDepth bounds parts in parts.
const maxDepth = 5

// reserved are fields that a template cannot bring: they are the original's, or written here.
var reserved = map[string]bool{
	"mime-version": true, "auto-submitted": true, "from": true, "to": true, "cc": true, "date": true, "message-id": true, "in-reply-to": true,
	"references": true, "received": true, "return-path": true, "sender": true, "reply-to": true,
}

// parseTemplate reads P3Scan's form: MIME headers, an empty line, the text, and maybe a lone dot at the end.
func parseTemplate(b []byte) (*template, error) {
	b = []byte(strings.ReplaceAll(string(b), "\r\n", "\n"))
	for _, end := range []string{"\n.\n", "\n."} {
		if cut, ok := bytes.CutSuffix(b, []byte(end)); ok {
			b = b[:len(cut)+1]
			break
		}
	}
	b = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
	h := header.Parse(b)
	if h.Body < 0 {
		return nil, errors.New("it has no empty line between its headers and its text: begin it with \"MIME-Version: 1.0\", \"Content-Type: text/plain; charset=utf-8\" and an empty line")
	}
	if len(h.Fields) == 0 && h.End > 0 {
		return nil, errors.New("what stands before the first empty line are no headers (\"Name: value\")")
	}
	t := &template{}
	for _, f := range h.Fields {
		if reserved[f.Name] || strings.HasPrefix(f.Name, "content-") {
			continue
		}
		t.fields = append(t.fields, templateField{string(f.Raw[:len(f.Name)]), f.Value()})
	}
	var err error
	t.part, err = parsePart(h, b, maxDepth)
	return t, err
}

// parsePart reads the part whose header h is, and which all of it is.
func parsePart(h header.Header, all []byte, depth int) (part, error) {
	body := all[h.Body:]
	typ, params, err := mime.ParseMediaType(h.Value("content-type"))
	if h.Value("content-type") == "" {
		typ, params, err = "text/plain", nil, nil
	}
	if err != nil {
		return part{}, fmt.Errorf("Content-Type: %w", err) //nolint:staticcheck // the field's name
	}
	subtype, isText := strings.CutPrefix(typ, "text/")
	switch {
	case strings.HasPrefix(typ, "multipart/"):
		return parseMulti(typ, params["boundary"], body, depth)
	case !isText:
		return part{raw: verbatim(h, body)}, nil
	}
	text, err := decode(h.Value("content-transfer-encoding"), body)
	if err != nil {
		return part{}, fmt.Errorf("Content-Transfer-Encoding: %w", err) //nolint:staticcheck // the field's name
	}
	p := part{subtype: subtype}
	p.text, err = toUTF8(params["charset"], text)
	return p, err
}

// verbatim returns a part that stays as it is: what its header says of the content, and the content.
func verbatim(h header.Header, body []byte) []byte {
	var out []byte
	for _, f := range h.Fields {
		if strings.HasPrefix(f.Name, "content-") {
			out = append(out, f.Raw...)
		}
	}
	return append(append(out, "\r\n"...), body...)
}

func parseMulti(typ, mark string, body []byte, depth int) (part, error) {
	if depth == 0 || mark == "" {
		return part{}, fmt.Errorf("%s: parts within parts within parts, or no boundary", typ)
	}
	p := part{multi: typ}
	r := multipart.NewReader(bytes.NewReader(body), mark)
	for {
		raw, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return part{}, fmt.Errorf("%s: %w", typ, err)
		}
		var all bytes.Buffer
		for name, values := range raw.Header {
			for _, v := range values {
				all.WriteString(name + ": " + v + "\r\n")
			}
		}
		all.WriteString("\r\n")
		if _, err := all.ReadFrom(raw); err != nil {
			return part{}, fmt.Errorf("%s: %w", typ, err)
		}
		sub, err := parsePart(header.Parse(all.Bytes()), all.Bytes(), depth-1)
		if err != nil {
			return part{}, err
		}
		p.parts = append(p.parts, sub)
	}
	if len(p.parts) == 0 {
		return part{}, fmt.Errorf("%s has no parts", typ)
	}
	return p, nil
}

func decode(encoding string, body []byte) ([]byte, error) {
	switch strings.ToLower(encoding) {
	case "base64":
		return io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(body)))
	case "quoted-printable":
		return io.ReadAll(quotedprintable.NewReader(bytes.NewReader(body)))
	case "", "7bit", "8bit", "binary":
		return body, nil
	}
	return nil, fmt.Errorf("%q is none that there is", encoding)
}

// toUTF8 reads text in that charset; none means that it is UTF-8 where it can be, and ISO 8859-1 otherwise, as in P3Scan's.
func toUTF8(charset string, text []byte) (string, error) {
	if charset == "" || strings.EqualFold(charset, "us-ascii") {
		if strings.ToValidUTF8(string(text), "") == string(text) {
			return string(text), nil
		}
		charset = "iso-8859-1"
	}
	e, err := htmlindex.Get(charset)
	if err != nil {
		return "", fmt.Errorf("charset %q is not known: write utf-8", charset)
	}
	out, err := e.NewDecoder().Bytes(text)
	if err != nil {
		return "", fmt.Errorf("the text is no %s: %w", charset, err)
	}
	if strings.ContainsRune(string(out), '\ufffd') {
		return "", fmt.Errorf("the text is no %s: write the charset that it is in into its Content-Type", charset)
	}
	return string(out), nil
}

var macro = regexp.MustCompile(`%([A-Z0-9]+)%`)

// expand puts values in the place of macros, once: what a value has in it is not expanded. Unknown ones stay.
func expand(text string, values map[string]string, escape func(string) string) string {
	return macro.ReplaceAllStringFunc(text, func(m string) string {
		v, ok := values[m[1:len(m)-1]]
		if !ok {
			return m
		}
		return escape(v)
	})
}

func asIs(s string) string { return s }

// append adds the notice to b, which has the fields that were kept. The template's subject, if it has one, comes before the
// one given.
func (t *template) append(b []byte, subject string, values map[string]string) []byte {
	own := false
	for _, f := range t.fields {
		own = own || strings.EqualFold(f.name, "subject")
		b = append(b, f.name+": "+header.Encode(expand(header.Decode(f.value), values, asIs))+"\r\n"...)
	}
	if !own {
		b = append(b, "Subject: "+header.Encode(subject)+"\r\n"...)
	}
	b = append(b, "MIME-Version: 1.0\r\n"...)
	return t.part.append(b, values)
}

func (p part) append(b []byte, values map[string]string) []byte {
	switch {
	case p.multi != "":
		mark := boundary()
		b = append(b, "Content-Type: "+p.multi+"; boundary=\""+mark+"\"\r\n\r\n"...)
		for _, sub := range p.parts {
			b = append(b, "\r\n--"+mark+"\r\n"...)
			b = sub.append(b, values)
		}
		return append(b, "\r\n--"+mark+"--\r\n"...)
	case p.raw != nil:
		return append(b, p.raw...)
	case p.subtype == "html":
		return appendText(b, p.subtype, expand(p.text, values, html.EscapeString))
	}
	return appendText(b, p.subtype, expand(p.text, values, asIs))
}
