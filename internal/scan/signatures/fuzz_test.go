package signatures

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"lazaret/internal/scan"
)

func FuzzDigestLine(f *testing.F) {
	for _, s := range []string{
		"44d88612fea8a8f36de82e1278abb02f:68:Eicar", "3395856ce81f2b7382dee72602f798b642f14140:68:Eicar:73",
		"275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f:*:Eicar:73:255", "x:*:", ":::::", "44d88612fea8a8f36de82e1278abb02f:*:Name",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		d, err := parseDigestLine(line)
		if err != nil {
			reason(t, err)
			return
		}
		alg, ok := byLength(len(d.sum))
		fields := strings.Split(line, ":")
		if !ok || alg != d.alg || d.name != fields[2] || d.name == "" || !strings.EqualFold(hexOf(d.sum), fields[0]) || (d.size == 0) != (fields[1] == "*") {
			t.Errorf("%q is read as %+v", line, d)
		}
		b := newBuilder(Default())
		if err := b.line(digestFormat, line); err != nil {
			t.Fatal(err)
		}
		db := b.database(b.report.Updated)
		size := max(1, int64(d.size))
		if n, ok := db.digests[d.alg].find(d.sum, size); !ok || db.names.get(n) != d.name || !db.digests[d.alg].has(size) {
			t.Errorf("%q is not found again", line)
		}
	})
}

func hexOf(b []byte) string { return x(string(b)) }

// reason checks that the error of a line is one of those that are counted: without details, and of a known beginning.
func reason(t *testing.T, err error) {
	t.Helper()
	for _, begin := range []string{"malformed ", "unsupported: ", "limit: ", "not for this engine: "} {
		if strings.HasPrefix(err.Error(), begin) && len(err.Error()) < 120 {
			return
		}
	}
	t.Errorf("the reason is %q", err)
}

func FuzzIgnoreLine(f *testing.F) {
	for _, s := range []string{"Name", "Name:44d88612fea8a8f36de82e1278abb02f", "db.ndb:12:Name", "Name.{A}.UNOFFICIAL", ":", "a:b:c:d:e", ".{}"} {
		f.Add(s, "Name:0:*:6161")
	}
	f.Fuzz(func(t *testing.T, ignore, line string) {
		g := ignores{}
		if err := g.add(ignore); err != nil {
			reason(t, err)
			if len(g) > 0 {
				t.Errorf("%q is refused, and something is ignored", ignore)
			}
			return
		}
		if len(g) != 1 {
			t.Errorf("%q: %d names are ignored", ignore, len(g))
		}
		name, _, _ := strings.Cut(line, ":")
		if g.has(name, line) {
			if !strings.Contains(ignore, plainName(name)) || plainName(name) == "" {
				t.Errorf("%q makes %q ignored", ignore, name)
			}
		}
	})
}

func FuzzOffset(f *testing.F) {
	for _, s := range []string{"*", "0", "12,5", "EOF-7", "EOF-7,9", "EP+1", "EP-1,2", "S3+4", "SE2", "SL+6", "VI", "$1$", "99999999999999999999", "S+", "SE", ",", "-1"} {
		f.Add(s, 1, int64(1000), int64(500), int64(100))
	}
	f.Fuzz(func(t *testing.T, s string, target int, size, entry, at int64) {
		w, err := parseOffset(s, target)
		if err != nil {
			reason(t, err)
			return
		}
		size, entry, at = size&(1<<40-1), entry&(1<<40-1), at&(1<<40-1)
		l := layout{size: size, program: true, entry: entry, sections: []section{{at, 10}, {at + 10, 20}}}
		first, last, ok := l.places(w)
		if ok && (last < first || last < 0) {
			t.Errorf("%q: from %d to %d", s, first, last)
		}
		if ok && w.exact() && first != last {
			t.Errorf("%q is exact, from %d to %d", s, first, last)
		}
	})
}

