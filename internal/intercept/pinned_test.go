package intercept

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// pinnedVisit makes a handshake through d with a client that trusts roots, and returns what Accept made of it.
func pinnedVisit(t *testing.T, d *door, roots *x509.CertPool, from string, version uint16) (s *Session, err error) {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := tls.DialWithDialer(dialer, "tcp", d.addr.String(), &tls.Config{ServerName: "app.example", RootCAs: roots, MaxVersion: version, MinVersion: version})
	if err == nil {
		defer c.Close()
		_, _ = io.WriteString(c, "x")
	}
	select {
	case s := <-d.sessions:
		return s, nil
	case err := <-d.errs:
		return nil, err
	case <-time.After(20 * time.Second):
		t.Fatal("Accept did not end")
	}
	return nil, nil
}

func TestPinnedClientIsPassedThroughAfterItsAlerts(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			root := newRoot(t)
			cert := root.leaf([]string{"app.example"}, nil)
			org := newOrigin(t, cert)
			dir, now := t.TempDir(), time.Now()
			var later atomic.Int64
			clock := func() time.Time { return now.Add(time.Duration(later.Load())) }
			i := gatewayWith(t, root, Options{StateDir: dir, Now: clock}, func(c *Config) { c.PinnedAlerts = 2 })
			d := openDoor(t, i, to("app.example", org))
			pinned := x509.NewCertPool()
			pinned.AddCert(root.cert)

			// Somebody without our CA gets nowhere by alerts, however many.
			for range 5 {
				if s, err := pinnedVisit(t, d, pinned, "127.0.0.3", version); err == nil {
					t.Fatalf("%v (%s)", s.Mode, s.Reason)
				}
			}
			// The client has our CA, and an application on it does not want it.
			if s, err := pinnedVisit(t, d, i.ca.pool(), "127.0.0.2", version); err != nil || s.Mode != Inspect {
				t.Fatalf("%v, %v", s, err)
			}
			for range 2 {
				later.Add(int64(alertBurst))
				_, err := pinnedVisit(t, d, pinned, "127.0.0.2", version)
				if name, ok := certificateAlert(err); !ok || (name != "bad_certificate" && name != "unknown_ca") {
					t.Fatalf("alert %q (%v) of %v", name, ok, err)
				}
			}
			s, err := pinnedVisit(t, d, pinned, "127.0.0.2", version)
			if err != nil || s.Mode != Tunnel || s.Rule != RulePinned {
				t.Fatalf("%+v, %v", s, err)
			}
			// Nobody else is let through, and the client is not to other hosts.
			if _, err := pinnedVisit(t, d, pinned, "127.0.0.3", version); err == nil {
				t.Error("another client was passed through too")
			}
			client := netip.MustParseAddrPort("127.0.0.2:99")
			for _, other := range []Target{{Host: "other.example", Port: org.Port(), Client: client}, {Host: "app.example", Port: 1, Client: client}} {
				if d := i.Decide(t.Context(), other); d.Mode != Inspect {
					t.Errorf("%+v: %v (%s)", other, d.Mode, d.Reason)
				}
			}
			here := Target{Host: "app.example", Port: org.Port(), Addr: org, Client: client}
			if x := i.Explain(t.Context(), here, false); x.Decision.Rule != RulePinned {
				t.Errorf("explained by %v", x.Decision)
			}
			// It is shown, outlives a restart, and can be taken back.
			if l := i.Learned(); len(l) != 1 || l[0].Client != "127.0.0.2" || l[0].Host == "" || !l[0].Until.After(now) {
				t.Errorf("learned: %+v", l)
			}
			if err := i.Close(); err != nil {
				t.Fatal(err)
			}
			if l, err := ReadLearned(dir); err != nil || len(l) != 1 || l[0].Client != "127.0.0.2" {
				t.Errorf("in the file: %+v, %v", l, err)
			}
			if gone, err := ForgetLearned(dir, "app.example"); err != nil || len(gone) != 1 {
				t.Errorf("forgotten: %+v, %v", gone, err)
			}
			i.learned.looked = time.Time{} // as if the last look was a while ago
			if d := i.Decide(t.Context(), here); d.Mode != Inspect {
				t.Errorf("after it was forgotten: %v (%s)", d.Mode, d.Reason)
			}
		})
	}
}

