// Package tls runs the real gateway between real TLS clients and origins with faults.
package tls

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/test/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Clean()
	os.Exit(code)
}

// origin is an HTTPS server that counts what reaches it.
type origin struct {
	addr     string
	requests atomic.Int64
	mu       sync.Mutex
	resumed  []bool // of each connection
}

func serve(t *testing.T, cfg *tls.Config) *origin {
	t.Helper()
	o := &origin{}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.resumed = append(o.resumed, cs.DidResume)
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.addr = l.Addr().String()
	srv := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			o.requests.Add(1)
			w.Header().Set("Strict-Transport-Security", "max-age=31536000")
			fmt.Fprint(w, "hello")
		}),
	}
	go func() { _ = srv.Serve(tls.NewListener(l, cfg)) }()
	t.Cleanup(func() { _ = srv.Close() })
	return o
}

func curl(g *harness.Gateway, args ...string) (status, body string) {
	out, err := exec.Command("curl", append([]string{"-sS", "-m", "30", "-x", "http://" + g.Proxy, "--cacert", g.CAFile(), "-w", "\n%{http_code}"}, args...)...).CombinedOutput()
	i := strings.LastIndexByte(string(out), '\n')
	if err != nil || i < 0 {
		return "failed", string(out)
	}
	return string(out[i+1:]), string(out[:i])
}

// TestFaultyOriginsAreExplained has an origin for each fault; the page comes under a certificate that the client trusts (as
// it must for hosts with HSTS), names the fault, and no request has left. "lazaret explain" says the same.
func TestFaultyOriginsAreExplained(t *testing.T) {
	trusted, stranger := harness.NewCA(t), harness.NewCA(t)
	day := 24 * time.Hour
	cases := []struct {
		name  string
		leaf  tls.Certificate
		max   uint16
		fault string // what explain calls it; empty: none
	}{
		{"nothing is wrong", trusted.Leaf(t, nil, "localhost", "127.0.0.1"), 0, ""},
		{"an authority that nobody trusts", stranger.Leaf(t, nil, "localhost", "127.0.0.1"), 0, "untrusted"},
		{"another name", trusted.Leaf(t, nil, "other.example"), 0, "name"},
		{"a name in the subject alone", trusted.Leaf(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }, "localhost"), 0, "name"},
		{"expired", trusted.Leaf(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*day), time.Now().Add(-day) }, "localhost", "127.0.0.1"), 0, "expired"},
		{"not valid yet", trusted.Leaf(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(day), time.Now().Add(2*day) }, "localhost", "127.0.0.1"), 0, "not"},
		{"for clients", trusted.Leaf(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "localhost", "127.0.0.1"), 0, "usage"},
		{"TLS 1.1", trusted.Leaf(t, nil, "localhost", "127.0.0.1"), tls.VersionTLS11, "handshake"},
	}
	g := harness.Start(t, nil, trusted.File)
	t.Logf("%-34s %-9s %-8s %s", "the origin's certificate", "page", "explain", "fault")
	for _, c := range cases {
		o := serve(t, &tls.Config{Certificates: []tls.Certificate{c.leaf}, MinVersion: tls.VersionTLS10, MaxVersion: c.max})
		target := "https://" + o.addr + "/"
		status, body := curl(g, target)
		out, err := exec.Command(harness.Binary(t), "explain", "--json", "--config", g.Config, target).CombinedOutput()
		var x struct{ Outcome, Fault, Why string }
		x.Outcome = "?"
		if e := json.Unmarshal(out, &x); e != nil {
			t.Errorf("%s: explain: %v: %s", c.name, e, out)
		}
		t.Logf("%-34s %-9s %-8s %s", c.name, status, x.Outcome, x.Fault)
		if c.fault == "" {
			if status != "200" || body != "hello" || x.Outcome != "scanned" || err != nil || o.requests.Load() != 1 {
				t.Errorf("%s: %s %q, explain %+v, %v", c.name, status, body, x, err)
			}
			continue
		}
		if status != "502" || x.Outcome != "refused" || x.Fault == "" || err == nil {
			t.Errorf("%s: %s %q, explain %+v, %v", c.name, status, body, x, err)
		}
		if o.requests.Load() != 0 {
			t.Errorf("%s: a request has reached the origin", c.name)
		}
	}
}

