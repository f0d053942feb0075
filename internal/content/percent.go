package content

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"lazaret/internal/spool"
)

// percentPeek is how far a URL is looked into for a percent sign; a longer one is decoded in any case.
const percentPeek = 4 << 10

// percentURLs finds `data:…,…` (RFC 2397) whose data is percent-encoded text, anywhere in the body, and decodes it. Data
// without an escape stands in the body as it is, and has been looked at there. A URL ends where the next quotation mark of its kind
// is, or, without quotation marks, at white space, a bracket or a parenthesis; what is read too far does no harm.
func (f *finder) percentURLs(b *spool.Blob) error {
	count, upTo := 0, int64(0) // upTo: where the latest URL ended; each byte is read once
	if text, ok := b.Bytes(); ok {
		if bytes.IndexByte(text, '%') < 0 {
			return nil
		}
		return f.percentURLsIn(b, text, 0, len(text), &count, &upTo)
	}
	buf := windows.Get().(*[]byte)
	defer windows.Put(buf)
	for base := int64(0); ; {
		n, err := b.ReadAt(*buf, base)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		last := n < len(*buf)
		limit := n
		if !last {
			limit -= keepBack // the rest comes again at the beginning of the next window
		}
		if err := f.percentURLsIn(b, (*buf)[:n], base, limit, &count, &upTo); err != nil || last {
			return err
		}
		base += int64(limit)
	}
}

// percentURLsIn looks for URLs that begin in the first limit bytes of text, which begins at base.
func (f *finder) percentURLsIn(b *spool.Blob, text []byte, base int64, limit int, count *int, upTo *int64) error {
	for at := 0; ; {
		i := bytes.IndexByte(text[at:], ':')
		if i < 0 || at+i >= limit {
			return nil
		}
		at += i + 1
		start := at - len("data:")
		if start < 0 || text[at-2]|0x20 != 'a' || !bytes.EqualFold(text[start:at], []byte("data:")) || base+int64(start) < *upTo {
			continue
		}
		comma := bytes.IndexByte(text[at:min(len(text), at+maxMIME)], ',')
		if comma < 0 || len(text[at:at+comma]) >= 7 && bytes.EqualFold(text[at+comma-7:at+comma], []byte(";base64")) {
			continue
		}
		from := base + int64(at+comma+1)
		r := &percentReader{dataReader: dataReader{r: io.NewSectionReader(b, from, b.Size()-from)}}
		if start > 0 {
			r.setQuote(text[start-1])
		}
		if !r.worthwhile() {
			continue
		}
		*count++
		err := f.emit(fmt.Sprintf("data: URL %d, percent-encoded", *count), "", r)
		*upTo = from + r.read
		if err != nil && Fatal(err) {
			return err
		}
	}
}

// percentReader decodes percent-encoded text until its URL ends.
type percentReader struct {
	dataReader
	quote byte  // what ends the URL; 0: white space and brackets do
	read  int64 // bytes of the body that were used up
	ended bool
}

func (p *percentReader) setQuote(before byte) {
	switch before {
	case '"', '\'', '`':
		p.quote = before
	}
}

// ends says whether c ends the URL.
func (p *percentReader) ends(c byte) bool {
	if p.quote != 0 {
		return c == p.quote
	}
	switch c {
	case ' ', '\t', '\r', '\n', '\f', '"', '\'', '`', '<', '>', ')', ']', '}':
		return true
	}
	return false
}

// worthwhile says whether there is something to decode that could match a signature, and goes back to the start.
func (p *percentReader) worthwhile() bool {
	n, escape := 0, false
	for n < percentPeek {
		c, ok := p.raw()
		if !ok || p.ends(c) {
			break
		}
		n++
		escape = escape || c == '%'
	}
	p.have = nil
	if _, err := p.r.Seek(0, io.SeekStart); err != nil {
		return true // reading it says what is wrong
	}
	return n >= minData && (escape || n == percentPeek)
}

// Read implements io.Reader.
func (p *percentReader) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) && !p.ended {
		c, ok := p.take()
		if !ok || p.ends(c) {
			p.ended = true
			break
		}
		if c == '%' {
			c = p.unescape()
		}
		b[n] = c
		n++
	}
	if n == 0 && p.ended {
		return 0, io.EOF
	}
	return n, nil
}

func (p *percentReader) take() (byte, bool) {
	c, ok := p.raw()
	if ok {
		p.read++
	}
	return c, ok
}

// unescape returns what the two digits behind a percent sign stand for. A percent sign without them stands for itself, and what
// follows it too.
func (p *percentReader) unescape() byte {
	if !p.fill(2) {
		return '%'
	}
	high, ok1 := hexDigit(p.have[0])
	low, ok2 := hexDigit(p.have[1])
	if !ok1 || !ok2 {
		return '%'
	}
	p.have = p.have[2:]
	p.read += 2
	return high<<4 | low
}

// fill has at least n bytes at hand, and says false where the body ends before.
func (p *percentReader) fill(n int) bool {
	for len(p.have) < n {
		k := copy(p.buf[:], p.have)
		m, err := p.r.Read(p.buf[k:])
		if m == 0 || err != nil && !errors.Is(err, io.EOF) {
			p.have = p.buf[:k]
			return false
		}
		p.have = p.buf[:k+m]
	}
	return true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
