// Package mixed reads and writes the parts of multipart/x-mixed-replace: the pictures of a camera, one after the other, each of which
// takes the place of the one before. The form is that of RFC 2046 (5.1); cameras bend it in ways that are understood.
package mixed

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"mime"
	"strconv"
	"strings"
)

const (
	// maxHead bounds the head of a part, and what may stand before the first one.
	maxHead = 8 << 10
	// maxBoundary bounds a boundary. RFC 2046 has 70 characters; some have more.
	maxBoundary = 200
	// maxPadding bounds the white space behind a delimiter.
	maxPadding = 64
	// maxValue and maxFields bound the fields that go on besides the type. Nobody scans them.
	maxValue  = 128
	maxFields = 8
	// window is how much is read ahead.
	window = 32 << 10
)

// Boundary returns the boundary in a Content-Type, "" where there is none that can be used. It takes what cameras write without the
// quotes that it should have.
func Boundary(contentType string) string {
	b := ""
	if _, params, err := mime.ParseMediaType(contentType); err == nil {
		b = params["boundary"]
	} else {
		for param := range strings.SplitSeq(contentType, ";") {
			name, value, _ := strings.Cut(param, "=")
			if strings.EqualFold(strings.TrimSpace(name), "boundary") {
				b = strings.Trim(strings.TrimSpace(value), `"`)
				break
			}
		}
	}
	if len(b) > maxBoundary || strings.Trim(b, "-") == "" || !printable(b) || strings.TrimSpace(b) != b {
		return ""
	}
	return b
}

// Head is what is said of a part and goes on with it.
type Head struct {
	Type     string  // Content-Type, with a charset at most; "": not said, or malformed
	Transfer string  // Content-Transfer-Encoding, which goes no further
	Fields   []Field // whose name begins with X-, such as the time that a camera gives
	length   int64   // -1: not said
}

// Field is one line of a Head.
type Field struct{ Name, Value string }

// Error says how a body breaks the form.
type Error struct{ What string }

// Error implements error.
func (e *Error) Error() string { return e.What }

// Reader reads the parts of a body. It holds a window of 32 KiB, and is used by one goroutine.
type Reader struct {
	src    io.Reader
	marks  []mark
	store  []byte
	buf    []byte // of store: what was read and not used yet
	srcErr error  // what comes behind buf

	begun bool  // the first delimiter has been found
	last  bool  // the last one has
	open  bool  // within a part's content
	left  int64 // of that, by its Content-Length; -1: not said
	count int64 // how much of it has been given
	err   error

	sure int // bytes at the beginning of buf that are content
	brk  int // the line end behind them, of which that is not known; a line begins behind it
	line bool
}

// mark is a line that stands for a delimiter, and the one that is the last.
type mark struct{ part, end []byte }

func markOf(line string) mark { return mark{[]byte(line), []byte(line + "--")} }

// NewReader returns a Reader of body, in which boundary divides the parts. Cameras are known whose boundary has the two dashes of the
// delimiter already: one that begins with them is itself a delimiter, too.
func NewReader(body io.Reader, boundary string) *Reader {
	r := &Reader{src: body, marks: []mark{markOf("--" + boundary)}, store: make([]byte, window), line: true, left: -1}
	if strings.HasPrefix(boundary, "--") {
		r.marks = append(r.marks, markOf(boundary))
	}
	return r
}

// Next waits for the next part, whose content Read returns. What was left of the one before is skipped.
//
// The error is io.EOF where the body or its last part has ended, an *Error where the form is broken, or the body's own. It stays.
func (r *Reader) Next() (Head, error) {
	if r.err == nil && (r.open || !r.begun) {
		r.open = true // the preamble is a part without a head
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{r}); err != nil {
			r.err = err
		}
	}
	if r.err == nil && !r.last && !r.line {
		r.err = r.follow()
	}
	if r.err == nil && r.last {
		r.err = io.EOF
	}
	if r.err != nil {
		return Head{}, r.err
	}
	h, err := r.head()
	if err != nil {
		r.err = err
		return Head{}, err
	}
	r.open, r.line, r.left, r.count, r.brk = true, true, h.length, 0, 0
	return h, nil
}

