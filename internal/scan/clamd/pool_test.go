package clamd_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"

	"github.com/pelletier/go-toml/v2"
)

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestPoolGoesOnWithoutOneAddress(t *testing.T) {
	a, b := startFake(t, "unix"), startFake(t, "tcp")
	s := newScanner(t, a.addr(), b.addr())
	defer func() { _ = s.Close() }()
	eventually(t, "both answer", func() bool { return s.States()[0].Up && s.States()[1].Up })
	for range 20 {
		expect(t, s, "EICAR", scan.EICAR(), "infected")
	}
	if a.scans.Load() < 5 || b.scans.Load() < 5 {
		t.Errorf("the work is not shared: %d and %d scans", a.scans.Load(), b.scans.Load())
	}
	a.set(t, scantest.Absent)
	for range 20 {
		expect(t, s, "EICAR with one address gone", scan.EICAR(), "infected")
	}
	eventually(t, "the loss is noticed", func() bool { return !s.States()[0].Up && s.States()[0].Err != nil })
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping with one address left: %v", err)
	}
	if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), a.addr()) {
		t.Errorf("Reload with one address gone: %v", err)
	}
	b.set(t, scantest.Absent)
	expect(t, s, "EICAR with all gone", scan.EICAR(), "incomplete scanner-down")
	if err := s.Ping(t.Context()); err == nil {
		t.Error("Ping with all gone is nil")
	}
	a.set(t, 0)
	eventually(t, "the return is noticed", func() bool { return check(t, s, scan.EICAR()) == "infected" })
}

// TestBrokenConnectionIsRetriedElsewhere has one of two addresses lose every connection in mid-scan.
func TestBrokenConnectionIsRetriedElsewhere(t *testing.T) {
	a, b := startFake(t, "unix"), startFake(t, "unix")
	a.set(t, scantest.LostBefore)
	s := newScanner(t, a.addr(), b.addr())
	defer func() { _ = s.Close() }()
	for range 10 {
		expect(t, s, "EICAR", scan.EICAR(), "infected")
	}
	if a.met.Load() == 0 || s.States()[0].Retried == 0 {
		t.Error("no connection was lost: nothing was tested")
	}
}

// TestObjectThatEndsClamdIsNotCarriedOn has an object that ends every clamd that gets it: two of three stay.
func TestObjectThatEndsClamdIsNotCarriedOn(t *testing.T) {
	fakes := []*fake{startFake(t, "unix"), startFake(t, "unix"), startFake(t, "unix")}
	addresses := make([]string, 0, len(fakes))
	for _, f := range fakes {
		f.set(t, scantest.LostBefore)
		addresses = append(addresses, f.addr())
	}
	s := newScanner(t, addresses...)
	defer func() { _ = s.Close() }()
	expect(t, s, "poison", []byte("poison"), "incomplete scanner-down")
	met := int64(0)
	for _, f := range fakes {
		met += f.met.Load()
	}
	if met != 2 {
		t.Errorf("the object was tried %d times, want 2", met)
	}
}

func TestStaleSessionCostsNothing(t *testing.T) {
	f := startFake(t, "unix")
	s := newScanner(t, f.addr())
	defer func() { _ = s.Close() }()
	for range 3 {
		expect(t, s, "EICAR", scan.EICAR(), "infected")
		if s.States()[0].Idle == 0 {
			t.Fatal("no session is kept: nothing is tested")
		}
		f.mu.Lock()
		for c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
	}
}

// TestIdleSessionIsTimedOutByClamd has clamd say what it says to an idle connection, and close it.
func TestIdleSessionIsTimedOutByClamd(t *testing.T) {
	r := startReal(t, "CommandReadTimeout 1", "ReadTimeout 1", "IdleTimeout 1")
	cfg := clamd.Default()
	cfg.Addresses, cfg.IdleTimeout = clamd.Addresses{r.unix}, units.Duration(time.Hour)
	s, err := clamd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	expect(t, s, "EICAR", scan.EICAR(), "infected")
	time.Sleep(2500 * time.Millisecond) // clamd counts in whole seconds
	if s.States()[0].Idle == 0 {
		t.Fatal("no session is kept: nothing is tested")
	}
	expect(t, s, "EICAR after a pause", scan.EICAR(), "infected")
	if got := s.States()[0].Failed; got != 0 {
		t.Errorf("%d scans failed", got)
	}
}

func TestDescriptorThatDoesNotArriveIsReplacedByBytes(t *testing.T) {
	f := startFake(t, "unix")
	f.noDescriptors.Store(true)
	s := newScanner(t, f.addr())
	defer func() { _ = s.Close() }()
	expect(t, s, "EICAR", scan.EICAR(), "infected")
	expect(t, s, "text", scantest.Text(300_000), "clean")
	if s.States()[0].HandsOver {
		t.Error("files are handed over still")
	}
}

// TestReplyToAnotherRequestIsNotTaken has the server number its replies wrongly, as after a lost reply.
func TestReplyToAnotherRequestIsNotTaken(t *testing.T) {
	f := startFake(t, "unix")
	s := newScanner(t, f.addr())
	defer func() { _ = s.Close() }()
	f.answerWith(func(content []byte) string {
		if bytes.HasPrefix(content, []byte("attack")) {
			return "OK\x001: fd[10]: OK\x002: fd[10]: OK\x003: fd[10]: OK"
		}
		return ""
	})
	for range 3 {
		expect(t, s, "attack", []byte("attack"), "incomplete unknown-reply")
		expect(t, s, "EICAR", scan.EICAR(), "infected")
	}
}

