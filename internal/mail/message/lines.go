package message

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"lazaret/internal/spool"
)

// maxLine bounds what is looked at as one line; a longer one comes in pieces.
const maxLine = 64 << 10

// line is a line, or a piece of a long one.
type line struct {
	text  []byte // with its end, CRLF, LF or a lone CR
	first bool   // it begins where a line begins
}

// trimmed returns the text without its end and the white space before it.
func (l line) trimmed() []byte { return bytes.TrimRight(l.text, " \t\r\n") }

// lines cuts a stream at LF and at lone CR, because there are clients that do either.
type lines struct {
	r     *bufio.Reader // nil: what is left is in memory
	mem   []byte
	start bool
	rest  []byte
}

func newLines(b *spool.Blob) *lines {
	if mem, ok := b.Bytes(); ok {
		return &lines{mem: mem, start: true}
	}
	return newLinesOf(b.NewReader())
}

func newLinesOf(r io.Reader) *lines {
	return &lines{r: bufio.NewReaderSize(r, maxLine), start: true}
}

// slice returns what comes up to the next LF, or as much as is looked at as one line.
func (l *lines) slice() ([]byte, error) {
	if l.r != nil {
		piece, err := l.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil
		}
		return piece, err
	}
	n := min(len(l.mem), maxLine)
	if i := bytes.IndexByte(l.mem[:n], '\n'); i >= 0 {
		n = i + 1
	} else if n < maxLine {
		piece := l.mem[:n:n]
		l.mem = nil
		return piece, io.EOF
	}
	piece := l.mem[:n:n]
	l.mem = l.mem[n:]
	return piece, nil
}

// next returns the next piece, valid until the call after. With io.EOF may come a last one.
func (l *lines) next() (line, error) {
	var err error
	if len(l.rest) == 0 {
		l.rest, err = l.slice()
	}
	cut := len(l.rest)
	if i := bytes.IndexByte(l.rest, '\r'); i >= 0 && i+1 < len(l.rest) && l.rest[i+1] != '\n' {
		cut = i + 1
	}
	out := line{text: l.rest[:cut], first: l.start}
	l.rest = l.rest[cut:]
	if cut > 0 {
		last := out.text[cut-1]
		l.start = last == '\n' || last == '\r'
	}
	if len(l.rest) > 0 {
		return out, nil
	}
	return out, err
}

// fieldName returns the name of a header field in lower case, and whether the line begins with one (RFC 5322, 3.6.8). White
// space before the colon is let pass, as clients do.
func fieldName(text []byte) ([]byte, bool) {
	colon := bytes.IndexByte(text, ':')
	if colon <= 0 || colon > 100 {
		return nil, false
	}
	name := bytes.TrimRight(text[:colon], " \t")
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return nil, false
		}
	}
	return bytes.ToLower(name), len(name) > 0
}

// lowered returns text with its ASCII letters in lower case, byte for byte: bytes.ToLower changes the length of what is no
// ASCII, and with it what offsets mean.
func lowered(text []byte) []byte { return appendLowered(nil, text) }

func appendLowered(out, text []byte) []byte {
	n := len(out)
	out = append(out, text...)
	for i, c := range out[n:] {
		if 'A' <= c && c <= 'Z' {
			out[n+i] = c + 'a' - 'A'
		}
	}
	return out
}