func TestPinnedClientsAreForgotten(t *testing.T) {
	now := time.Now()
	i := gatewayWith(t, newRoot(t), Options{Now: func() time.Time { return now }}, func(c *Config) { c.PinnedAlerts = 2 })
	target := Target{Host: "app.example", Port: 443, Client: netip.MustParseAddrPort("[::ffff:192.0.2.1]:7")}
	alert := &clientError{what: "the TLS handshake failed", err: &net.OpError{Op: "remote error", Err: tls.AlertError(46)}}
	mode := func() Mode { return i.Decide(t.Context(), target).Mode }

	i.pinned(target, "app.example", nil)
	i.pinned(target, "app.example", alert)
	now = now.Add(alertWindow)
	i.pinned(target, "app.example", alert)
	if mode() != Inspect {
		t.Fatal("alerts of different hours were added up")
	}
	i.pinned(target, "app.example", &clientError{what: "gone", err: io.EOF})
	i.pinned(target, "app.example", &clientError{what: "gone", err: &net.OpError{Op: "remote error", Err: tls.AlertError(40)}})
	if mode() != Inspect {
		t.Fatal("what is no certificate alert counts")
	}
	i.pinned(target, "app.example", nil)
	i.pinned(target, "app.example", alert)
	if mode() != Inspect {
		t.Fatal("a certificate that was accepted meanwhile does not count")
	}
	for range 4 {
		now = now.Add(alertBurst / 5)
		if i.pinned(target, "app.example", alert); mode() != Inspect {
			t.Fatal("one visit of a browser that tries again by itself suffices")
		}
	}
	now = now.Add(alertBurst / 5)
	i.pinned(target, "app.example", alert)
	if mode() != Tunnel {
		t.Fatal("two alerts did not suffice")
	}
	now = now.Add(i.cfg.Pinned.Std())
	if mode() != Inspect {
		t.Error("it is not forgotten")
	}
	i.pinned(target, "app.example", nil)
	i.cfg.PinnedAlerts = 0
	for range 10 {
		i.pinned(target, "app.example", alert)
	}
	if mode() != Inspect || len(i.Learned()) != 0 {
		t.Error("what is switched off learns")
	}
}

func TestAlertAtAPageAboutAFaultDoesNotCount(t *testing.T) {
	// The leaf of such a page vouches for nothing, and a tunnel there would lead to an origin that nobody verified.
	root := newRoot(t)
	org := newOrigin(t, newRoot(t).leaf([]string{"app.example"}, nil))
	i := gatewayOf(t, root, func(c *Config) { c.PinnedAlerts = 1 })
	d := openDoor(t, i, to("app.example", org))
	i.pins.accepted.put(netip.MustParseAddr("127.0.0.2"), struct{}{}, time.Now().Add(time.Hour))
	for range 2 {
		if s, err := pinnedVisit(t, d, x509.NewCertPool(), "127.0.0.2", tls.VersionTLS13); err == nil {
			t.Fatalf("%v (%s)", s.Mode, s.Reason)
		}
	}
	if l := i.Learned(); len(l) != 0 {
		t.Errorf("learned: %+v", l)
	}
}

func TestCertificateAlertsAreToldFromOtherEnds(t *testing.T) {
	for code := range 256 {
		want := code >= 42 && code <= 46 || code == 48
		_, got := certificateAlert(&net.OpError{Op: "remote error", Err: tls.AlertError(code)})
		_, local := certificateAlert(&net.OpError{Op: "local error", Err: tls.AlertError(code)})
		if got != want || local {
			t.Errorf("alert %d: %v and of our own %v, want %v and false", code, got, local, want)
		}
	}
	for _, err := range []error{nil, io.EOF, &net.OpError{Op: "remote error"}, &net.OpError{Op: "remote error", Err: errors.New("bad certificate")}} {
		if name, ok := certificateAlert(err); ok {
			t.Errorf("%v is %s", err, name)
		}
	}
}