func TestNoMoreConnectionsThanConfigured(t *testing.T) {
	f := startFake(t, "unix")
	cfg := clamd.Default()
	cfg.Addresses, cfg.MaxConnections = clamd.Addresses{f.addr()}, 3
	s, err := clamd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	eventually(t, "it answers", func() bool { return s.States()[0].Up && s.Unpacks() })
	var mu sync.Mutex
	now, most := 0, 0
	f.answerWith(func([]byte) string {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		return ""
	})
	p := scantest.Pool(t)
	var wg sync.WaitGroup
	for range 30 {
		o := scantest.Object(t, p, scan.EICAR())
		wg.Go(func() {
			if v := scan.Ask(t.Context(), s, o); v.Outcome != scan.Infected {
				t.Errorf("%+v", v)
			}
		})
	}
	wg.Wait()
	if most > 3 || most < 2 {
		t.Errorf("%d scans at once, want at most 3, and more than one", most)
	}
	// One that waits for a connection gives up with its context.
	hold := make(chan struct{})
	f.answerWith(func([]byte) string { <-hold; return "" })
	for range 3 {
		o := scantest.Object(t, p, scan.EICAR())
		wg.Go(func() { scan.Ask(t.Context(), s, o) })
	}
	eventually(t, "all are busy", func() bool { return s.States()[0].Busy == 3 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Scan(ctx, scantest.Object(t, p, scan.EICAR())); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the one that waits: %v", err)
	}
	close(hold)
	wg.Wait()
}

func TestVersionFollowsTheDatabase(t *testing.T) {
	f := startFake(t, "unix")
	s := newScanner(t, f.addr())
	defer func() { _ = s.Close() }()
	var v scan.Version
	eventually(t, "a version is known", func() bool {
		var ok bool
		v, ok = s.Version()
		return ok
	})
	if v.Engine != "ClamAV 1.4.3" || v.Signatures != "27453" || v.Updated.Year() != 2025 {
		t.Errorf("the version is %+v", v)
	}
	newer := "ClamAV 1.4.3/27454/Tue Nov 25 09:01:01 2025"
	f.version.Store(&newer)
	eventually(t, "the new number is known", func() bool { v, ok := s.Version(); return ok && v.Signatures == "27454" })
	f.drop()
	if err := f.listen(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a restart changes the version", func() bool { v, ok := s.Version(); return ok && strings.HasPrefix(v.Signatures, "27454+") })
	none := "ClamAV 1.4.3"
	f.version.Store(&none)
	eventually(t, "no number is no version", func() bool { _, ok := s.Version(); return !ok && s.States()[0].Version.Engine == none })
	f.set(t, scantest.Absent)
	eventually(t, "nobody there is no version", func() bool { _, ok := s.Version(); return !ok && !s.States()[0].Up })
}

func TestLoadedSignaturesAreAVersion(t *testing.T) {
	r := startReal(t)
	cfg := clamd.Default()
	cfg.Addresses = clamd.Addresses{r.unix}
	s, err := clamd.New(cfg, clamd.WithLoaded(func() string { return "loaded-1" }), clamd.WithName("ours"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	eventually(t, "the version is known", func() bool {
		v, ok := s.Version()
		return ok && strings.HasPrefix(v.Engine, "ClamAV ") && strings.HasPrefix(v.Signatures, "loaded-1")
	})
	if s.Name() != "ours" {
		t.Errorf("the name is %q", s.Name())
	}
}

func TestReloadBringsNewSignatures(t *testing.T) {
	r := startReal(t)
	eachTransport(t, r, func(t *testing.T, s *clamd.Scanner) {
		fresh := []byte("a new threat, " + t.Name())
		expect(t, s, "before", fresh, "clean")
		r.addSignature(t, "fresh-"+strings.ReplaceAll(t.Name(), "/", "-"), fresh)
		if err := s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the new signature is used", func() bool { return check(t, s, fresh) == "infected" })
	})
}

func TestStateChangesAreLoggedOnce(t *testing.T) {
	f := startFake(t, "unix")
	var mu sync.Mutex
	var b bytes.Buffer
	lines := func(part string) int {
		mu.Lock()
		defer mu.Unlock()
		return strings.Count(b.String(), part)
	}
	cfg := clamd.Default()
	cfg.Addresses = clamd.Addresses{f.addr()}
	s, err := clamd.New(cfg, clamd.WithLogger(slog.New(slog.NewTextHandler(locked{&mu, &b}, nil))))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	eventually(t, "it is said to answer", func() bool { return lines("clamd answers") == 1 })
	f.set(t, scantest.Absent)
	eventually(t, "it is said not to", func() bool { return lines("does not answer") == 1 })
	for range 4 {
		expect(t, s, "EICAR", scan.EICAR(), "incomplete scanner-down")
	}
	if n := lines("does not answer"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
}

type locked struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func TestAddressesInASettingsFile(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`address = "unix:/a"`, "unix:/a"},
		{`address = "unix:/a, tcp:b:1,"`, "unix:/a tcp:b:1"},
		{`address = ["unix:/a", "tcp:b:1"]`, "unix:/a tcp:b:1"},
		{`timeout = "5s"`, ""},
	} {
		cfg := clamd.Default()
		if err := toml.Unmarshal([]byte(c.text), &cfg); err != nil {
			t.Errorf("%s: %v", c.text, err)
		}
		if got := strings.Join(cfg.Addresses, " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.text, got, c.want)
		}
	}
}
