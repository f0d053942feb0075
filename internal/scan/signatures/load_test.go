package signatures

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lazaret/internal/units"
)

func TestWhatIsNotUsedIsReportedWithItsPlace(t *testing.T) {
	good := "Good:0:*:" + x("good body")
	var log bytes.Buffer
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.ndb"), strings.Join([]string{
		"# a comment", good, "", "Bad", "Bad:0:*:zz", "Bad:8:*:" + x("abc"), "Bad:0:VI:" + x("abc"), "Bad:1:$2$:" + x("abc"),
		"Bad:9:EP+0:" + x("abc"), "Bad:0:*:" + x("abc") + "{5-3}" + x("def"), "Bad:0:*:61", "Bad:0:*:" + x("a") + "??" + x("b"),
		"Bad:0:*:" + x("abc") + ":300", "Bad:0:*:" + strings.Repeat("61", maxLine), "Good2:0:*:" + x("good body") + "\r",
	}, "\n")+"\n")
	write(t, filepath.Join(dir, "b.hdb"), "nonsense\n"+hashes(nil)["MD5"]+":*:Unsized\n"+hashes(nil)["MD5"]+":7:Good\n"+hashes(nil)["MD5"]+":0:Zero\n")
	write(t, filepath.Join(dir, "c.ldb"), "Logical;Engine:51-255,Target:0;0;41414141\n")
	write(t, filepath.Join(dir, "d.txt"), "read me\n")
	write(t, filepath.Join(dir, ".hidden.ndb"), "nonsense\n")
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := Default()
	cfg.Paths, cfg.Poll = []string{dir}, 0
	e, err := New(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	r := e.Loaded()
	var got []string
	for _, s := range r.Skips {
		rel, _ := filepath.Rel(dir, s.File)
		got = append(got, fmt.Sprintf("%s:%d: %s", rel, s.Line, s.Reason))
		if line := fmt.Sprintf("file=%s line=%d", s.File, s.Line); !strings.Contains(log.String(), line) {
			t.Errorf("%q is not in the log", line)
		}
	}
	want := []string{
		"c.ldb:0: unsupported file: logical", "d.txt:0: unsupported file: .txt", "sub:0: not read: a directory",
		"a.ndb:4: malformed line: wrong number", "a.ndb:5: malformed body: not pairs", "a.ndb:6: unsupported: target", "a.ndb:7: unsupported: VI",
		"a.ndb:8: unsupported: macro", "a.ndb:9: unsupported: relative offset in Mach-O", "a.ndb:10: malformed body: a {range}",
		"a.ndb:11: malformed body: a part of less", "a.ndb:12: malformed body: a part without two", "a.ndb:13: not for this engine",
		"a.ndb:14: limit: a line of more", "b.hdb:1: malformed line", "b.hdb:2: malformed line: the size *", "b.hdb:4: malformed size",
	}
	if len(got) != len(want) {
		t.Fatalf("%d are reported, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s\nwant %s", got[i], want[i])
		}
	}
	counted := 0
	for _, n := range r.Reasons {
		counted += n
	}
	if r.Skipped != len(want) || counted != len(want) || r.Bodies != 3 || r.Digests != 1 {
		t.Errorf("%d skipped, %d by reason, %d bodies, %d digests", r.Skipped, counted, r.Bodies, r.Digests)
	}
	if got := judged(t, e, []byte("a good body")); got != "Good" {
		t.Errorf("the good lines: %s", got)
	}
}

