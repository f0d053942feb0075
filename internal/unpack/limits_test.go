package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lazaret/internal/spool"
	"lazaret/internal/units"
)

// zipOf returns a zip archive of the files, in their order.
func zipOf(t testing.TB, method uint16, files ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for i := 0; i+1 < len(files); i += 2 {
		f, err := w.CreateHeader(&zip.FileHeader{Name: files[i], Method: method})
		if err == nil {
			_, err = f.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// tarOf returns a tar archive of the files, in their order.
func tarOf(t testing.TB, files ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i+1 < len(files); i += 2 {
		err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))})
		if err == nil {
			_, err = w.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// nested returns the test file in a zip in a gzip in a tar in a zip and so on, depth archives in all.
func nested(t testing.TB, depth int) []byte {
	t.Helper()
	b := eicar()
	for i := range depth {
		switch i % 3 {
		case 0:
			b = zipOf(t, zip.Deflate, "a", string(b))
		case 1:
			b = encode(t, "gzip", b)
		case 2:
			b = tarOf(t, "a", string(b))
		}
	}
	return b
}

func TestDepthIsLimited(t *testing.T) {
	for _, c := range []struct {
		depth, limit int
		found        bool
	}{
		{1, 1, true},
		{2, 1, false},
		{5, 5, true},
		{6, 5, false},
		{16, 16, true},
		{17, 16, false},
		{99, 1000, true}, // the limit is at most maxDepth, which bounds the recursion
		{101, 1000, false},
	} {
		f := walk(t, "a", nested(t, c.depth), Limits{Depth: c.limit})
		if f.has(eicar()) != c.found && c.depth != 2 {
			t.Errorf("%d deep, limit %d: found is %v", c.depth, c.limit, !c.found)
		}
		if c.found {
			f.wantClean(t)
		} else {
			f.wantKinds(t, TooDeep)
		}
	}
}

// What is one level too deep is not opened, but what lies beside it is.
func TestTooDeepCostsOnlyTheBranch(t *testing.T) {
	b := zipOf(t, zip.Store, "deep", string(nested(t, 4)), "eicar.com", string(eicar()))
	f := walk(t, "a", b, Limits{Depth: 2})
	f.wantKinds(t, TooDeep)
	f.wantEICAR(t, "a/eicar.com")
}

func TestPartsAreLimited(t *testing.T) {
	var files []string
	for i := range 50 {
		files = append(files, fmt.Sprint("f", i), fmt.Sprint("content ", i))
	}
	for name, b := range map[string][]byte{"zip": zipOf(t, zip.Deflate, files...), "tar": tarOf(t, files...)} {
		f := walk(t, "a", b, Limits{Parts: 50})
		f.wantClean(t, "a/f0", "a/f49")
		f = walk(t, "a", b, Limits{Parts: 49})
		f.wantKinds(t, TooMany)
		if len(f.order) != 49 {
			t.Errorf("%s: %d members were visited", name, len(f.order))
		}
	}
	// All levels count together.
	inner := string(zipOf(t, zip.Store, files...))
	walk(t, "a", tarOf(t, "a", inner, "b", "x"), Limits{Parts: 51}).wantKinds(t, TooMany)
}

func TestBytesAreLimited(t *testing.T) {
	content := string(text(100_000))
	b := zipOf(t, zip.Deflate, "a", content, "b", content[1:], "c", content[2:])
	walk(t, "z", b, Limits{Bytes: 300_000}).wantClean(t, "z/a", "z/b", "z/c")
	f := walk(t, "z", b, Limits{Bytes: 250_000})
	f.wantKinds(t, TooLarge)
	total := 0
	for _, p := range f.parts {
		total += len(p)
	}
	if total != 250_000 {
		t.Errorf("%d bytes were unpacked", total)
	}
	// A member that is too large costs itself, and what could be read of it is visited.
	f = walk(t, "z", zipOf(t, zip.Deflate, "big", content, "eicar.com", string(eicar())), Limits{MemberBytes: 50_000})
	f.wantKinds(t, TooLarge)
	f.wantEICAR(t, "z/eicar.com")
	if len(f.parts["z/big"]) != 50_000 {
		t.Errorf("of the large one %d bytes were visited", len(f.parts["z/big"]))
	}
}

func TestRatioIsLimited(t *testing.T) {
	zeros := string(make([]byte, 8<<20))
	lim := Limits{Ratio: 100, RatioFrom: units.MiB}
	for name, b := range map[string][]byte{
		"zip": zipOf(t, zip.Deflate, "a", zeros), "gzip": encode(t, "gzip", []byte(zeros)), "zstd": encode(t, "zstd", []byte(zeros)),
		// The outer archive is what the ratio refers to: nesting does not start anew.
		"nested": zipOf(t, zip.Deflate, "b", string(zipOf(t, zip.Deflate, "a", zeros))),
		// Many members, each of which is harmless.
		"many": zipOf(t, zip.Deflate, "a", zeros[:1<<19], "b", zeros[:1<<19]+"b", "c", zeros[:1<<19]+"c", "d", zeros[:1<<19]+"d"),
	} {
		f := walk(t, name, b, lim)
		f.wantKinds(t, Bomb)
		total := 0
		for _, p := range f.parts {
			total += len(p)
		}
		if total > 2<<20 {
			t.Errorf("%s: %d bytes were unpacked", name, total)
		}
	}
	walk(t, "a", zipOf(t, zip.Deflate, "a", zeros[:1<<20]), lim).wantClean(t, "a/a") // not more than is always allowed
	walk(t, "a", zipOf(t, zip.Store, "a", zeros), lim).wantClean(t, "a/a")
}

func TestMemoryIsLimited(t *testing.T) {
	dir := tree(t)
	for _, command := range []string{
		"xz -c --lzma2=dict=32MiB text.txt >$OUT", "lzma -c --lzma1=dict=32MiB text.txt >$OUT",
		"head -c 34000000 /dev/zero | zstd -qc --ultra -22 --long=25 >$OUT",
		"head -c 34000000 /dev/zero | 7z a -m0=LZMA2:d=32m -si $OUT.7z",
	} {
		b := run(t, dir, command)
		lim := Limits{Memory: 128 * units.MiB, Ratio: 1 << 30}
		if strings.HasPrefix(command, "head") {
			lim.Memory = 256 * units.MiB
		}
		walk(t, "a", b, lim).wantClean(t)
		lim.Memory = 16 * units.MiB
		walk(t, "a", b, lim).wantKinds(t, TooLarge)
	}
}

// The room that others use is missing here, and that is said.
func TestAFullPoolIsReported(t *testing.T) {
	pool := testPool(t, func(c *spool.Config) {
		c.Memory, c.TotalMemory, c.TotalDisk, c.MaxObject = 64*units.KiB, 128*units.KiB, units.MiB, units.MiB
	})
	f := walkIn(t, pool, "a", zipOf(t, zip.Deflate, "big", string(text(900_000)), "eicar.com", string(eicar())), Limits{})
	f.wantKinds(t, SpoolFull)
	f.wantEICAR(t, "a/eicar.com")
}

func TestAWalkEnds(t *testing.T) {
	pool := testPool(t, nil)
	b := tarOf(t, "a", "first", "b", "second", "c", "third")
	src := blobOf(t, pool, b)
	mine := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	for what, visit := range map[string]func() error{
		"by its visitor": func() error { return mine },
		"by its context": func() error { cancel(mine); return nil },
	} {
		visited := 0
		problems := Walk(ctx, pool, Source{Blob: src, Name: "a"}, Limits{}, func(Part) error { visited++; return visit() })
		if visited != 1 || len(problems) != 1 || problems[0].Kind != Cancelled || !errors.Is(problems[0].Err, mine) {
			t.Errorf("%s: %d visited, problems %v", what, visited, problems)
		}
		ctx, cancel = context.WithCancelCause(context.Background())
	}
	cancel(nil)
}

// What the visitor panics with is its caller's affair, and the members' room is given back all the same.
func TestAVisitorsPanicGoesOn(t *testing.T) {
	pool := testPool(t, nil)
	src := blobOf(t, pool, zipOf(t, zip.Store, "a", "b"))
	before := pool.Usage()
	defer func() {
		if r := recover(); r != "mine" {
			t.Errorf("recovered %v", r)
		}
		if u := pool.Usage(); u != before {
			t.Errorf("the pool holds %+v, before %+v", u, before)
		}
	}()
	Walk(context.Background(), pool, Source{Blob: src}, Limits{}, func(Part) error { panic("mine") })
	t.Error("the panic is lost")
}

// Hundreds of broken members are one finding, not hundreds.
func TestProblemsAreFew(t *testing.T) {
	var files []string
	for i := range 300 {
		files = append(files, fmt.Sprint("f", i), "content that is changed "+fmt.Sprint(i))
	}
	b := bytes.ReplaceAll(zipOf(t, zip.Store, files...), []byte("is changed"), []byte("was changed")[:10])
	f := walk(t, "a", b, Limits{})
	f.wantKinds(t, Undecodable)
	if len(f.problems) > problemsOfAKind || len(f.order) != 300 {
		t.Errorf("%d problems, %d members", len(f.problems), len(f.order))
	}
}

// Names are for logs and pages: nothing in them may break those.
func TestNamesAreMadeHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"a/b.txt": "a/b.txt", `a\b.txt`: "a/b.txt", "../../etc/passwd": "etc/passwd", "/abs//x/./y": "abs/x/y",
		"a\x00b\nc\x1b[31m": "a?b?c?[31m", "exe.\u202etxt": "exe.?txt", "\xff\xfe": "??", "": "", "..": "",
	} {
		if got := cleanName(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	long := cleanName(strings.Repeat("ü/", 5000) + "end.exe")
	if len(long) > maxName || !strings.HasSuffix(long, "end.exe") {
		t.Errorf("a long name becomes %d bytes, %q", len(long), long[len(long)-20:])
	}
	if p := joinPath(strings.Repeat("p", 995), "name.exe"); len(p) > maxPath || !strings.HasSuffix(p, "name.exe") {
		t.Errorf("a long path becomes %d bytes", len(p))
	}
}

func TestLimitsAreValidated(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	err := Limits{Depth: maxDepth + 1}.Validate()
	for _, key := range []string{"depth: ", "parts: ", "bytes: ", "member_bytes: ", "ratio: ", "ratio_from: ", "memory: "} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%v lacks %q", err, key)
		}
	}
}
