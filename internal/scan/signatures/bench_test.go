package signatures

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const benchBodies = 100_000

// runPass scans text and returns what was found, or "gave up".
func runPass(tb testing.TB, p *pass, text []byte) string {
	l := parseProgram(bytes.NewReader(text), int64(len(text)), text)
	targets, _ := classify(text[:min(len(text), headSize)], "")
	p.begin(targets, l, int64(len(text)))
	err := p.all(context.Background(), text)
	switch {
	case errors.Is(err, errWork):
		return "gave up"
	case err != nil:
		tb.Fatal(err)
	case p.found != nil:
		return p.db.names.get(p.found.name)
	}
	return ""
}

func benchText(b *testing.B, name string, text []byte) {
	b.Run(name, func(b *testing.B) {
		db := syntheticDatabase(b, benchBodies)
		p := newPass(db)
		got := runPass(b, p, text)
		// What is found ends a scan, and the rest would not be measured.
		for n := 0; p.found != nil && n < 20_000; n++ {
			silence(db, p.found)
			got = runPass(b, p, text)
		}
		work := baseWork + int64(len(text))*workPerByte - p.work
		b.SetBytes(int64(len(text)))
		// The machine's other work is left out of what is measured: the thread's own time, and of that the best run.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		best := time.Hour
		for b.Loop() {
			begin := cpuTime(b)
			runPass(b, p, text)
			best = min(best, cpuTime(b)-begin)
		}
		b.ReportMetric(float64(len(text))/1e6/best.Seconds(), "MB/cpu-s")
		b.ReportMetric(float64(work)/float64(len(text)), "work/B")
		if got == "gave up" {
			b.Log("Incomplete: the budget of work was used up")
		} else if got != "" {
			b.Errorf("%s is found: the rest was not measured", got)
		}
	})
}

// silence takes care that a signature is not found any more. The index still has it.
func silence(db *database, sig *bodySignature) {
	for i := range db.parts[sig.first : sig.first+uint32(sig.parts)] {
		db.parts[int(sig.first)+i].targets = 0
	}
}

// cpuTime returns how much time the thread has used.
func cpuTime(tb testing.TB) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// BenchmarkPrograms scans ordinary binaries with 100,000 bodies loaded. Expected: 300 MB/s and more.
func BenchmarkPrograms(b *testing.B) {
	for _, path := range scanned() {
		benchText(b, path, head(b, path))
	}
}

// BenchmarkHostile scans what is made to be slow. Expected: 50 MB/s and more.
func BenchmarkHostile(b *testing.B) {
	const size = 16 << 20
	db := syntheticDatabase(b, benchBodies)
	m := rand.New(rand.NewPCG(3, 3))
	fill := func(next func() []byte) []byte {
		out := make([]byte, 0, size+64<<10)
		for len(out) < size {
			out = append(out, next()...)
		}
		return out[:size]
	}
	// anEntry returns one of a stage: of the given tier, or of the longest grams where that has none; -1 stands for any tier.
	anEntry := func(s *stage, tier int) *entry {
		for tier < 0 {
			if tier = m.IntN(len(s.tiers)); s.tiers[tier] == nil {
				tier = -1
			}
		}
		t := s.tiers[tier]
		if t == nil {
			t = s.tiers[longTier]
		}
		return &t.entries[m.IntN(len(t.entries))]
	}
	value := func(e *entry) []byte { d := &db.parts[e.part]; return d.elems[d.anchor].value }
	gram := func(s *stage, tier int) []byte {
		e := anEntry(s, tier)
		return value(e)[e.off:min(len(value(e)), int(e.off)+tierKinds[max(0, tier)].gram)]
	}
	fixed := func(tier int) func() []byte { return func() []byte { return gram(&db.first, tier) } }
	later := func(tier int) []byte {
		return append(firstOfTwo(b, db), fill(func() []byte { return append(gram(&db.later, tier), gram(&db.first, tier)...) })...)
	}
	anchored := func() []byte { return value(anEntry(&db.first, -1)) }
	one := anchored()
	oneGram := fixed(0)()
	for _, c := range []struct {
		name string
		text []byte
	}{
		{"zeroes", make([]byte, size)},
		{"random", fill(func() []byte { return []byte{byte(m.Uint32())} })},
		{"text", fill(func() []byte { return []byte(fmt.Sprintf("the quick brown fox number %d jumps over ", m.IntN(1000))) })},
		{"one-gram", bytes.Repeat(oneGram, size/len(oneGram))},
		{"one-gram-period-7", bytes.Repeat(append([]byte{1}, oneGram...), size/7)},
		{"one-prefix", bytes.Repeat(one[:len(one)-1], size/(len(one)-1))},
		{"all-grams-long", fill(fixed(0))},
		{"all-grams-six", fill(fixed(1))},
		{"all-grams-mid", fill(fixed(2))},
		{"all-prefixes", fill(func() []byte { v := anchored(); return v[:len(v)-1] })},
		{"anchors-and-8", fill(func() []byte {
			e := anEntry(&db.first, -1)
			return value(e)[max(0, int(e.off)-8):min(len(value(e))-1, int(e.off)+14)]
		})},
		{"later-grams-long", later(longTier)},
		{"later-grams-six", later(sixTier)},
		{"later-grams-mid", later(midTier)},
		{"later-prefixes", append(firstOfTwo(b, db), fill(func() []byte {
			v := value(anEntry(&db.later, -1))
			return append(v[:len(v)-1:len(v)-1], anchored()[1:]...)
		})...)},
		{"later-program", append(firstOfTwo(b, db), head(b, scanned()[0])...)},
		{"bytes-in-turn", fill(func() []byte {
			return []byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\xff\xfe\xfd")
		})},
		{"two-bytes-de-bruijn", fill(func() []byte { return []byte{byte(m.Uint32() & 1 * 0xff)} })},
		{"zeroes-in-islands", fill(func() []byte { return append(make([]byte, 900), byte(m.Uint32())) })},
	} {
		benchText(b, c.name, c.text)
	}
}

