package unpack

import (
	"context"
	"testing"

	"lazaret/internal/spool"
	"lazaret/internal/units"
)

// TestRARWithoutMemoryIsNotTooLarge: that others have the decoders' memory is over in a while, and no fault of the archive's.
func TestRARWithoutMemoryIsNotTooLarge(t *testing.T) {
	resize(t, 96*units.MiB)
	pool := testPool(t, func(c *spool.Config) { c.Wait = 1 })
	c := &claim{b: decoders}
	if err := c.take(96<<20, Inner, Patience{}, "test"); err != nil {
		t.Fatal(err)
	}
	defer c.give(96 << 20)
	for name, b := range map[string][]byte{"rar5": rar5Of("a", "hello"), "rar4": rar4Of("a", "hello")} {
		p := Walk(context.Background(), pool, Source{Blob: blobOf(t, pool, b), Name: "a"}, Limits{}, func(Part) error { return nil })
		if len(p) != 1 || p[0].Kind != SpoolFull {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
