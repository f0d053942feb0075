package content

import (
	"bufio"
	"bytes"
	"io"
	"mime/quotedprintable"
	"strings"

	"lazaret/internal/spool"
)

// transferPeek is how much of a body says whether it is written in base64 or quoted-printable.
const transferPeek = 1 << 10

// transfer emits a body without its transfer encoding (RFC 2045, 6), declared or not. HTTP has none (RFC 9110, 8.4), but there are
// servers that send such a field, and clients that look at what they get.
func (f *finder) transfer(src Source) error {
	head, err := f.head(src.Blob)
	if err != nil {
		return err
	}
	head = head[:min(len(head), transferPeek)]
	declared := strings.ToLower(strings.TrimSpace(src.TransferEncoding))
	if declared == "base64" || isBase64Text(head) {
		if err := f.emit("as base64", "", &base64Reader{r: bufio.NewReader(src.Blob.NewReader())}); err != nil {
			return err
		}
	}
	if declared == "quoted-printable" || isQuotedText(head) {
		return f.guess("as quoted-printable", quotedprintable.NewReader(src.Blob.NewReader()))
	}
	return nil
}

// isBase64Text says whether text is nothing but base64, of either alphabet, and white space.
func isBase64Text(text []byte) bool {
	n := 0
	for _, c := range text {
		switch {
		case isBase64(c), c == '-', c == '_':
			n++
		case c == '=', c == '\r', c == '\n', c == ' ', c == '\t':
		default:
			return false
		}
	}
	return n >= minData
}

// isQuotedText says whether a good part of text is escapes of quoted-printable, or has lines that end with one.
func isQuotedText(text []byte) bool {
	escapes, soft := 0, 0
	for rest := text; ; {
		i := bytes.IndexByte(rest, '=')
		if i < 0 || i+2 >= len(rest) {
			break
		}
		rest = rest[i+1:]
		_, ok1 := hexDigit(rest[0])
		_, ok2 := hexDigit(rest[1])
		switch {
		case ok1 && ok2:
			escapes++
		case rest[0] == '\n', rest[0] == '\r' && rest[1] == '\n':
			soft++
		}
	}
	return escapes*10 > len(text) && escapes >= 8 || soft >= 2
}

// base64Reader decodes base64 as the most lenient do: of either alphabet, whatever else is in between left out, padding in the
// middle the end of a piece.
type base64Reader struct {
	r    *bufio.Reader
	bits uint32
	have uint // bits in bits: 0, 6, 4 or 2 between characters
}

// Read implements io.Reader.
func (d *base64Reader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c, err := d.r.ReadByte()
		if err != nil {
			if n > 0 && err == io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
				err = nil
			}
			return n, err
		}
		v, ok := sextet(c)
		if !ok {
			if c == '=' {
				d.bits, d.have = 0, 0
			}
			continue
		}
		d.bits, d.have = d.bits<<6|uint32(v), d.have+6
		if d.have >= 8 {
			d.have -= 8
			p[n] = byte(d.bits >> d.have) //nolint:gosec // the lowest eight bits are meant
			n++
		}
	}
	return n, nil
}

// sextet returns the value of a character of base64.
func sextet(c byte) (byte, bool) {
	switch {
	case c >= 'A' && c <= 'Z':
		return c - 'A', true
	case c >= 'a' && c <= 'z':
		return c - 'a' + 26, true
	case c >= '0' && c <= '9':
		return c - '0' + 52, true
	case c == '+', c == '-':
		return 62, true
	case c == '/', c == '_':
		return 63, true
	}
	return 0, false
}

// answerPeek is how long the head of an answer within a body may be.
const answerPeek = 16 << 10

// answer emits the content of a body that is itself an HTTP answer (message/http, RFC 9112, 10.1), in its codings: the other
// readings undo those.
func (f *finder) answer(b *spool.Blob) error {
	const version = "HTTP/"
	start, err := f.head(b)
	if err != nil || len(start) < len(version) || !bytes.EqualFold(start[:len(version)], []byte(version)) {
		return err
	}
	head := make([]byte, answerPeek)
	n, err := b.ReadAt(head, 0)
	if err != nil && n == 0 {
		return err
	}
	end := blankLine(head[:n])
	if end < 0 {
		return nil
	}
	return f.emit("the answer's content", "", io.NewSectionReader(b, int64(end), b.Size()-int64(end)))
}

// blankLine returns where the first blank line of text ends, -1 where there is none.
func blankLine(text []byte) int {
	end := -1
	for _, blank := range []string{"\r\n\r\n", "\n\n"} {
		if i := bytes.Index(text, []byte(blank)); i >= 0 && (end < 0 || i+len(blank) < end) {
			end = i + len(blank)
		}
	}
	return end
}