// Read returns the content of the part, and io.EOF at its end. Other errors are those of Next.
func (r *Reader) Read(p []byte) (n int, err error) {
	if r.err != nil {
		return 0, r.err
	}
	for n < len(p) && r.open {
		if r.sure == 0 {
			wait, err := r.look()
			if err != nil {
				r.err = err
				return n, err
			}
			if wait && n > 0 {
				return n, nil
			}
			if wait {
				r.fill()
			}
			continue
		}
		k := copy(p[n:], r.buf[:r.sure])
		n += k
		r.use(k)
		r.sure -= k
		if r.count += int64(k); !r.begun && r.count > maxHead {
			r.err = &Error{"no part begins within the first 8 KiB"}
			return n, r.err
		}
	}
	if n == 0 && !r.open {
		return 0, io.EOF
	}
	return n, nil
}

// look finds out what of buf is content: some of it is, or the part has ended, or wait says that more must be there first.
func (r *Reader) look() (wait bool, err error) {
	data, whole := r.buf, r.srcErr != nil
	if r.left >= 0 {
		if left := r.left - r.count; int64(len(data)) >= left {
			data, whole = data[:left], true
			if left == 0 {
				r.open, r.line = false, false
				return false, nil
			}
		}
	}
	from := 0
	if r.line {
		n, last, is := r.delimiter(data[r.brk:], r.srcErr != nil && len(data) == len(r.buf))
		switch {
		case is == yes:
			r.use(r.brk + n)
			r.open, r.begun, r.last, r.brk = false, true, last, 0
			return false, nil
		case is == more && !whole:
			return true, nil
		}
		from, r.line = r.brk, false
		r.brk = 0
	}
	i := bytes.IndexByte(data[from:], '\n')
	if i < 0 {
		if r.sure = len(data); !whole && r.sure > from && data[r.sure-1] == '\r' {
			r.sure--
		}
		if r.sure > 0 {
			return false, nil
		}
		if r.srcErr != nil {
			return false, r.ended()
		}
		return true, nil
	}
	r.sure, r.brk, r.line = from+i, 1, true
	if i > 0 && data[r.sure-1] == '\r' {
		r.sure, r.brk = r.sure-1, 2
	}
	return false, nil
}

// ended returns what the end of the body means, where it is within the content of a part.
func (r *Reader) ended() error {
	switch {
	case r.srcErr != io.EOF: //nolint:errorlint // io.Reader says that the end is io.EOF itself
		return r.srcErr
	case !r.begun && r.count > 0:
		return &Error{"there is no part in it"}
	case r.left > 0:
		return &Error{"the body ends within a part"}
	}
	r.open, r.begun, r.last = false, true, true
	return nil
}

// follow reads the delimiter behind a part that has ended by its length.
func (r *Reader) follow() error {
	skipped := 0
	for {
		for skipped < 2 && len(r.buf) > 0 && (r.buf[0] == '\n' || r.buf[0] == '\r' && len(r.buf) > 1 && r.buf[1] == '\n') {
			r.use(bytes.IndexByte(r.buf, '\n') + 1)
			skipped++
		}
		n, last, is := r.delimiter(r.buf, r.srcErr != nil)
		switch {
		case is == yes:
			r.use(n)
			r.last, r.line = last, true
			return nil
		case r.srcErr != nil && len(r.buf) == 0:
			if r.srcErr == io.EOF { //nolint:errorlint // as above
				r.last = true
				return nil
			}
			return r.srcErr
		case r.srcErr == nil && (is == more || string(r.buf) == "\r"):
			r.fill()
		default:
			return &Error{"no delimiter follows where a part ends by its Content-Length"}
		}
	}
}

type match uint8

const (
	no match = iota
	yes
	more // it is not known yet
)

// delimiter says whether data, which begins a line, begins with a delimiter, of n bytes with the end of its line, and whether that is
// the last one. Whole says that nothing follows data.
func (r *Reader) delimiter(data []byte, whole bool) (n int, last bool, is match) {
	line, n := data, len(data)
	i := bytes.IndexByte(data[:min(len(data), maxBoundary+maxPadding)], '\n')
	if i >= 0 {
		line, n = data[:i], i+1
	}
	complete := i >= 0 || whole
	bare := bytes.TrimRight(line, " \t\r")
	for _, m := range r.marks {
		switch {
		case complete && bytes.Equal(bare, m.part):
			return n, false, yes
		case complete && bytes.Equal(bare, m.end):
			return n, true, yes
		case complete:
		case bytes.HasPrefix(m.end, line), bytes.HasPrefix(m.end, bare) && len(bare) >= len(m.part) && len(line) <= len(m.end)+maxPadding:
			is = more
		}
	}
	return 0, false, is
}

