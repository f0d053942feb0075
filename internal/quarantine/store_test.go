package quarantine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/units"
)

func testConfig() Config {
	c := Default()
	c.MinFree = 0
	return c
}

func open(t *testing.T, dir string, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg, dir, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func testStore(t *testing.T, change func(*Config)) *Store {
	t.Helper()
	cfg := testConfig()
	if change != nil {
		change(&cfg)
	}
	return open(t, filepath.Join(t.TempDir(), "quarantine"), cfg)
}

func entry(n int, content []byte) Entry {
	sum := sha256.Sum256(content)
	return Entry{
		ID: fmt.Sprintf("TEST-%04d", n), Time: time.Now().Add(time.Duration(n) * time.Millisecond), Protocol: "pop3", Direction: "download",
		Client: "192.0.2.7", Server: "pop.example", User: "alice", URL: "pop3://pop.example/1", From: "a@example", To: "b@example",
		Subject: "hello", Outcome: "infected", Signature: "Eicar-Test-Signature", Engine: "clamd", Name: "m.eml", Type: "message/rfc822",
		Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:]),
	}
}

func put(t *testing.T, s *Store, n int, content []byte) string {
	t.Helper()
	id, err := s.Put(t.Context(), entry(n, content), bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func list(t *testing.T, s *Store, f Filter) []string {
	t.Helper()
	var ids []string
	if err := s.List(t.Context(), f, func(e Entry) error { ids = append(ids, e.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	return ids
}

func read(t *testing.T, s *Store, id string) []byte {
	t.Helper()
	_, r, err := s.Original(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatWasPutIsThere(t *testing.T) {
	s := testStore(t, nil)
	for i, size := range []int{0, 1, 70, 64 << 10, 64<<10 - 1, 3 << 20} {
		content := bytes.Repeat([]byte{byte(i), 'x', '\r', '\n'}, size/4+1)[:size]
		id := put(t, s, i, content)
		if got := read(t, s, id); !bytes.Equal(got, content) {
			t.Errorf("%d bytes: differ", size)
		}
		e, err := s.Get(t.Context(), strings.ToLower(id))
		want := entry(i, content)
		if err != nil || e.Signature != want.Signature || e.From != want.From || e.Size != int64(size) || e.SHA256 != want.SHA256 || e.State != Stored {
			t.Errorf("%+v %v", e, err)
		}
		if st, err := os.Stat(s.path(id)); err != nil || st.Size() != e.Stored || st.Mode().Perm() != 0o600 {
			t.Errorf("the file: %v %v, the index has %d", st, err, e.Stored)
		}
	}
	if got := list(t, s, Filter{}); len(got) != 6 || got[0] != "TEST-0005" {
		t.Errorf("listed: %v", got)
	}
}

// TestNothingReadableIsOnDisk: neither EICAR nor a part of it can be found by another scanner, and nobody but the owner reads.
func TestNothingReadableIsOnDisk(t *testing.T) {
	s := testStore(t, nil)
	put(t, s, 1, scan.EICAR())
	looked := 0
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, st.Mode())
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, scan.EICAR()[:40]) {
			t.Errorf("%s holds EICAR as it is", path)
		}
		looked += len(b)
		return err
	})
	if err != nil || looked < 1000 {
		t.Fatalf("%d bytes were looked at: %v", looked, err)
	}
}

func TestPasswordsAreNotKept(t *testing.T) {
	s := testStore(t, nil)
	for i, u := range []string{
		"http://user:hunter2@example/x", "ftp://hunter2@example/", "user:hunter2@%zz", "mailto:user:hunter2@example", "http://a:hunter2@[::1]:80/",
	} {
		e := entry(i, []byte(u))
		e.URL = u
		id, err := s.Put(t.Context(), e, strings.NewReader(u))
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Get(t.Context(), id)
		if err != nil || strings.Contains(got.URL, "hunter2") {
			t.Errorf("%s: %s, %v", u, got.URL, err)
		}
	}
}

func TestPutRefusesWhatIsNotWhatWasSaid(t *testing.T) {
	s := testStore(t, nil)
	content := []byte("content")
	for name, c := range map[string]struct {
		change func(*Entry)
		r      io.Reader
	}{
		"shorter":         {nil, strings.NewReader("conten")},
		"longer":          {nil, strings.NewReader("content!")},
		"other":           {nil, strings.NewReader("Content")},
		"broken":          {nil, io.MultiReader(strings.NewReader("cont"), errReader{})},
		"no ID":           {func(e *Entry) { e.ID = "" }, bytes.NewReader(content)},
		"path as ID":      {func(e *Entry) { e.ID = "../../X" }, bytes.NewReader(content)},
		"ID too long":     {func(e *Entry) { e.ID = strings.Repeat("A", 41) }, bytes.NewReader(content)},
		"negative size":   {func(e *Entry) { e.Size = -1 }, bytes.NewReader(content)},
		"too large":       {func(e *Entry) { e.Size = 1 << 50 }, bytes.NewReader(content)},
		"ID of an option": {func(e *Entry) { e.ID = "-rf" }, bytes.NewReader(content)},
	} {
		e := entry(1, content)
		if c.change != nil {
			c.change(&e)
		}
		if id, err := s.Put(t.Context(), e, c.r); err == nil || id != "" {
			t.Errorf("%s: %q, %v", name, id, err)
		}
		files, err := os.ReadDir(s.objects)
		if err != nil || len(files) != 0 || len(list(t, s, Filter{})) != 0 {
			t.Errorf("%s: something is left: %v %v", name, files, err)
		}
		if all, err := pick(t.Context(), s.db, ""); err != nil || len(all) != 0 {
			t.Errorf("%s: the index has %v %v", name, all, err)
		}
	}
	put(t, s, 1, content)
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestTheSameAgainIsCounted(t *testing.T) {
	s := testStore(t, nil)
	first := put(t, s, 1, []byte("same"))
	if second := put(t, s, 2, []byte("same")); second != first {
		t.Errorf("kept twice: %s, %s", first, second)
	}
	other := entry(3, []byte("same"))
	other.Client = "192.0.2.8"
	if id, err := s.Put(t.Context(), other, strings.NewReader("same")); err != nil || id != other.ID {
		t.Errorf("another client's: %s %v", id, err)
	}
	if e, err := s.Get(t.Context(), first); err != nil || e.Seen != 2 || !e.LastSeen.After(e.Time) {
		t.Errorf("%+v %v", e, err)
	}
	// An entry whose file is gone is not relied on.
	if err := os.Remove(s.path(first)); err != nil {
		t.Fatal(err)
	}
	if id := put(t, s, 4, []byte("same")); id != "TEST-0004" || string(read(t, s, id)) != "same" {
		t.Errorf("%s", id)
	}
}

func TestTheOldestMakeRoom(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"number": func(c *Config) { c.MaxEntries = 3 },
		"size":   func(c *Config) { c.MaxSize = 5 * 100 * units.KiB },
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t, change)
			for i := range 8 {
				put(t, s, i, bytes.Repeat([]byte{byte(i)}, 100<<10))
			}
			got := list(t, s, Filter{})
			if len(got) < 3 || len(got) > 4 || got[0] != "TEST-0007" || slices.Contains(got, "TEST-0003") {
				t.Errorf("left: %v", got)
			}
			files, err := os.ReadDir(s.objects)
			if err != nil || len(files) != len(got) {
				t.Errorf("%d files for %d entries, %v", len(files), len(got), err)
			}
			log, err := os.ReadFile(filepath.Join(s.dir, "audit.log"))
			if err != nil || bytes.Count(log, []byte(`"action":"evict"`)) != 8-len(got) {
				t.Errorf("audit.log: %s %v", log, err)
			}
			if _, bytes, err := s.Usage(t.Context()); err != nil || bytes > int64(s.cfg.MaxSize) {
				t.Errorf("%d bytes: %v", bytes, err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	s := testStore(t, func(c *Config) { c.MaxSize = 100 * units.KiB })
	big := make([]byte, 100<<10)
	put(t, s, 1, []byte("small"))
	if _, err := s.Put(t.Context(), entry(2, big), bytes.NewReader(big)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if got := list(t, s, Filter{}); len(got) != 1 {
		t.Errorf("one that is too large has driven others out: %v", got)
	}
	s = testStore(t, func(c *Config) { c.MinFree = 1 << 60 })
	if _, err := s.Put(t.Context(), entry(1, nil), bytes.NewReader(nil)); !errors.Is(err, ErrFull) {
		t.Errorf("the disk's last bytes were taken: %v", err)
	}
	s = testStore(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, entry(1, nil), bytes.NewReader(nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestAge(t *testing.T) {
	s := testStore(t, func(c *Config) { c.MaxAge = units.Duration(time.Hour) })
	old := entry(1, []byte("old"))
	old.Time = time.Now().Add(-61 * time.Minute)
	if _, err := s.Put(t.Context(), old, strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	put(t, s, 2, []byte("new"))
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s, Filter{}); len(got) != 1 || got[0] != "TEST-0002" {
		t.Errorf("left: %v", got)
	}
}

func TestFilters(t *testing.T) {
	s := testStore(t, nil)
	for i, c := range []func(*Entry){
		func(e *Entry) {
			e.Signature = "Win.Trojan.A_b%c-1"
			e.Client = "10.1.2.3"
			e.Time = e.Time.Add(-time.Hour)
		},
		func(e *Entry) { e.Signature = "Win.Trojan.AxbXc-1"; e.Client = "2001:db8::5"; e.User = "bob" },
		func(e *Entry) { e.Protocol = "https"; e.From, e.To = "", "carol@example.org" },
	} {
		e := entry(i, []byte{byte(i)})
		c(&e)
		if _, err := s.Put(t.Context(), e, bytes.NewReader([]byte{byte(i)})); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		f    Filter
		want string
	}{
		{"all", Filter{}, "2 1 0"},
		{"limit", Filter{Limit: 2}, "2 1"},
		{"since", Filter{Since: time.Now().Add(-time.Minute)}, "2 1"},
		{"until", Filter{Until: time.Now().Add(-time.Minute)}, "0"},
		{"signature in any case", Filter{Signature: "tROJAN"}, "1 0"},
		{"signature with the signs of LIKE", Filter{Signature: "a_b%c"}, "0"},
		{"network", Filter{Client: netip.MustParsePrefix("10.0.0.0/8")}, "0"},
		{"network of IPv6", Filter{Client: netip.MustParsePrefix("2001:db8::/32")}, "1"},
		{"network and limit", Filter{Client: netip.MustParsePrefix("10.0.0.0/8"), Limit: 1}, "0"},
		{"user", Filter{User: "bob"}, "1"},
		{"protocol", Filter{Protocol: "https"}, "2"},
		{"address", Filter{Address: "CAROL@"}, "2"},
		{"digest", Filter{SHA256: strings.ToUpper(entry(1, []byte{1}).SHA256)}, "1"},
		{"quotes", Filter{Signature: `' OR 1=1 --`, User: `"`}, ""},
	} {
		var got []string
		for _, id := range list(t, s, c.f) {
			got = append(got, strings.TrimPrefix(id, "TEST-000"))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}

func TestDeleteAndPurge(t *testing.T) {
	s := testStore(t, nil)
	for i := range 5 {
		put(t, s, i, []byte{byte(i)})
	}
	if err := s.Delete(t.Context(), "test-0001", "TEST-0003"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "TEST-0001"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	if _, err := os.Stat(s.path("TEST-0001")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	stop := errors.New("stop")
	if n, err := s.Purge(t.Context(), Filter{}, func(string) error { return stop }); n != 0 || !errors.Is(err, stop) {
		t.Errorf("%d %v", n, err)
	}
	if n, err := s.Purge(t.Context(), Filter{}, func(string) error { return nil }); n != 3 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if files, err := os.ReadDir(s.objects); err != nil || len(files) != 0 {
		t.Errorf("%v %v", files, err)
	}
}

// TestManyAtOnce has two processes' worth of stores put, list and delete at the same time.
func TestManyAtOnce(t *testing.T) {
	a := testStore(t, nil)
	b := open(t, a.dir, testConfig())
	var wg sync.WaitGroup
	for i := range 40 {
		s := []*Store{a, b}[i%2]
		wg.Go(func() {
			content := bytes.Repeat([]byte{byte(i)}, 1000+i)
			if _, err := s.Put(t.Context(), entry(i, content), bytes.NewReader(content)); err != nil {
				t.Error(err)
			}
			if err := s.List(t.Context(), Filter{Limit: 3}, func(Entry) error { return nil }); err != nil {
				t.Error(err)
			}
			if i%4 == 0 {
				if err := s.Delete(t.Context(), fmt.Sprintf("TEST-%04d", i)); err != nil {
					t.Error(err)
				}
			}
			if err := s.repair(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := list(t, b, Filter{}); len(got) != 30 {
		t.Errorf("%d entries", len(got))
	}
}

func TestNone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	if _, err := Open(t.Context(), testConfig(), dir, Options{}); !errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a look has made %s", dir)
	}
}

func TestConfig(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
	c := Config{OnFailure: "x", MaxAge: -1, MinFree: -1, ReleaseHeader: "a: b"}
	err := c.Validate()
	for _, key := range []string{"on_failure", "max_size", "max_entries", "max_age", "min_free", "concurrent", "timeout", "release_header"} {
		if !strings.Contains("\n"+err.Error(), "\n"+key+": ") {
			t.Errorf("%s: not in %v", key, err)
		}
	}
	mail, web := policy.Facts{Protocol: "pop3s"}, policy.Facts{Protocol: "https"}
	block, keep := policy.Decision{}, policy.Decision{Action: policy.Pass, Quarantine: true}
	for i, got := range []struct{ got, want bool }{
		{Default().Wants(mail, block), true},
		{Default().Wants(web, block), false},
		{Default().Wants(web, keep), true},
		{Default().Wants(mail, policy.Decision{Action: policy.Pass}), false},
		{Default().Wants(mail, policy.Decision{Action: policy.Defer}), false},
		{Config{}.Wants(mail, keep), false},
		{Default().MustKeep(mail), true},
		{Default().MustKeep(web), false},
		{Config{OnFailure: failDefer}.MustKeep(web), true},
		{Config{OnFailure: failBlock}.MustKeep(mail), false},
	} {
		if got.got != got.want {
			t.Errorf("%d: %v", i, got.got)
		}
	}
}

func TestActions(t *testing.T) {
	s := testStore(t, nil)
	for i := range 3 {
		if err := s.Record(Action{Who: "alice\nmallory", Action: "show", Reference: fmt.Sprint(i), Outcome: "done"}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(s.dir, "audit.log")
	b, err := os.ReadFile(path)
	if err != nil || bytes.Count(b, []byte("\n")) != 3 {
		t.Fatalf("%s %v", b, err)
	}
	for line := range bytes.Lines(b) {
		var a Action
		if err := json.Unmarshal(line, &a); err != nil || a.Time.IsZero() || a.Who != "alice\nmallory" {
			t.Errorf("%s: %v", line, err)
		}
	}
	if err := os.Truncate(path, maxActions); err != nil {
		t.Fatal(err)
	}
	if err := s.Record(Action{Who: "x", Action: "list"}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Size() > 1000 {
		t.Errorf("%v %v", st, err)
	}
	if st, err := os.Stat(path + ".1"); err != nil || st.Size() != maxActions {
		t.Errorf("%v %v", st, err)
	}
}

func TestFoldersOfAnyName(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"relative", "./a b?c#d%3F&e", "grün'\""} {
		s := open(t, dir, testConfig())
		if id := put(t, s, 1, []byte("content")); string(read(t, s, id)) != "content" {
			t.Errorf("%s: differs", dir)
		}
		if _, err := os.Stat(filepath.Join(dir, "index.db")); err != nil {
			t.Error(err)
		}
	}
}
