package intercept

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLearnedHostsOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	clock := func() time.Time { return now }
	log := slog.New(slog.DiscardHandler)
	l := newLearnedHosts(dir, log, clock)
	for host, life := range map[string]time.Duration{"a.example:443": time.Hour, "a.example:8443": time.Hour, "b.example:443": 3 * time.Hour, "[2001:db8::1]:443": time.Hour} {
		l.add(Learned{Host: host, Reason: "tried", Until: now.Add(life)})
	}
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, learnedFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v", st.Mode(), err)
	}
	again := newLearnedHosts(dir, log, clock)
	if got := again.list(); len(got) != 4 || got[0].Host != "[2001:db8::1]:443" || got[0].Reason != "tried" {
		t.Errorf("read again: %+v", got)
	}
	if n := again.forget("a.example"); n != 2 {
		t.Errorf("%d entries forgotten, want 2", n)
	}
	if n := again.forget("2001:db8::1"); n != 1 {
		t.Errorf("%d entries of an address forgotten, want 1", n)
	}
	if err := again.save(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	if got := newLearnedHosts(dir, log, clock).list(); len(got) != 1 || got[0].Host != "b.example:443" {
		t.Errorf("at last: %+v", got)
	}
	if err := os.WriteFile(filepath.Join(dir, learnedFile), []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := newLearnedHosts(dir, log, clock).list(); len(got) != 0 {
		t.Errorf("of a broken file: %+v", got)
	}
}

func TestLRUIsBoundedAndForgets(t *testing.T) {
	now := time.Now()
	c := newLRU[int, string](3, func() time.Time { return now })
	for n := range 4 {
		c.put(n, "x", now.Add(time.Hour))
		c.get(0)
	}
	for n, want := range []bool{true, false, true, true} {
		if _, ok := c.get(n); ok != want {
			t.Errorf("entry %d is there: %v, want %v", n, ok, want)
		}
	}
	now = now.Add(time.Hour)
	if _, ok := c.get(3); ok || c.size() != 2 {
		t.Errorf("an expired entry is there, or still takes its place (%d)", c.size())
	}
}

func TestForgetFindsWhatWasLearnedJustNow(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	l := newLearnedHosts(dir, log, time.Now)
	l.add(Learned{Host: "a.example:443", Reason: "tried", Until: time.Now().Add(time.Hour)})
	if gone, err := ForgetLately(t.Context(), dir, "a.example"); err != nil || len(gone) != 1 {
		t.Fatalf("forgotten: %+v, %v", gone, err)
	}
	l.looked = time.Time{} // as if the last look was a while ago
	if _, ok := l.get("a.example:443"); ok {
		t.Error("it is still known")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if gone, err := ForgetLately(ctx, dir, "b.example"); err == nil || len(gone) != 0 {
		t.Errorf("of nothing, given up: %+v, %v", gone, err)
	}
}
