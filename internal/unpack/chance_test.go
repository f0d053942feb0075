package unpack

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestRandomFilesAreNoArchives is about magic numbers of two bytes, which clean files have by chance.
func TestRandomFilesAreNoArchives(t *testing.T) {
	r := rand.NewChaCha8([32]byte{3})
	head := make([]byte, headSize)
	for _, magic := range []string{"\xc7\x71", "\x71\xc7", "MZ", "BZ", "PK", "\x1f\x8b", "7z"} {
		archives := 0
		for range 20_000 {
			_, _ = r.Read(head)
			copy(head, magic)
			if sniff(head, 1<<20) != NoArchive {
				archives++
			}
		}
		if archives > 50 {
			t.Errorf("%d of 20000 files that begin with %q are archives", archives, magic)
		}
	}
	for _, name := range []string{"a", strings.Repeat("long/", 300)} {
		h := make([]byte, 26, headSize)
		binary.LittleEndian.PutUint16(h, 0o70707)
		binary.LittleEndian.PutUint16(h[20:], uint16(len(name)+1))
		h = append(append(h, name...), make([]byte, headSize)...)
		if got := sniff(h[:headSize], 1<<20); got != Cpio {
			t.Errorf("a cpio archive with a name of %d bytes is %v", len(name), got)
		}
	}
}
