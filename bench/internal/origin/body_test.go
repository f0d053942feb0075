package origin

import (
	"bytes"
	"testing"
)

func TestBodies(t *testing.T) {
	for _, size := range []int64{int64(MinSize), 1024, 60 << 10, 64<<10 + 3, 64<<10 + 4, 64<<10 + 5, 1<<20 + 1} {
		a, b := Body(size), Body(size)
		if int64(len(a)) != size || bytes.Equal(a, b) {
			t.Fatalf("size %d: %d bytes, the same as another one: %v", size, len(a), bytes.Equal(a, b))
		}
		for _, step := range []int{1, 2, 3, 5, 7, 4096, len(a)} {
			c := NewChecker()
			for range 2 { // a Checker is used again
				for rest := a; len(rest) > 0; {
					n, _ := c.Write(rest[:min(step, len(rest))])
					rest = rest[n:]
				}
				if err := c.Check(size); err != nil {
					t.Errorf("size %d in pieces of %d: %v", size, step, err)
				}
			}
		}
	}
}

func TestBrokenBodiesAreFound(t *testing.T) {
	whole := Body(4096)
	flipped := bytes.Clone(whole)
	flipped[2000] ^= 1
	for name, b := range map[string][]byte{
		"cut": whole[:4095], "longer": append(bytes.Clone(whole), 0), "one bit": flipped, "empty": nil, "two bytes": whole[:2],
	} {
		c := NewChecker()
		_, _ = c.Write(b)
		if c.Check(4096) == nil {
			t.Errorf("%s: taken for whole", name)
		}
	}
	c := NewChecker()
	if c.Check(0) == nil {
		t.Error("nothing at all: taken for a whole body")
	}
}
