package signatures

import (
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A synthetic database looks like a real one: most bodies are pieces of programs that are installed here with one byte
// changed, so that boilerplate is in them and in what is scanned; some have wildcards, gaps, alternatives and offsets.

// programs returns the files that pieces are taken from, the larger ones only in part: other ones than those that are
// scanned, which have boilerplate in common with them, but nobody's signatures are pieces of what they were tested on.
var programs = sync.OnceValue(func() [][]byte {
	var out [][]byte
	total := 0
	for _, dir := range []string{"/usr/bin", "/usr/lib/x86_64-linux-gnu", filepath.Dir(goTool())} {
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || total > 256<<20 || slices.Contains(scanned(), path) {
				return nil
			}
			f, err := os.Open(path)
			if err != nil {
				return nil
			}
			defer f.Close()
			b := make([]byte, 4<<20)
			n, _ := f.ReadAt(b, 0)
			if n > 20_000 {
				out = append(out, b[:n])
				total += n
			}
			return nil
		})
	}
	return out
})

// goTool returns where the go command is, or an empty string.
func goTool() string {
	path, err := exec.LookPath("go")
	if err != nil {
		return ""
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// piece returns n bytes of a program, which are not all alike.
func piece(m *rand.Rand, n int) []byte {
	all := programs()
	for {
		p := all[m.IntN(len(all))]
		at := m.IntN(len(p) - n)
		b := p[at : at+n]
		kinds := map[byte]bool{}
		for _, c := range b {
			kinds[c] = true
		}
		if len(kinds) > n/4 {
			return append([]byte(nil), b...)
		}
	}
}

// distinct returns n bytes of a program that are all different.
func distinct(m *rand.Rand, n int) []byte {
	for {
		b := piece(m, n)
		kinds := map[byte]bool{}
		for _, c := range b {
			kinds[c] = true
		}
		if len(kinds) == n {
			return b
		}
	}
}

// syntheticBodies returns n lines of .ndb.
func syntheticBodies(n int, seed uint64) []string {
	m := rand.New(rand.NewPCG(seed, 1))
	out := make([]string, 0, n)
	for i := range n {
		size := 16 + m.IntN(120)
		body := piece(m, size)
		if m.IntN(8) == 0 {
			for k := range body {
				body[k] = byte(m.Uint32())
			}
		}
		changed := m.IntN(size)
		body[changed] ^= byte(1 + m.IntN(255))
		h := hex.EncodeToString(body)
		target, place := 0, "*"
		switch m.IntN(20) {
		case 0: // wildcards
			for range 1 + m.IntN(4) {
				if k := m.IntN(size); k != changed {
					h = h[:2*k] + "??" + h[2*k+2:]
				}
			}
		case 1: // nibbles
			if k := m.IntN(size); k != changed {
				h = h[:2*k] + "?" + h[2*k+1:]
			}
		case 2:
			h += "*" + hex.EncodeToString(piece(m, 10+m.IntN(20)))
		case 3:
			h += fmt.Sprintf("{%d-%d}", m.IntN(10), 20+m.IntN(200)) + hex.EncodeToString(piece(m, 10+m.IntN(20)))
		case 4:
			h += fmt.Sprintf("(%x|%x)", body[:1], body[1:2]) + hex.EncodeToString(piece(m, 10))
		case 5:
			target, place = 6, fmt.Sprintf("EP+%d", m.IntN(64))
		case 6:
			place = fmt.Sprint(m.IntN(4096))
		case 7:
			place = fmt.Sprintf("EOF-%d", 200+m.IntN(4096))
		case 8:
			target = 1
		case 9:
			target = 3
			h = hex.EncodeToString([]byte(strings.ToLower(fmt.Sprintf("<script>eval(unescape('%x'))", body[:12]))))
		case 10: // short runs only
			if m.IntN(20) == 0 {
				h = fmt.Sprintf("%x??%x??%x*%x", distinct(m, 3), distinct(m, 4), distinct(m, 3), distinct(m, 6))
			}
		}
		out = append(out, fmt.Sprintf("Win.Trojan.Synthetic-%d-0:%d:%s:%s", i, target, place, h))
	}
	return out
}

// syntheticDatabase returns the database of n synthetic bodies; it is made once.
func syntheticDatabase(tb testing.TB, n int) *database {
	tb.Helper()
	syntheticMu.Lock()
	defer syntheticMu.Unlock()
	if db := syntheticByN[n]; db != nil {
		return db
	}
	lines := syntheticBodies(n, 1)
	b := newBuilder(Default())
	refused := 0
	for _, l := range lines {
		if b.line(bodyFormat, l) != nil {
			refused++
		}
	}
	if refused > n/100 {
		tb.Fatalf("%d of %d synthetic bodies are refused", refused, n)
	}
	syntheticByN[n] = b.database(b.report.Updated)
	return syntheticByN[n]
}

// scanned returns the programs that are scanned for measurements.
func scanned() []string {
	var out []string
	for _, path := range []string{"/usr/bin/bash", "/usr/bin/git", "/usr/bin/perl", "/usr/bin/openssl", "/usr/lib/chromium/chromium", goTool(), "/usr/bin/clamscan"} {
		if _, err := os.Stat(path); err == nil {
			out = append(out, path)
		}
	}
	return out
}

// head returns the first 16 MiB of a file.
func head(tb testing.TB, path string) []byte {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 16<<20))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

var (
	syntheticMu  sync.Mutex
	syntheticByN = map[int]*database{}
)
