package intercept

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRenegotiationIsNoticed has OpenSSL's server ask for a client certificate on a connection that is in use.
func TestRenegotiationIsNoticed(t *testing.T) {
	root := newRoot(t)
	i := gatewayOf(t, root)
	leaf := root.leaf([]string{"site.example"}, nil)
	der, err := x509.MarshalECPrivateKey(leaf.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "leaf.pem")
	writeFile(t, file, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	cmd := exec.CommandContext(t.Context(), "openssl", "s_server", "-accept", addr, "-cert", file, "-tls1_2", "-naccept", "1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	at := netip.MustParseAddrPort(addr)
	conn, err := i.Open(t.Context(), to("site.example", at))
	for range 200 {
		if err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond) // it does not listen yet
		conn, err = i.Open(t.Context(), to("site.example", at))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(in, "R\n"); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1))
	if !Renegotiates(err) {
		t.Fatalf("error %v is not known as a renegotiation", err)
	}
	learned := 0
	if f := (&Session{renegotiated: func() { learned++ }}).Failed(err, true); f == nil || f.Kind != FaultClientCertificate || learned != 1 {
		t.Errorf("fault %v, learned %d times", f, learned)
	}
	if f := (&Session{renegotiated: func() { learned++ }}).Failed(err, false); f == nil || f.Kind != FaultNotAllowed || learned != 1 {
		t.Errorf("for a part of a page: fault %v, learned %d times", f, learned)
	}
	for _, s := range []*Session{nil, {}} {
		if f := s.Failed(err, true); f == nil || f.Kind != FaultNotAllowed || !strings.Contains(f.Detail, "client certificate") {
			t.Errorf("fault %v", f)
		}
	}
	if f := (&Session{}).Failed(io.EOF, true); f != nil {
		t.Errorf("an end is taken for %v", f)
	}
}

// TestRenegotiationIsRememberedForItsClientAndShortly follows what one has taught from its beginning to its end.
func TestRenegotiationIsRememberedForItsClientAndShortly(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	i := gatewayWith(t, newRoot(t), Options{StateDir: dir, Now: func() time.Time { return now }}, func(c *Config) { c.PinnedAlerts = 1 })
	mine := Target{Host: "Site.example.", Port: 443, Client: netip.MustParseAddrPort("[::ffff:192.0.2.1]:7")}
	other := mine
	other.Client = netip.MustParseAddrPort("192.0.2.9:7")
	i.learnRenegotiation(&origin{i: i, target: mine, name: "site.example"})
	want := func(what string, target Target, rule Rule) {
		t.Helper()
		if d := i.Decide(t.Context(), target); d.Rule != rule {
			t.Errorf("%s: %v", what, d)
		}
	}
	want("the client", mine, RuleLearned)
	want("another client", other, RuleNone)
	want("a target without a client", Target{Host: "site.example", Port: 443}, RuleNone)
	// It lasts while it is used, and another rule for the same client stands beside it.
	i.pins.accepted.put(netip.MustParseAddr("192.0.2.1"), struct{}{}, now.Add(acceptedLife))
	i.pinned(mine, "site.example", &clientError{what: "refused", err: &net.OpError{Op: "remote error", Err: tls.AlertError(42)}})
	for range 5 {
		now = now.Add(renegotiationLife * 3 / 4)
		if x := i.Explain(t.Context(), mine, false); x.Decision.Rule != RuleLearned {
			t.Errorf("explained by %v", x.Decision)
		}
		want("in use", mine, RuleLearned)
	}
	now = now.Add(renegotiationLife / 4)
	i.Explain(t.Context(), mine, false)
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	i = gatewayWith(t, newRoot(t), Options{StateDir: dir, Now: func() time.Time { return now }})
	want("after a restart", mine, RuleLearned)
	now = now.Add(renegotiationLife)
	want("when it was not used for as long", mine, RulePinned)
	i.cfg.PinnedAlerts = 0
	want("pins apart", mine, RuleNone)
	i.cfg.ClientCertificates = certsRefuse
	i.learnRenegotiation(&origin{i: i, target: mine, name: "site.example"})
	want("where policy has changed", mine, RuleNone)
}
