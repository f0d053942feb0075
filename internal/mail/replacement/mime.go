package replacement

import (
	"bytes"
	"crypto/rand"
	"html"
	"mime/quotedprintable"
	"strings"
)

// appendQuoted adds text in quoted-printable (RFC 2045, 6.7), with lines that end in CRLF.
func appendQuoted(b []byte, text string) []byte {
	var buf bytes.Buffer
	w := quotedprintable.NewWriter(&buf)
	_, _ = w.Write([]byte(text)) // a buffer takes everything
	_ = w.Close()
	return append(b, buf.Bytes()...)
}

// lines returns text with every line end as CRLF, and one at its end.
func lines(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\r\n") + "\r\n"
}

func boundary() string { return "=_notice_" + rand.Text() }

// appendText adds a text as a part: its own fields, the empty line, and its body.
func appendText(b []byte, subtype, text string) []byte {
	b = append(b, "Content-Type: text/"+subtype+"; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"...)
	return appendQuoted(b, lines(text))
}

// appendBuiltIn adds the built-in notice: the fields that say what it is, and text and HTML as alternatives (RFC 2046, 5.1.4).
func appendBuiltIn(b []byte, p page) []byte {
	mark := boundary()
	b = append(b, "MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=\""+mark+"\"\r\n\r\n"...)
	b = append(b, "--"+mark+"\r\n"...)
	b = appendText(b, "plain", p.text())
	b = append(b, "\r\n--"+mark+"\r\n"...)
	b = appendText(b, "html", p.html())
	return append(b, "\r\n--"+mark+"--\r\n"...)
}

func (p page) text() string {
	var b strings.Builder
	b.WriteString(p.title + "\n\n" + p.why + "\n\n")
	for _, r := range p.rows {
		b.WriteString("  " + r[0] + strings.TrimRight(p.colon, " ") + "\n    " + r[1] + "\n")
	}
	b.WriteString("\n" + p.do + "\n")
	if p.help != "" {
		b.WriteString("\n" + p.help + "\n")
	}
	b.WriteString("\n-- \n" + p.footer + "\n")
	return b.String()
}

// html returns the page for mail programs: no script, no style sheet, nothing from outside.
func (p page) html() string {
	e := html.EscapeString
	var b strings.Builder
	b.WriteString("<!DOCTYPE html>\n<html lang=\"" + e(p.lang) + "\">\n<head><meta charset=\"utf-8\"><title>" + e(p.title) + "</title></head>\n" +
		"<body style=\"font-family:sans-serif\">\n<h1 style=\"font-size:1.3em\">" + e(p.title) + "</h1>\n<p>" + e(p.why) + "</p>\n<table>\n")
	for _, r := range p.rows {
		b.WriteString("<tr><th scope=\"row\" style=\"text-align:left;vertical-align:top;padding-right:1em\">" + e(r[0]) +
			"</th><td style=\"overflow-wrap:anywhere\">" + e(r[1]) + "</td></tr>\n")
	}
	b.WriteString("</table>\n<p>" + e(p.do) + "</p>\n")
	if p.help != "" {
		b.WriteString("<p>" + e(p.help) + "</p>\n")
	}
	b.WriteString("<p><small>" + e(p.footer) + "</small></p>\n</body>\n</html>\n")
	return b.String()
}
