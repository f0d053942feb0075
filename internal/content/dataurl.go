package content

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sync"

	"lazaret/internal/spool"
)

const (
	window   = 256 << 10
	maxMIME  = 256 // how far before ";base64," its "data:" may be
	minData  = 24  // characters of base64; fewer cannot hold anything that a signature would match
	keepBack = maxMIME + len(";base64,")
)

// dataURLs finds `data:…;base64,…` (RFC 2397) anywhere in the body, whatever the body says that it is: pages, scripts, style
// sheets, SVG, JSON. The data is decoded as browsers do: forgiving base64, percent-encoding, white space and the escapes of
// a string literal ignored.
func (f *finder) dataURLs(b *spool.Blob) error {
	count := 0
	if text, ok := b.Bytes(); ok {
		return f.dataURLsIn(b, text, 0, &count)
	}
	buf := windows.Get().(*[]byte)
	defer windows.Put(buf)
	for base := int64(0); ; {
		n, err := b.ReadAt(*buf, base)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := f.dataURLsIn(b, (*buf)[:n], base, &count); err != nil || n < len(*buf) {
			return err
		}
		base += int64(n - keepBack)
	}
}

// windows are for looking through what is not in memory.
var windows = sync.Pool{New: func() any { b := make([]byte, window); return &b }}

// dataURLsIn looks through text, which begins at base.
func (f *finder) dataURLsIn(b *spool.Blob, text []byte, base int64, count *int) error {
	for at := 0; ; {
		i := indexBase64(text[at:])
		if i < 0 {
			return nil
		}
		at += i
		if base > 0 && at <= keepBack {
			continue // the window before had it whole
		}
		if !bytes.Contains(bytes.ToLower(text[max(0, at-maxMIME):at]), []byte("data:")) {
			continue
		}
		r := &dataReader{r: io.NewSectionReader(b, base+int64(at), b.Size()-base-int64(at))}
		if r.measure(minData) < minData {
			continue
		}
		*count++
		if err := f.emit(fmt.Sprintf("data: URL %d", *count), "", base64.NewDecoder(forgiving, r)); err != nil {
			if Fatal(err) {
				return err
			}
			// Where base64 ends in the middle of a group a browser shows nothing; what there was has been looked at.
		}
	}
}

var forgiving = base64.StdEncoding.WithPadding(base64.NoPadding)

// indexBase64 returns the offset just behind the first "base64,", in any case of letters, or -1.
func indexBase64(text []byte) int {
	const word = "base64,"
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte("64,"))
		if i < 0 {
			return -1
		}
		end := from + i + len("64,")
		if start := end - len(word); start >= 0 && bytes.EqualFold(text[start:end], []byte(word)) {
			return end
		}
		from = end
	}
}

// dataReader reads the characters of base64 that follow, until something ends the URL.
type dataReader struct {
	r    io.ReadSeeker
	buf  [4096]byte
	have []byte
	done bool
}

// measure returns how many characters of base64 there are, at most limit, and goes back to the start.
func (d *dataReader) measure(limit int) int {
	var b [64]byte
	n := 0
	for n < limit {
		k, err := d.Read(b[:min(limit-n, len(b))])
		n += k
		if err != nil {
			break
		}
	}
	d.have, d.done = nil, false
	if _, err := d.r.Seek(0, io.SeekStart); err != nil {
		return 0
	}
	return n
}

// Read implements io.Reader.
func (d *dataReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c, ok := d.next()
		if !ok {
			if n > 0 {
				return n, nil
			}
			return 0, io.EOF
		}
		p[n] = c
		n++
	}
	return n, nil
}

// next returns the next character of base64.
func (d *dataReader) next() (byte, bool) {
	for {
		c, ok := d.raw()
		if !ok || d.done {
			return 0, false
		}
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '+', c == '/':
			return c, true
		case c == '-':
			return '+', true
		case c == '_':
			return '/', true
		case c == ' ', c == '\t', c == '\r', c == '\n', c == '\f', c == '\\':
			// White space is ignored; so is the backslash of "\/" and of a line that goes on in a string.
		case c == '%':
			if c, ok = d.escaped(); ok && isBase64(c) {
				return c, true
			}
			d.done = !ok
		default:
			d.done = true
			return 0, false
		}
	}
}

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/'
}

// escaped returns the byte that two hexadecimal digits stand for.
func (d *dataReader) escaped() (byte, bool) {
	var v byte
	for range 2 {
		c, ok := d.raw()
		if !ok {
			return 0, false
		}
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | (c - '0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			v = v<<4 | (c | 0x20 - 'a' + 10)
		default:
			return 0, false
		}
	}
	return v, true
}

func (d *dataReader) raw() (byte, bool) {
	if len(d.have) == 0 {
		n, err := d.r.Read(d.buf[:])
		if n == 0 || err != nil && !errors.Is(err, io.EOF) {
			return 0, false
		}
		d.have = d.buf[:n]
	}
	c := d.have[0]
	d.have = d.have[1:]
	return c, true
}
