package envelope

import (
	"bufio"
	"encoding/base64"
	"io"
)

// text decodes the base64 of gRPC-Web's text form: pieces one after the other, each padded, as senders flush them. Anything else
// between or within them is an *Error.
type text struct {
	src  *bufio.Reader
	left []byte // decoded, not returned yet
	buf  [3]byte
	err  error
}

// textAhead is how much of a body is read at a time.
const textAhead = 4 << 10

func newText(r io.Reader) *text { return &text{src: bufio.NewReaderSize(r, textAhead)} }

// Read implements io.Reader.
func (t *text) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(t.left) == 0 {
			if n > 0 && t.src.Buffered() < 4 {
				break // what is here goes first: more may be long in coming
			}
			if t.next(); t.err != nil {
				break
			}
		}
		k := copy(p[n:], t.left)
		n, t.left = n+k, t.left[k:]
	}
	if n > 0 || len(p) == 0 {
		return n, nil // an error comes again
	}
	return 0, t.err
}

// next decodes four characters.
func (t *text) next() {
	if t.err != nil {
		return
	}
	var four [4]byte
	for i := range four {
		c, err := t.src.ReadByte()
		if err != nil {
			if t.err = err; err == io.EOF && i > 0 { //nolint:errorlint // io.Reader says that the end is io.EOF itself
				t.err = &Error{"the body's base64 ends within a group"}
			}
			return
		}
		if c == '\r' || c == '\n' {
			t.err = &Error{"the body is not base64"} // package base64 would skip it
			return
		}
		four[i] = c
	}
	n, err := base64.StdEncoding.Decode(t.buf[:], four[:])
	if err != nil {
		t.err = &Error{"the body is not base64"}
		return
	}
	t.left = t.buf[:n]
}
