package clamd_test

import (
	"bytes"
	"testing"

	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/scantest"
)

// Objects that follow each other in one session are each looked at as they are: nothing of the one before is in them, whatever
// their sizes.
func TestObjectsOfASessionAreNotMixed(t *testing.T) {
	r := startReal(t)
	eachTransport(t, r, func(t *testing.T, s *clamd.Scanner) {
		clean := func(n int) []byte { return bytes.Repeat([]byte("clean. "), n/7+1)[:n] }
		hidden := func(before, behind int) []byte {
			return bytes.Join([][]byte{clean(before), []byte(marker), clean(behind)}, nil)
		}
		for i, c := range []struct {
			text []byte
			want scan.Outcome
		}{
			{scan.EICAR(), scan.Infected},
			{clean(10), scan.Clean},
			{hidden(200<<10, 10), scan.Infected},
			{clean(150 << 10), scan.Clean},
			{clean(250 << 10), scan.Clean}, // longer again: what the one before the last had there is gone
			{hidden(0, 0), scan.Infected},
			{[]byte(marker[:len(marker)-1]), scan.Clean}, // its last byte is still what followed in the one before
			{hidden(300<<10, 0), scan.Infected},          // too large for the session's own file
			{clean(1), scan.Clean},
			{[]byte(marker[1:]), scan.Clean},
			{hidden(255<<10, 100), scan.Infected},
		} {
			o := scantest.Object(t, scantest.Pool(t), c.text)
			v, err := s.Scan(t.Context(), o)
			if err != nil || v.Outcome != c.want {
				t.Errorf("object %d, %d bytes: %+v, %v; want %v", i, len(c.text), v, err, c.want)
			}
		}
		if st := s.States()[0]; st.Scans < 11 {
			t.Errorf("%d scans", st.Scans)
		}
	})
}
