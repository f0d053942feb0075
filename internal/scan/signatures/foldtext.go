package signatures

import "io"

// A text is also scanned as ClamAV normalises texts: letters in lower case, runs of white space as one space, other control
// characters and everything above 0x7F left out.

// foldTo says what becomes of a byte: itself or another one, or dropped.
var foldTo = func() (to [256]byte) {
	for b := range to {
		switch {
		case b >= 'A' && b <= 'Z':
			to[b] = byte(b) + 'a' - 'A'
		case b >= '\t' && b <= '\r', b == ' ':
			to[b] = ' '
		case b < ' ' || b > 0x7f:
			to[b] = dropped
		default:
			to[b] = byte(b)
		}
	}
	return to
}()

const dropped = 0

// folder reads the folded form of what r gives.
type folder struct {
	r     io.Reader
	raw   []byte
	rest  []byte // of raw, not yet folded
	space bool   // the last byte given was a space
	err   error
}

// newFolder returns a folder that uses raw as its buffer.
func newFolder(r io.Reader, raw []byte) *folder { return &folder{r: r, raw: raw} }

// Read implements io.Reader.
func (f *folder) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(f.rest) == 0 {
			if f.err != nil {
				break
			}
			var got int
			got, f.err = f.r.Read(f.raw)
			f.rest = f.raw[:got]
			continue
		}
		used := 0
		for _, b := range f.rest {
			if n == len(p) {
				break
			}
			used++
			c := foldTo[b]
			if c == dropped || c == ' ' && f.space {
				continue
			}
			f.space = c == ' '
			p[n] = c
			n++
		}
		f.rest = f.rest[used:]
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, f.err
}

// canBeInText says whether the run m could be in a folded text.
func (m *masked) canBeInText() bool {
	for i, v := range m.value {
		mask := byte(0xFF)
		if m.mask != nil {
			mask = m.mask[i]
		}
		if mask == 0xFF && foldTo[v] != v || mask == 0xFF && v == dropped {
			return false
		}
	}
	return true
}