// What is not used is counted in full even where it is too much to tell one by one.
func TestManyBadLinesAreCounted(t *testing.T) {
	var log bytes.Buffer
	path := filepath.Join(t.TempDir(), "a.ndb")
	write(t, path, "Good:0:*:"+x("good body")+"\n"+strings.Repeat("Bad:8:*:6161\n", 5000))
	cfg := Default()
	cfg.Paths, cfg.Poll = []string{path}, 0
	e, err := New(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if r := e.Loaded(); r.Skipped != 5000 || len(r.Skips) != maxSkips || r.Files[0].Skipped != 5000 || r.Files[0].Used != 1 {
		t.Errorf("%d skipped, %d told, files %+v", r.Skipped, len(r.Skips), r.Files)
	}
	if lines := strings.Count(log.String(), "\n"); lines != maxSkipsLogged+2 || !strings.Contains(log.String(), "number=4980") {
		t.Errorf("%d lines in the log, the last: %s", lines, log.String()[strings.LastIndex(strings.TrimSpace(log.String()), "\n"):])
	}
}

// loads returns the error of loading path.
func loads(t *testing.T, path string, change func(*Config)) error {
	t.Helper()
	cfg := Default()
	cfg.Paths, cfg.Poll = []string{path}, 0
	if change != nil {
		change(&cfg)
	}
	e, err := New(cfg, quiet())
	if err == nil {
		_ = e.Close()
	}
	return err
}

func TestBrokenFilesAreRefused(t *testing.T) {
	good := "Good:0:*:" + x("good body") + "\n"
	for _, c := range []struct {
		what, name, content, want string
		change                    func(*Config)
	}{
		{"ends in the midst of a line", "a.ndb", good + "Half:0:*:616", "a.ndb:2: the file ends in the middle", nil},
		{"empty", "a.ndb", "", "a.ndb: the file is empty", nil},
		{"another kind", "a.hdb", strings.Repeat(good, 3), "a.hdb: all of its 3 lines are malformed", nil},
		{"unknown kind", "a.xyz", good, "a.xyz: this kind of file is not supported", nil},
		{"no container", "a.cvd", good, "a.cvd: no ClamAV database", nil},
		{"a container cut off", "a.cvd", string(container(t, true, map[string]string{"a.ndb": good})[:600]), "a.cvd", nil},
		{"a member is cut off", "a.cld", string(container(t, false, map[string]string{"a.ndb": good + "Half:0:*:616"})), "a.cld/a.ndb:2: the file ends", nil},
		{"too large", "a.ndb", strings.Repeat(good, 100), "larger in all than max_size", func(c *Config) { c.MaxSize = 2 * units.KiB }},
		{"a bomb", "a.cvd", string(container(t, true, map[string]string{"a.ndb": strings.Repeat("#\n", 1<<20)})), "larger in all than max_size", func(c *Config) { c.MaxSize = units.MiB }},
	} {
		path := filepath.Join(t.TempDir(), c.name)
		write(t, path, c.content)
		if err := loads(t, path, c.change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
	if err := loads(t, filepath.Join(t.TempDir(), "nowhere.ndb"), nil); err == nil || !strings.Contains(err.Error(), "nowhere.ndb") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// A signature file that cannot be looked at must not be passed over: nobody asked for fewer signatures.
func TestUnreadableFilesInADirectoryAreErrors(t *testing.T) {
	for what, make := range map[string]func(path string) error{
		"a link to nothing": func(path string) error { return os.Symlink("/nonexistent/file", path) },
		"a link to itself":  func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"a directory":       func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "a.ndb"), "Good:0:*:"+x("good body")+"\n")
		if err := loads(t, dir, nil); err != nil {
			t.Fatal(err)
		}
		if err := make(filepath.Join(dir, "b.ndb")); err != nil {
			t.Fatal(err)
		}
		if err := loads(t, dir, nil); err == nil || !strings.Contains(err.Error(), "b.ndb") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if os.Getuid() != 0 { // who is root reads everything
		path := filepath.Join(t.TempDir(), "a.ndb")
		write(t, path, "Good:0:*:"+x("good body")+"\n")
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		if err := loads(t, path, nil); err == nil {
			t.Error("a file without permission is loaded")
		}
	}
}

// container returns a .cvd, or .cld, of the files.
func container(tb testing.TB, compressed bool, files map[string]string) []byte {
	tb.Helper()
	var members bytes.Buffer
	w := tar.NewWriter(&members)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	out := []byte("ClamAV-VDB:23 Nov 2026 12-00 +0000:1:1:90:X:X:me:1")
	out = append(out, bytes.Repeat([]byte(" "), headerSize-len(out))...)
	if !compressed {
		return append(out, members.Bytes()...)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(members.Bytes())
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return append(out, packed.Bytes()...)
}

func TestContainers(t *testing.T) {
	line, text := badBody()
	other := []byte("quite another bad file")
	files := map[string]string{
		"COPYING": "licence\n", "a.info": "ClamAV-VDB:...\n", "a.ndb": line + "\n", "a.ldb": "x\n",
		"a.hdb":  fmt.Sprintf("%s:%d:Bad.Digest\n%s:%d:Bad.Ignored\n", hashes(other)["MD5"], len(other), hashes(text)["MD5"], len(text)),
		"a.ign2": "Bad.Ignored\n",
	}
	for name, compressed := range map[string]bool{"a.cvd": true, "a.cld": false} {
		e, _ := engine(t, map[string]string{name: string(container(t, compressed, files))})
		if got := judged(t, e, text); got != "Bad.Body" {
			t.Errorf("%s: %s", name, got)
		}
		if got := judged(t, e, other); got != "Bad.Digest" {
			t.Errorf("%s: %s", name, got)
		}
		if r := e.Loaded(); r.Ignored != 1 || r.Skipped != 2 || len(r.Files) != 3 {
			t.Errorf("%s: %d ignored, %d skipped, files %+v", name, r.Ignored, r.Skipped, r.Files)
		}
	}
}

// tick makes the engine look at its files twice, as its clock would: a change is read when it has stayed.
func tick(e *Engine) {
	e.look()
	e.look()
}

// rewrite replaces a file's content, and moves its time, which two writes in a row could share.
func rewrite(t *testing.T, path, content string, seconds int) {
	t.Helper()
	write(t, path, content)
	at := time.Now().Add(time.Duration(seconds) * time.Second)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	line, text := badBody()
	other, otherText := "Other:0:*:"+x("another one"), []byte("here is another one")
	var log bytes.Buffer
	dir := t.TempDir()
	path := filepath.Join(dir, "a.ndb")
	write(t, path, line+"\n")
	cfg := Default()
	cfg.Paths, cfg.Poll = []string{dir}, 0 // the clock is tick
	e, err := New(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	want := func(what, first, second string, logged ...string) {
		t.Helper()
		if got := judged(t, e, text); got != first {
			t.Errorf("%s: the first is %s, want %s", what, got, first)
		}
		if got := judged(t, e, otherText); got != second {
			t.Errorf("%s: the second is %s, want %s", what, got, second)
		}
		for _, l := range logged {
			if !strings.Contains(log.String(), l) {
				t.Errorf("%s: %q is not in the log:\n%s", what, l, log.String())
			}
		}
		log.Reset()
	}
	version := func() string { v, _ := e.Version(); return v.Signatures }
	first := version()
	want("at first", "Bad.Body", "clean", "signatures loaded")

	tick(e)
	if log.Len() > 0 || version() != first {
		t.Errorf("nothing changed, and yet: %s", log.String())
	}
	rewrite(t, path, other+"\n", 1)
	e.look()
	want("while it may still be written", "Bad.Body", "clean")
	e.look()
	want("replaced", "clean", "Other", "signatures loaded")
	if version() == first {
		t.Error("the version is still the same: verdicts that were kept would stay in use")
	}
	rewrite(t, filepath.Join(dir, "b.ndb"), line+"\n", 2)
	tick(e)
	want("one more", "Bad.Body", "Other")

	// From here on each is broken: what was loaded stays, and the log says why, with the line.
	second := version()
	rewrite(t, path, other+"\nHalf:0:*:616", 3)
	tick(e)
	want("cut off", "Bad.Body", "Other", "level=ERROR", "those loaded before stay in use", path+":2: the file ends in the middle")
	tick(e)
	if log.Len() > 0 {
		t.Errorf("the same error is logged again: %s", log.String())
	}
	rewrite(t, path, "", 4)
	tick(e)
	want("empty", "Bad.Body", "Other", path+": the file is empty")
	rewrite(t, path, "x\ny\n", 5)
	tick(e)
	want("garbage", "Bad.Body", "Other", "all of its 2 lines are malformed", "Line 1:")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nonexistent/a.ndb", path); err != nil {
		t.Fatal(err)
	}
	tick(e)
	want("unreadable", "Bad.Body", "Other", "make it readable")
	if err := e.Reload(); err == nil {
		t.Error("Reload says nothing of an unreadable file")
	}
	want("unreadable, and asked for", "Bad.Body", "Other")
	for _, p := range []string{path, filepath.Join(dir, "b.ndb")} {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	tick(e)
	want("all gone", "Bad.Body", "Other", "all signature files are gone")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	tick(e)
	want("the directory is gone", "Bad.Body", "Other", "name a file or directory that is there")
	if version() != second {
		t.Error("the version changed, and the signatures did not")
	}

	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	rewrite(t, path, line+"\n"+other+"\n", 6)
	tick(e)
	want("good again", "Bad.Body", "Other", "signatures loaded")
}

// One file that goes, while others stay, is what somebody wants.
func TestARemovedFileIsForgotten(t *testing.T) {
	line, text := badBody()
	e, dir := engine(t, map[string]string{"a.ndb": line + "\n", "b.ndb": "Other:0:*:" + x("another one") + "\n"})
	if err := os.Remove(filepath.Join(dir, "a.ndb")); err != nil {
		t.Fatal(err)
	}
	tick(e)
	if got := judged(t, e, text); got != "clean" {
		t.Errorf("after its file was removed: %s", got)
	}
}

func TestTheClockLooksAtTheFiles(t *testing.T) {
	line, text := badBody()
	path := filepath.Join(t.TempDir(), "a.ndb")
	write(t, path, "Other:0:*:"+x("another one")+"\n")
	cfg := Default()
	cfg.Paths, cfg.Poll = []string{path}, units.Duration(time.Millisecond)
	e, err := New(cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	rewrite(t, path, line+"\n", 1)
	for end := time.Now().Add(30 * time.Second); judged(t, e, text) != "Bad.Body"; {
		if time.Now().After(end) {
			t.Fatal("the file is not read again")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestConfigIsValidated(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	err := Config{Paths: []string{"a", ""}, Poll: -1}.Validate()
	for _, want := range []string{"paths: entry 2", "poll: ", "max_size: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if _, err := New(Config{}, quiet()); err == nil {
		t.Error("New takes what Validate does not")
	}
}
