package pop3

import (
	"bytes"
)

// unstuffer takes the byte-stuffing (RFC 1939, 3) off a multi-line reply. Only CRLF . CRLF ends one: a dot behind a bare LF
// or CR, or before one, is text.
type unstuffer struct {
	state dotState
	cr    bool // the byte before was CR
	// at is how many bytes were given; odd are the places among them where a line began with a single dot on the wire,
	// which stuffer would not put there by itself.
	at  int64
	odd []int64
}

type dotState uint8

const (
	lineStart dotState = iota
	inLine
	afterDot   // a line's first byte was a dot
	afterDotCR // CR followed it
	ended
)

// maxOdd bounds how many dots are remembered that should have been two; no server in its right mind sends any.
const maxOdd = 4096

// next takes the bytes of src until dst is full or the reply has ended; dst needs room for 2 bytes at least. It returns how
// many bytes it took and gave.
func (u *unstuffer) next(dst, src []byte) (taken, given int) {
	for taken < len(src) && u.state != ended && given+2 <= len(dst) {
		c := src[taken]
		switch u.state {
		case inLine:
			n := u.run(dst[given:], src[taken:])
			taken, given = taken+n, given+n
			continue
		case lineStart:
			taken++
			if c == '.' {
				u.state = afterDot
				continue
			}
			given += u.put(dst[given:], c)
		case afterDot:
			taken++
			switch c {
			case '\r':
				u.state = afterDotCR
				continue
			case '.':
			default:
				u.note(given)
			}
			given += u.put(dst[given:], c)
		case afterDotCR:
			if c == '\n' {
				taken++
				u.state = ended
				continue
			}
			u.note(given)
			given += u.put(dst[given:], '\r') // c is looked at again
		}
	}
	u.at += int64(given)
	return taken, given
}

// put gives a byte, which decides where the next one is in its line.
func (u *unstuffer) put(dst []byte, c byte) int {
	dst[0] = c
	u.state = inLine
	if u.cr && c == '\n' {
		u.state = lineStart
	}
	u.cr = c == '\r'
	return 1
}

// run gives what is left of a line, as far as it is there.
func (u *unstuffer) run(dst, src []byte) int {
	src = src[:min(len(src), len(dst))]
	n := 0
	for n < len(src) {
		i := bytes.IndexByte(src[n:], '\n')
		if i < 0 {
			n = len(src)
			break
		}
		i += n
		n = i + 1
		if i > 0 && src[i-1] == '\r' || i == 0 && u.cr {
			u.state = lineStart
			break
		}
	}
	copy(dst, src[:n])
	u.cr = n > 0 && src[n-1] == '\r'
	return n
}

func (u *unstuffer) note(given int) {
	if len(u.odd) < maxOdd {
		u.odd = append(u.odd, u.at+int64(given))
	}
}

// done says whether the reply has ended.
func (u *unstuffer) done() bool { return u.state == ended }

// stuffer puts the byte-stuffing back: what unstuffer took off comes out as it was. The zero value begins at the start of
// a reply's lines.
type stuffer struct {
	odd    []int64 // of the unstuffer
	at     int64
	middle bool // not at the start of a line
	cr     bool
}

// append appends the stuffed form of src to dst, and returns it.
func (s *stuffer) append(dst, src []byte) []byte {
	for len(src) > 0 {
		if !s.middle {
			if src[0] == '.' || len(s.odd) > 0 && s.odd[0] == s.at {
				dst = append(dst, '.')
			}
			if len(s.odd) > 0 && s.odd[0] <= s.at {
				s.odd = s.odd[1:]
			}
			s.middle = true
		}
		n := bytes.IndexByte(src, '\n') + 1
		if n == 0 {
			n = len(src)
		}
		last := src[n-1]
		if last == '\n' && (n > 1 && src[n-2] == '\r' || n == 1 && s.cr) {
			s.middle = false
		}
		s.cr = last == '\r'
		s.at += int64(n)
		dst = append(dst, src[:n]...)
		src = src[n:]
	}
	return dst
}

// end appends what ends the reply: the lone dot, behind the end of the last line where that has none.
func (s *stuffer) end(dst []byte) []byte {
	if s.middle {
		if s.cr {
			dst = append(dst, '\n')
		} else {
			dst = append(dst, '\r', '\n')
		}
	}
	return append(dst, '.', '\r', '\n')
}