// head reads the lines from behind a delimiter to the blank one.
func (r *Reader) head() (Head, error) {
	h, size := Head{length: -1}, 0
	for {
		i := bytes.IndexByte(r.buf, '\n')
		if i < 0 && len(r.buf) <= maxHead && r.srcErr == nil {
			r.fill()
			continue
		}
		if i < 0 && r.srcErr != nil && r.srcErr != io.EOF { //nolint:errorlint // as above
			return h, r.srcErr
		}
		if _, last, is := r.delimiter(r.buf, r.srcErr != nil); is == yes && (last || i >= 0) {
			// There was no part; what was said of it is not said of the next one.
			h, size = Head{length: -1}, 0
			if last {
				r.last = true
				return h, io.EOF
			}
			r.use(i + 1)
			continue
		}
		switch {
		case i < 0 && len(r.buf) == 0 && size == 0:
			return h, io.EOF // they end so, too
		case i < 0 && r.srcErr != nil:
			return h, &Error{"the body ends within the head of a part"}
		case i < 0 || size+i > maxHead:
			return h, &Error{fmt.Sprintf("the head of a part is larger than %d KiB", maxHead>>10)}
		}
		line := string(bytes.TrimRight(r.buf[:i], "\r"))
		r.use(i + 1)
		if size += i + 1; line == "" {
			return h, nil
		}
		h.add(line)
	}
}

// add takes a line of the head.
func (h *Head) add(line string) {
	name, value, ok := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	if !ok || !printable(value) {
		return
	}
	switch lower := strings.ToLower(name); {
	case lower == "content-type":
		if h.Type == "" {
			h.Type = typeOf(value)
		}
	case lower == "content-transfer-encoding":
		h.Transfer = value
	case lower == "content-length":
		if n, err := strconv.ParseUint(value, 10, 62); err == nil && h.length < 0 {
			h.length = int64(n) //nolint:gosec // it has no more than 62 bits
		}
	case strings.HasPrefix(lower, "x-") && plain(lower) && !strings.ContainsAny(lower, " +.,;/=") && plain(value) && len(h.Fields) < maxFields:
		h.Fields = append(h.Fields, Field{name, value})
	}
}

// typeOf returns what goes on of a media type, "" where it is none.
func typeOf(value string) string {
	t, params, err := mime.ParseMediaType(value)
	if err != nil || !plain(t) {
		return ""
	}
	if charset := params["charset"]; charset != "" && plain(charset) && !strings.ContainsAny(charset, " ,:;/=") {
		t += "; charset=" + charset
	}
	return t
}

// plain says whether s is short, and made of letters, digits and what is in numbers, dates and media types besides.
func plain(s string) bool {
	return len(s) <= maxValue && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(" +-.,:;/_=", r)
	})
}

// printable says whether s is made of printable characters of ASCII, and spaces.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// fill reads more.
func (r *Reader) fill() {
	if r.srcErr != nil {
		return
	}
	kept := copy(r.store, r.buf) // little: whoever waits for more has used the rest
	for range 100 {
		n, err := r.src.Read(r.store[kept:])
		r.buf, r.srcErr = r.store[:kept+n], err
		if n > 0 || err != nil {
			return
		}
	}
	r.srcErr = io.ErrNoProgress
}

func (r *Reader) use(n int) { r.buf = r.buf[n:] }

// Writer puts parts into a body, in the one form that is written here.
type Writer struct{ boundary string }

// NewWriter returns a Writer with a boundary that no part can have in it, as nobody could know it: some readers find a boundary anywhere.
func NewWriter() *Writer { return &Writer{"lazaret-" + rand.Text()} }

// Type returns the Content-Type of the body.
func (w *Writer) Type() string { return `multipart/x-mixed-replace; boundary=` + w.boundary }

// Begin returns what comes before the first part.
func (w *Writer) Begin() string { return "--" + w.boundary }

// Head returns what comes before the content of a part of that size.
func (w *Writer) Head(h Head, size int64) string {
	var b strings.Builder
	b.WriteString("\r\n")
	if h.Type != "" {
		b.WriteString("Content-Type: " + h.Type + "\r\n")
	}
	b.WriteString("Content-Length: " + strconv.FormatInt(size, 10) + "\r\n")
	for _, f := range h.Fields {
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	return b.String() + "\r\n"
}

// Foot returns what comes behind a part: the delimiter at once, as browsers show a part when they have seen it.
func (w *Writer) Foot() string { return "\r\n--" + w.boundary }

// End returns what comes behind all parts.
func (w *Writer) End() string { return "--\r\n" }