// firstOfTwo returns a text that has later parts looked for in what is behind it, however long that is.
func firstOfTwo(tb testing.TB, db *database) []byte {
	tb.Helper()
	for i := range db.sigs {
		s := &db.sigs[i]
		d := &db.parts[s.first]
		if s.parts < 2 || d.gapMax != unlimited || len(d.elems) > 1 || d.elems[0].mask != nil || s.where.kind != anywhere {
			continue
		}
		text := bytes.Clone(d.elems[0].value)
		p := newPass(db)
		if runPass(tb, p, append(text, make([]byte, windowSize)...)); p.waitsUntil > windowSize {
			return text
		}
	}
	tb.Fatal("no body has two parts with any gap between them")
	return nil
}

// BenchmarkLoad makes the database of 100,000 bodies.
func BenchmarkLoad(b *testing.B) {
	lines := syntheticBodies(benchBodies, 1)
	b.ResetTimer()
	for b.Loop() {
		before := inUse()
		bl := newBuilder(Default())
		for _, l := range lines {
			_ = bl.line(bodyFormat, l)
		}
		db := bl.database(time.Time{})
		b.ReportMetric(memory(before, db), "MiB")
	}
}

// memory returns how many MiB of the heap keep holds, where before were in use without it.
func memory(before float64, keep any) float64 {
	now := inUse()
	runtime.KeepAlive(keep)
	return now - before
}

// inUse returns how many MiB of the heap are in use.
func inUse() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the first one only empties pools
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// manyDigests returns a database of n digests of SHA-256, with sizes and with names as ClamAV's files have them.
func manyDigests(tb testing.TB, n int) *database {
	tb.Helper()
	b := newBuilder(Default())
	for i := range n {
		sum := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i)))
		line := fmt.Sprintf("%x:%d:Win.Malware.Agent-%d-0:73", sum, 10_000+i%1_000_000, 1_000_000+i)
		if err := b.line(digestFormat, line); err != nil {
			tb.Fatal(err)
		}
	}
	return b.database(b.report.Updated)
}

// TestDigestsAreSmall checks the memory that digests take, by the number that 2,000,000 of them in 100 MB allow.
func TestDigestsAreSmall(t *testing.T) {
	const n = 200_000
	before := inUse()
	db := manyDigests(t, n)
	each := memory(before, db) * (1 << 20) / n
	t.Logf("%.1f bytes each", each)
	if each > 50 {
		t.Errorf("a digest takes %.1f bytes, want 50 at most", each)
	}
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, 77_777))
	if at, ok := db.digests[algSHA256].find(sum[:], 10_000+77_777); !ok || db.names.get(at) != "Win.Malware.Agent-1077777-0" {
		t.Error("one of them is not found")
	}
}

// BenchmarkDigests looks digests up among 2,000,000. Expected: at most 100 MB.
func BenchmarkDigests(b *testing.B) {
	const n = 2_000_000
	before := inUse()
	db := manyDigests(b, n)
	sums := make([][32]byte, 1<<16)
	m := rand.New(rand.NewPCG(1, 1))
	for i := range sums {
		sums[i] = sha256.Sum256(binary.LittleEndian.AppendUint64(nil, m.Uint64N(2*n)))
	}
	i, found := 0, 0
	b.ResetTimer()
	for b.Loop() {
		if _, ok := db.digests[algSHA256].find(sums[i&(1<<16-1)][:], int64(10_000+i%1_000_000)); ok {
			found++
		}
		i++
	}
	b.StopTimer()
	b.ReportMetric(memory(before, db)*(1<<20)/1e6, "MB")
}