// TestResumptionIsCoupled has openssl connect again and again through the proxy; the origin sees as many sessions resumed as
// openssl does.
func TestResumptionIsCoupled(t *testing.T) {
	ca := harness.NewCA(t)
	for _, version := range []string{"tls1_2", "tls1_3"} {
		t.Run(version, func(t *testing.T) {
			o := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.Leaf(t, nil, "localhost", "127.0.0.1")}})
			g := harness.Start(t, nil, ca.File)
			session := t.TempDir() + "/session"
			visit := func(args ...string) string {
				_, port, _ := net.SplitHostPort(o.addr)
				cmd := exec.Command("openssl", append([]string{
					"s_client", "-proxy", g.Proxy, "-connect", "localhost:" + port, "-servername", "localhost", "-CAfile", g.CAFile(), "-" + version, "-ign_eof",
				}, args...)...)
				cmd.Stdin = strings.NewReader("GET / HTTP/1.1\r\nHost: localhost:" + port + "\r\nConnection: close\r\n\r\n")
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(string(out), "hello") {
					t.Fatalf("openssl %v: %v\n%s", args, err, out)
				}
				return string(out)
			}
			first := visit("-sess_out", session)
			if !strings.Contains(first, "New, TLS") || !strings.Contains(first, "Verify return code: 0") {
				t.Errorf("the first visit:\n%s", first)
			}
			again := visit("-sess_in", session)
			if !strings.Contains(again, "Reused, TLS") {
				t.Errorf("the second visit is not resumed:\n%s", again)
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			if len(o.resumed) != 2 || o.resumed[0] || !o.resumed[1] {
				t.Errorf("the origin saw (resumed or not) %v", o.resumed)
			}
		})
	}
}

// TestTwoClientsShareNoSession has two clients visit one origin: each has a session of its own with it.
func TestTwoClientsShareNoSession(t *testing.T) {
	ca := harness.NewCA(t)
	o := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.Leaf(t, nil, "localhost", "127.0.0.1")}})
	g := harness.Start(t, nil, ca.File)
	for range 2 {
		if status, body := curl(g, "https://"+o.addr+"/"); status != "200" {
			t.Fatal(status, body)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.resumed) != 2 || o.resumed[0] || o.resumed[1] {
		t.Errorf("two processes of curl made the origin see (resumed or not) %v", o.resumed)
	}
}

// TestClientCertificateIsTheClientsOwn has an origin ask for a client certificate: the connection is passed through, curl's own
// certificate arrives, the host is remembered, listed, and forgotten.
func TestClientCertificateIsTheClientsOwn(t *testing.T) {
	ca := harness.NewCA(t)
	own := ca.Leaf(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "ann")
	dir := t.TempDir()
	writePEM(t, dir+"/ann.pem", own)
	o := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.Leaf(t, nil, "localhost", "127.0.0.1")}, ClientAuth: tls.RequireAnyClientCert})
	g := harness.Start(t, nil, ca.File)
	for range 2 {
		out, err := exec.Command("curl", "-sS", "-m", "30", "-x", "http://"+g.Proxy, "--cacert", ca.File, "--cert", dir+"/ann.pem", "https://"+o.addr+"/").CombinedOutput()
		if err != nil || string(out) != "hello" {
			t.Fatalf("%v: %s", err, out)
		}
	}
	list := func() string {
		out, err := exec.Command(harness.Binary(t), "bypass", "list", "--config", g.Config).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(list(), o.addr); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is not among the learned hosts: %s", o.addr, list())
		}
	}
	if out, err := exec.Command(harness.Binary(t), "bypass", "forget", "--config", g.Config, o.addr).CombinedOutput(); err != nil || strings.Contains(list(), o.addr) {
		t.Errorf("forgetting: %v: %s; listed are %s", err, out, list())
	}
}