// FuzzBodyLine reads lines; what is taken must match a text that is made for it, and say the same as the naive matcher.
func FuzzBodyLine(f *testing.F) {
	for i := range uint64(40) {
		m := signatureMaker{rand.New(rand.NewPCG(i, 3))}
		line, _ := m.place(m.signature(), make([]byte, 100))
		f.Add(line, i)
	}
	for _, s := range []string{
		"A:0:*:6161", "A:1:EP+0:4d5a??*{1-2}aabb", "A:0:*:61(62|63", "A:0:*:{-", "A:0:*:aa[1-2]bbcc", "A:0:*:!(aa)bbcc:1:2", "A:0:*:((aa|bb)|cc)ddee",
		"A:0:*:aabb{0}ccdd", "A:0:*:aabb{0-}ccdd", "A:0:*:aabb{4294967296}ccdd", "A:0:*:aabb{127}ccdd{128}eeff", "A:0:*:(B)aabb(W)", "A:7:*:3c??",
	} {
		f.Add(s, uint64(1))
	}
	f.Fuzz(func(t *testing.T, line string, seed uint64) {
		if len(line) > 2000 {
			return
		}
		b := newBuilder(Default())
		if err := b.line(bodyFormat, line); err != nil {
			reason(t, err)
			return
		}
		db := b.database(b.report.Updated)
		m := signatureMaker{rand.New(rand.NewPCG(seed, 4))}
		body := strings.Split(line, ":")[3]
		text := append(m.sample(body), m.text(200, body)...)
		sameEverywhere(t, db, text)
	})
}

// sameEverywhere checks that a pass in memory and passes through windows of several sizes agree, and that none panics.
func sameEverywhere(t *testing.T, db *database, text []byte) (found string) {
	t.Helper()
	l := parseProgram(bytes.NewReader(text), int64(len(text)), text)
	p := newPass(db)
	for i, step := range []int{0, 4, 64, 4096} {
		p.begin(everything, l, int64(len(text)))
		p.work = 1 << 40 // who finds it too much work depends on the windows
		var err error
		if step == 0 {
			err = p.all(context.Background(), text)
		} else {
			p.window = make([]byte, 2*db.margin+step)
			err = p.stream(context.Background(), io.MultiReader(bytes.NewReader(text)))
		}
		if err != nil && !errors.Is(err, errWork) {
			t.Fatal(err)
		}
		got := ""
		if p.found != nil {
			got = db.names.get(p.found.name)
		}
		if i == 0 {
			found = got
		} else if (found == "") != (got == "") {
			t.Fatalf("in memory %q is found, in windows of %d bytes %q; text %x", found, step, got, text)
		}
	}
	return found
}

// FuzzMatchEqualsTheNaiveMatcher has the fuzzer choose what signatures and texts are made of.
func FuzzMatchEqualsTheNaiveMatcher(f *testing.F) {
	for i := range uint64(20) {
		f.Add(i, i*7, []byte("ab1 some text\x00\x00\x00\xff"))
	}
	f.Fuzz(func(t *testing.T, seed, other uint64, more []byte) {
		if len(more) > 300 {
			return
		}
		m := signatureMaker{rand.New(rand.NewPCG(seed, other))}
		sig := m.signature()
		if _, err := parseBody(sig); err != nil {
			return
		}
		text := m.text(300, sig)
		at := m.IntN(len(text) + 1)
		text = append(text[:at:at], append(bytes.Clone(more), text[at:]...)...)
		line, allowed := m.place(sig, text)
		want := naive(sig, text, allowed)
		if got := sameEverywhere(t, built(t, bodyFormat, line), text) == "Test"; got != want {
			t.Errorf("%s\nin %x: got %v, want %v", line, text, got, want)
		}
	})
}

