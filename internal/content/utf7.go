package content

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"strings"
	"unicode/utf16"

	"lazaret/internal/spool"
)

// utf7 emits the body in UTF-8 when a client could take it for UTF-7 (RFC 2152), as old browsers did without being told: when
// the charset says so, or its beginning has an encoded run of letters.
func (f *finder) utf7(b *spool.Blob, charset, mediaType string) error {
	head, err := f.head(b)
	if err != nil {
		return err
	}
	if c := strings.ToLower(charset); c != "utf-7" && c != "unicode-1-1-utf-7" && !looksLikeUTF7(head) {
		return nil
	}
	return f.emit("as UTF-7", mediaType+"; charset=utf-8", &utf7Reader{r: bufio.NewReader(b.NewReader())})
}

// looksLikeUTF7 says whether text has a run of at least four ASCII characters in UTF-7's base64, or as many runs of one.
func looksLikeUTF7(text []byte) bool {
	for single := 0; ; {
		i := bytes.IndexByte(text, '+')
		if i < 0 {
			return false
		}
		text = text[i+1:]
		end := 0
		for end < len(text) && end < 64 && isBase64(text[end]) {
			end++
		}
		if end == 3 && text[0] == 'A' && len(text) > 3 && text[3] == '-' {
			if single++; single == 4 {
				return true
			}
		}
		if end < 11 || text[0] != 'A' {
			continue
		}
		ascii := true
		for _, u := range utf16Units(text[:11]) {
			ascii = ascii && u < 0x80 && (u >= ' ' || u == '\n' || u == '\r' || u == '\t')
		}
		if ascii {
			return true
		}
	}
}

// utf16Units decodes a run of base64 without padding; bits that make no whole unit are left out.
func utf16Units(run []byte) []uint16 {
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(run)))
	n, err := base64.RawStdEncoding.Decode(out, run)
	if err != nil {
		// A lone last character: what stands before it counts.
		if n, err = base64.RawStdEncoding.Decode(out, run[:len(run)-len(run)%4]); err != nil {
			return nil
		}
	}
	units := make([]uint16, n/2)
	for i := range units {
		units[i] = uint16(out[2*i])<<8 | uint16(out[2*i+1])
	}
	return units
}

// utf7Reader decodes UTF-7.
type utf7Reader struct {
	r    *bufio.Reader
	out  []byte // decoded, not yet given
	run  []byte // base64 that was read and not decoded, whole groups of eight first
	in   bool   // within a run
	new  bool   // of which nothing was read yet
	last error
}

// Read implements io.Reader.
func (u *utf7Reader) Read(p []byte) (int, error) {
	for len(u.out) == 0 && u.last == nil {
		c, err := u.r.ReadByte()
		switch {
		case err != nil:
			u.flush()
			u.last = err
		case !u.in && c == '+':
			u.in, u.new = true, true
		case !u.in:
			u.out = append(u.out, c)
		case isBase64(c):
			u.new = false
			// Eight characters are three units.
			if u.run = append(u.run, c); len(u.run) == 8 {
				u.flush()
				u.in = true
			}
		default:
			if u.new && c == '-' { // "+-" is a plus sign
				u.out = append(u.out, '+')
			}
			u.flush()
			if c != '-' {
				u.out = append(u.out, c)
			}
		}
	}
	if len(u.out) == 0 {
		return 0, u.last
	}
	n := copy(p, u.out)
	u.out = u.out[n:]
	return n, nil
}

// flush decodes the run, and leaves it.
func (u *utf7Reader) flush() {
	if len(u.run) > 0 {
		for _, r := range utf16.Decode(utf16Units(u.run)) {
			u.out = append(u.out, string(r)...)
		}
	}
	u.run, u.in = u.run[:0], false
}