func TestDecisionsAreCountedByRule(t *testing.T) {
	root := newRoot(t)
	org := newOrigin(t, root.leaf([]string{"site.example"}, nil))
	bad := newOrigin(t, newRoot(t).leaf([]string{"site.example"}, nil))
	i := gatewayOf(t, root, func(c *Config) { c.Tunnel = []string{"bank.example"} })
	count := func(m Mode, r Rule) int64 {
		for _, c := range i.Stats().Decisions {
			if c.Mode == m && c.Rule == r {
				return c.Count
			}
		}
		t.Fatalf("%v by %v has no count", m, r)
		return 0
	}
	for _, r := range rules {
		if len(ruleModes[r]) == 0 {
			t.Errorf("nothing is known of the rule %s", r)
		}
	}
	i.Decide(t.Context(), Target{Host: "bank.example", Port: 443})
	i.Decide(t.Context(), Target{Host: "a b", Port: 443})
	i.Decide(t.Context(), Target{Host: "site.example", Port: 443})
	i.Explain(t.Context(), Target{Host: "bank.example", Port: 443}, false)
	for _, o := range []netip.AddrPort{org, bad} {
		d := openDoor(t, i, to("site.example", o))
		if _, _, err := fetch(t, d, i.ca.pool(), "site.example", nil); err != nil {
			t.Fatal(err)
		}
	}
	if a, b, c := count(Tunnel, RuleList), count(Refuse, RuleTarget), count(Inspect, RuleNone); a != 1 || b != 1 || c != 2 {
		t.Errorf("%d tunnelled, %d refused, %d inspected; want 1, 1 and 2", a, b, c)
	}
	if n := i.Stats().Faults; n[FaultUntrusted] != 1 || len(n) != len(faultKinds) {
		t.Errorf("faults: %v", n)
	}
}

func TestForgetByOthersAndLearnedBothSidesAreMerged(t *testing.T) {
	dir, now := t.TempDir(), time.Now().Truncate(time.Second)
	clock := func() time.Time { return now }
	log := slog.New(slog.DiscardHandler)
	if l, err := ReadLearned(dir); err != nil || len(l) != 0 {
		t.Fatalf("of nothing: %v, %v", l, err)
	}
	if gone, err := ForgetLearned(dir, "a.example"); err != nil || len(gone) != 0 {
		t.Fatalf("of nothing: %v, %v", gone, err)
	}
	one, two := newLearnedHosts(dir, log, clock), newLearnedHosts(dir, log, clock)
	until := now.Add(time.Hour)
	one.add(Learned{Host: "a.example:443", Reason: "r", Until: until})
	two.add(Learned{Host: "b.example:443", Client: "192.0.2.1", Reason: "r", Until: until})
	for _, l := range []*learnedHosts{one, two} {
		if err := l.save(); err != nil {
			t.Fatal(err)
		}
	}
	one.looked = time.Time{}
	if l := one.list(); len(l) != 2 {
		t.Errorf("one side knows %+v of what both learned", l)
	}
	// What is forgotten in the file is forgotten in memory, though something new waits to be written.
	one.add(Learned{Host: "c.example:443", Reason: "r", Until: until})
	if gone, err := ForgetLearned(dir, "A.example:443"); err != nil || len(gone) != 1 || gone[0].Host != "a.example:443" {
		t.Fatalf("forgot %+v, %v", gone, err)
	}
	if err := one.save(); err != nil {
		t.Fatal(err)
	}
	l, err := ReadLearned(dir)
	if err != nil || len(l) != 2 || l[0].Host != "b.example:443" || l[1].Host != "c.example:443" {
		t.Errorf("at last %+v, %v", l, err)
	}
}
