package signatures

// sketch counts, roughly, in how many places of all parts each gram of 3, 4 and 6 bytes stands.
type sketch struct {
	counts [longGram + 1][]uint16 // by the gram's length
	shift  uint
}

// fourGram is the length of the grams that tell variants from each other. foursWeight is what it counts that a long gram has none
// that is rare; it was found by trying.
const (
	fourGram    = 4
	foursWeight = 4
)

func newSketch(parts []part) *sketch {
	total := 0
	each := func(yield func(run []byte)) {
		for i := range parts {
			for j := range parts[i].elems {
				if e := &parts[i].elems[j]; e.kind == isRun && !parts[i].pinned {
					e.fixedRuns(func(_ int, run []byte) { yield(run) })
				}
			}
		}
	}
	each(func(run []byte) { total += max(0, len(run)-longGram+1) })
	log := logAtLeast(2*total, 8, 24)
	s := &sketch{shift: 64 - log}
	for _, n := range []int{midGram, fourGram, longGram} {
		s.counts[n] = make([]uint16, 1<<log)
		each(func(run []byte) {
			for i := 0; i+n <= len(run); i++ {
				if c := s.count(run[i:], n); *c < 1<<16-1 {
					*c++
				}
			}
		})
	}
	return s
}

// count returns what counts the gram of n bytes at the beginning of run.
func (s *sketch) count(run []byte, n int) *uint16 {
	return &s.counts[n][wordAt(run, 0)<<uint(64-8*n)*hashMultiplier>>s.shift]
}

// log returns the logarithm of how often the gram of n bytes at the beginning of run is in all parts.
func (s *sketch) log(run []byte, n int) int32 { return log2(uint32(*s.count(run, n))) }

// rarestFour returns the logarithm of how often the rarest four bytes of the long gram at the beginning of run are in all parts. Most
// bodies are variants of each other, or of harmless programs: the places that make the difference have four bytes that are in few,
// where those around them are in many programs, too.
func (s *sketch) rarestFour(run []byte) int32 {
	least := s.log(run, fourGram)
	for k := 1; k <= longGram-fourGram; k++ {
		least = min(least, s.log(run[k:], fourGram))
	}
	return least
}

// score returns how rare the commonest of n grams at the beginning of run is. costs are those of the grams.
func (s *sketch) score(run []byte, costs []int32, gram, n int) int32 {
	lowest := int32(1 << 20)
	for k := range n {
		c := costs[k]
		switch {
		case gram == shortGram && k+shortGram < len(run):
			// The filter also looks at three bits of the byte behind a pair.
			c += min(3*costScale, int32(bigrams[int(run[k+1])<<8|int(run[k+2])]))
		case gram == midGram:
			c -= s.log(run[k:], midGram) * costScale
		case gram == longGram:
			c -= (s.log(run[k:], longGram) + foursWeight*s.rarestFour(run[k:])) * costScale
		}
		lowest = min(lowest, c)
	}
	return lowest
}

// log2 returns the logarithm of n, rounded down, and 0 for 0.
func log2(n uint32) int32 {
	l := int32(0)
	for ; n > 1; n >>= 1 {
		l++
	}
	return l
}
