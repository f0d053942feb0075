package message

import (
	"context"
	"testing"

	"lazaret/internal/content"
)

// TestBoundaryBehindBytesThatAreNoASCII: in lower case such bytes may be longer or shorter, and offsets mean something else.
func TestBoundaryBehindBytesThatAreNoASCII(t *testing.T) {
	for _, odd := range []string{"\xff", "\xff\xff\xff\xff\xff\xff", "\u0130\u0130\u0130", "\u2126\u2126"} { // the last two are shorter or longer
		h := &header{}
		h.line([]byte("Content-Type: multipart/mixed; x=" + odd + "; boundary=abc"))
		if len(h.boundaries) == 0 || h.boundaries[0] != "abc" {
			t.Errorf("%q: boundaries %q", odd, h.boundaries)
		}
		p := pool(t)
		b, err := p.Of([]byte(odd + "boundary=\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		Find(context.Background(), p, b, content.Default(), func(content.Part) error { found++; return nil })
		if found == 0 {
			t.Errorf("%q: no reading", odd)
		}
		_ = b.Close()
	}
}
