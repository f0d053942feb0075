package signatures

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestMatchEqualsTheNaiveMatcher compares the matcher with one that is obviously right, on signatures and texts that are
// made to meet.
func TestMatchEqualsTheNaiveMatcher(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 400
	}
	hits, loaded, pinned := 0, 0, 0
	for seed := range rounds {
		m := signatureMaker{rand.New(rand.NewPCG(uint64(seed), 7))}
		sig := m.signature()
		if _, err := parseBody(sig); err != nil {
			if !errors.Is(err, errNoFixed) && !errors.Is(err, errTooManyEnds) && !errors.Is(err, errShort) && !errors.Is(err, errNegated) {
				t.Fatalf("%s: %v", sig, err)
			}
			continue
		}
		loaded++
		for range 6 {
			text := m.text(300, sig)
			line, allowed := m.place(sig, text)
			db := built(t, bodyFormat, line)
			if len(db.pins) > 0 {
				pinned++
			}
			got := find(t, db, text, everything) == "Test"
			want := naive(sig, text, allowed)
			if want {
				hits++
			}
			if got != want {
				t.Fatalf("seed %d: %s\nin %x:\ngot %v, want %v", seed, line, text, got, want)
			}
		}
	}
	if loaded < rounds/2 || hits < rounds/2 || pinned < rounds/10 {
		t.Fatalf("of %d signatures %d could be loaded, %d matched, %d were pinned: not enough to prove anything", rounds, loaded, hits, pinned)
	}
}

// place returns a line of the signature at a random offset, and which places in text that allows.
func (m signatureMaker) place(sig string, text []byte) (string, func(int) bool) {
	n, shift := m.IntN(8), m.IntN(20)
	if m.IntN(2) == 0 && len(text) > 0 {
		n = m.IntN(len(text))
	}
	between := func(lo, hi int) func(int) bool { return func(at int) bool { return at >= lo && at <= hi } }
	switch m.IntN(8) {
	case 0:
		return "Test:0:" + strconv.Itoa(n) + ":" + sig, between(n, n)
	case 1:
		return "Test:0:" + strconv.Itoa(n) + "," + strconv.Itoa(shift) + ":" + sig, between(n, n+shift)
	case 2:
		return "Test:0:EOF-" + strconv.Itoa(n) + ":" + sig, between(len(text)-n, len(text)-n)
	case 3:
		return "Test:0:EOF-" + strconv.Itoa(n) + "," + strconv.Itoa(shift) + ":" + sig, between(len(text)-n, len(text)-n+shift)
	}
	return "Test:0:*:" + sig, func(int) bool { return true }
}