// FuzzManyBodies puts what one line of the fuzzer's is among many bodies, whose tiers and groups it then shares.
func FuzzManyBodies(f *testing.F) {
	for i := range uint64(10) {
		f.Add(i, uint8(5+20*i))
	}
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		m := signatureMaker{rand.New(rand.NewPCG(seed, 9))}
		var lines, sigs []string
		for range int(n) + 1 {
			sig := m.signature()
			if _, err := parseBody(sig); err == nil {
				sigs = append(sigs, sig)
				lines = append(lines, "Test:0:*:"+sig)
			}
		}
		if len(sigs) == 0 {
			return
		}
		text := m.text(120, sigs[m.IntN(len(sigs))])
		want := false
		for _, s := range sigs {
			want = want || naive(s, text, func(int) bool { return true })
		}
		if got := sameEverywhere(t, built(t, bodyFormat, lines...), text) == "Test"; got != want {
			t.Errorf("%q\nin %x: got %v, want %v", lines, text, got, want)
		}
	})
}

// FuzzProgram gives headers to the parser of executables: whatever they say, the scan goes on, and nothing lies outside.
func FuzzProgram(f *testing.F) {
	f.Add([]byte("MZ"+strings.Repeat("\x00", 58)+"\x40\x00\x00\x00PE\x00\x00"+strings.Repeat("\x01\x00", 200)), int64(1000))
	f.Add([]byte("\x7fELF\x02\x01\x01"+strings.Repeat("\x00", 57)+strings.Repeat("\x01\x00\x00", 100)), int64(1000))
	f.Add([]byte("\x7fELF\x01\x02\x01"+strings.Repeat("\x00", 45)), int64(100))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if size = max(int64(len(b)), size&(1<<20-1)); size > int64(len(b)) {
			b = append(bytes.Clone(b), make([]byte, size-int64(len(b)))...)
		}
		l := parseProgram(bytes.NewReader(b), size, b[:min(len(b), headSize)])
		if l.size != size || len(l.sections) > maxELFSections {
			t.Errorf("size %d, %d sections", l.size, len(l.sections))
		}
		for _, s := range l.sections {
			if s.at < 0 || s.size < 0 || s.size > 0 && s.at+s.size > size {
				t.Errorf("a section at %d of %d bytes, in %d", s.at, s.size, size)
			}
		}
	})
}

// FuzzFile reads whole files in every format: nothing panics, and every line is used, passed over or reported.
func FuzzFile(f *testing.F) {
	f.Add([]byte("A:0:*:6161\n# x\n\nB\n"), uint8(bodyFormat))
	f.Add([]byte("44d88612fea8a8f36de82e1278abb02f:68:A\r\n44d88612fea8a8f36de82e1278abb02f:*:A"), uint8(digestFormat))
	f.Add([]byte("Name\nName:x\n"), uint8(ignoreFormat))
	f.Add(container(f, true, map[string]string{"a.ndb": "A:0:*:6161\n", "a.ign2": "A\n"}), uint8(archiveFormat))
	f.Add(container(f, false, map[string]string{"a.ldb": "A:0:*:6161\n", "a.hdb": "A"}), uint8(archiveFormat))
	f.Fuzz(func(t *testing.T, content []byte, kind uint8) {
		form := format(kind%uint8(archiveFormat)) + 1
		cfg := Default()
		cfg.MaxSize = 1 << 20
		b := newBuilder(cfg)
		if form == archiveFormat {
			if err := b.container("a", bytes.NewReader(content), true); err == nil {
				_ = b.container("a", bytes.NewReader(content), false)
			}
		} else if err := b.file("a", form, bytes.NewReader(content)); err == nil {
			want := 0
			for _, l := range bytes.Split(content, []byte("\n")) {
				if l = trimLine(l); len(l) > 0 && l[0] != '#' {
					want++
				}
			}
			if got := b.report.Files[0]; got.Used+got.Skipped != want || got.Skipped != b.report.Skipped {
				t.Errorf("of %d lines %d are used, %d not; %d reported", want, got.Used, got.Skipped, b.report.Skipped)
			}
		}
		b.database(b.report.Updated).fuzzScan(t)
	})
}

// fuzzScan scans a text with the database.
func (db *database) fuzzScan(t *testing.T) { sameEverywhere(t, db, scan.EICAR()) }
