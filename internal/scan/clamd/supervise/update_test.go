package supervise_test

import (
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd/supervise"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"
)

// mirror serves one database of ours.
type mirror struct {
	*httptest.Server
	text   atomic.Pointer[string]
	status atomic.Int32
	asked  atomic.Int32
}

func newMirror(t *testing.T) *mirror {
	t.Helper()
	m := &mirror{}
	m.serve(ndb("Served-First", "the first virus of the mirror"))
	m.status.Store(http.StatusOK)
	began := time.Now()
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.asked.Add(1)
		if s := int(m.status.Load()); s != http.StatusOK {
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(s)
			return
		}
		// freshclam fetches what is newer than what it has; each state of the file is a second newer than the one before.
		http.ServeContent(w, r, "own.ndb", began.Add(time.Duration(m.asked.Load())*time.Minute), strings.NewReader(*m.text.Load()))
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) serve(text string) { m.text.Store(&text) }

func ndb(name, body string) string { return name + ":0:*:" + hex.EncodeToString([]byte(body)) + "\n" }

// updater returns one that fetches only what the mirror has, and the directory that it fills.
func updater(t *testing.T, m *mirror, change func(*supervise.UpdateConfig), changed func()) (*supervise.Updater, string, *output) {
	t.Helper()
	if _, err := supervise.FindFreshclam(); err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	parent, err := os.MkdirTemp("", "lzr-fresh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := supervise.DefaultUpdate()
	cfg.Official, cfg.CustomURLs = false, []string{m.URL + "/own.ndb"}
	if change != nil {
		change(&cfg)
	}
	out, database := &output{}, filepath.Join(parent, "db")
	u, err := supervise.NewUpdater(cfg, t.TempDir(), database, "", logTo(out), changed)
	if err != nil {
		t.Fatal(err)
	}
	return u, database, out
}

func TestFreshclamFetchesAndClamdReloads(t *testing.T) {
	m := newMirror(t)
	changes := 0
	u, database, log := updater(t, m, nil, func() { changes++ })
	u.Update(t.Context())
	if st := u.State(); st.Err != nil || st.Changed != 1 || changes != 1 || supervise.CheckDatabase(database) != nil {
		t.Fatalf("after the first run: %+v, %d changes\n%s", st, changes, log.b.String())
	}
	cfg := config(t)
	cfg.Database = database
	s, c, _ := run(t, cfg)
	second := "the second virus of the mirror"
	expect(t, c, "what the mirror knows", []byte("xx the first virus of the mirror xx"), scan.Infected, scan.NoReason)
	expect(t, c, "what it does not know yet", []byte("xx "+second+" xx"), scan.Clean, scan.NoReason)
	before, _ := c.Version()

	m.serve(ndb("Served-First", "the first virus of the mirror") + ndb("Served-Second", second))
	u.Update(t.Context())
	if st := u.State(); st.Err != nil || changes != 2 {
		t.Fatalf("after the second run: %+v, %d changes\n%s", st, changes, log.b.String())
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what has come is found", func() bool {
		return scan.Ask(t.Context(), c, scantest.Object(t, scantest.Pool(t), []byte("xx "+second+" xx"))).Outcome == scan.Infected
	})
	eventually(t, "a new version, so that remembered verdicts are not used any more", func() bool {
		v, ok := c.Version()
		return ok && v.Signatures != before.Signatures
	})
}

func TestMirrorThatIsGoneIsTriedLaterAndLater(t *testing.T) {
	m := newMirror(t)
	u, _, log := updater(t, m, nil, func() { t.Error("there is nothing new") })
	m.Close()
	var waits []time.Duration
	for range 3 {
		u.Update(t.Context())
		st := u.State()
		if st.Err == nil || !strings.Contains(st.Err.Error(), "cannot be reached") {
			t.Fatalf("%v\n%s", st.Err, log.b.String())
		}
		waits = append(waits, st.Next.Sub(st.Last))
	}
	if waits[1] != 2*waits[0] || waits[2] != 2*waits[1] {
		t.Errorf("the pauses are %v: they are not doubled", waits)
	}
}

func TestDamagedDatabaseIsNotTaken(t *testing.T) {
	m := newMirror(t)
	u, database, log := updater(t, m, nil, nil)
	u.Update(t.Context())
	good, err := os.ReadFile(filepath.Join(database, "own.ndb"))
	if err != nil {
		t.Fatalf("%v\n%s", err, log.b.String())
	}
	m.serve("this is no database\n")
	u.Update(t.Context())
	if st := u.State(); st.Err == nil {
		t.Errorf("no error\n%s", log.b.String())
	}
	if now, err := os.ReadFile(filepath.Join(database, "own.ndb")); err != nil || string(now) != string(good) {
		t.Errorf("it is %q now, %v", now, err)
	}
}

func TestRateLimitOfTheMirrorIsRespected(t *testing.T) {
	m := newMirror(t)
	u, _, log := updater(t, m, func(c *supervise.UpdateConfig) {
		c.Checks = 1
	}, nil)
	m.status.Store(http.StatusTooManyRequests)
	u.Update(t.Context())
	st := u.State()
	if m.asked.Load() == 0 {
		t.Fatalf("nobody was asked\n%s", log.b.String())
	}
	if st.Err == nil || !strings.Contains(st.Err.Error(), "limits how often") || st.Next.Sub(st.Last) < time.Hour {
		t.Errorf("next in %v: %v\n%s", st.Next.Sub(st.Last), st.Err, log.b.String())
	}
}

func TestUpdateSettings(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*supervise.UpdateConfig)
		want   string
	}{
		"too often":       {func(c *supervise.UpdateConfig) { c.Checks = 51 }, "checks: "},
		"no mirror":       {func(c *supervise.UpdateConfig) { c.Mirrors = nil }, "mirrors: "},
		"an option":       {func(c *supervise.UpdateConfig) { c.Mirrors = []string{"a\nOnUpdateExecute /bin/sh"} }, "mirrors: "},
		"an option later": {func(c *supervise.UpdateConfig) { c.CustomURLs = []string{"http://a/b.ndb\nOnErrorExecute /x"} }, "custom_urls: "},
		"a program":       {func(c *supervise.UpdateConfig) { c.CustomURLs = []string{"http://a/b.exe"} }, "custom_urls: "},
		"another scheme":  {func(c *supervise.UpdateConfig) { c.CustomURLs = []string{"gopher://a/b.ndb"} }, "custom_urls: "},
		"proxy":           {func(c *supervise.UpdateConfig) { c.Proxy = "proxy:3128" }, "proxy: "},
		"no time":         {func(c *supervise.UpdateConfig) { c.Timeout = 0 }, "timeout: "},
	} {
		cfg := supervise.DefaultUpdate()
		c.change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := supervise.DefaultUpdate().Validate(); err != nil {
		t.Error(err)
	}
}

func TestSlowFreshclamIsEnded(t *testing.T) {
	held := make(chan struct{})
	m := newMirror(t)
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-held:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(held)
	u, _, log := updater(t, m, func(c *supervise.UpdateConfig) {
		c.CustomURLs, c.Timeout = []string{slow.URL + "/own.ndb"}, units.Duration(time.Second)
	}, nil)
	u.Update(t.Context())
	if st := u.State(); st.Err == nil || !strings.Contains(st.Err.Error(), "freshclam") {
		t.Errorf("%v\n%s", st.Err, log.b.String())
	}
}
