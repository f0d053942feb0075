package web

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/content"
	"lazaret/internal/egress"
	"lazaret/internal/gate"
	"lazaret/internal/intercept"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/spool"
	"lazaret/internal/units"
	"lazaret/internal/unpack"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http says there what origins send unasked
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what should come at once.
const patience = time.Minute

// records is an audit.Sink that keeps everything.
type records struct {
	mu  sync.Mutex
	all []audit.Record
}

func (r *records) Record(x audit.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, x)
}

func (r *records) list() []audit.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// wait returns the first record that ok accepts.
func (r *records) wait(t testing.TB, what string, ok func(audit.Record) bool) audit.Record {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		for _, x := range r.list() {
			if ok(x) {
				return x
			}
		}
	}
	t.Fatalf("no record of %s; there are %+v", what, r.list())
	return audit.Record{}
}

// rig is a gateway made of the real parts, but for the scanner.
type rig struct {
	t       testing.TB
	addr    string
	server  *Server
	gate    *gate.Gate
	pool    *spool.Pool
	audit   *records
	ca      *intercept.CA
	rootCA  string // its PEM file
	root    *rootAuthority
	stopped bool
	plan    plan
}

// plan is what a test changes about a rig.
type plan struct {
	web    Config
	gate   gate.Config
	spool  spool.Config
	tls    intercept.Config
	egress egress.Config
	policy policy.Config
	engine scan.Scanner
	self   http.Handler
	log    *slog.Logger
}

func newRig(t testing.TB, change ...func(*plan)) *rig {
	t.Helper()
	root := newRootAuthority(t)
	p := plan{
		web: Default(), gate: gate.Default(), spool: spool.Default(), tls: intercept.Default(), egress: egress.Default(),
		policy: policy.Default(), engine: scantest.FindsEICAR(), log: slog.New(slog.DiscardHandler),
	}
	p.spool.Dir = t.TempDir()
	p.spool.MinFree = 0
	p.tls.ExtraRoots = []string{root.file}
	p.web.ConnectPorts = PortRanges{{1, 65535}}
	for _, f := range change {
		f(&p)
	}
	r := &rig{t: t, audit: &records{}, root: root, rootCA: root.file, plan: p}
	var err error
	if r.pool, err = spool.NewPool(p.spool); err != nil {
		t.Fatal(err)
	}
	r.gate = gate.New(p.gate, gate.Options{Pool: r.pool, Limits: unpack.Default(), Content: content.Default(), Sink: r.audit, Log: p.log})
	r.gate.Use(scan.NewSet(scan.Member{Scanner: p.engine, Required: true}), p.policy, false)
	dialer, err := egress.New(p.egress, egress.Options{AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.ca, err = (intercept.CAStore{Dir: filepath.Join(t.TempDir(), "ca")}).Init(); err != nil {
		t.Fatal(err)
	}
	i, err := intercept.New(p.tls, r.ca, dialer, intercept.Options{Logger: p.log})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := notice.New(notice.Default())
	if err != nil {
		t.Fatal(err)
	}
	r.server, err = New(p.web, Options{Gate: r.gate, Interceptor: i, Dialer: dialer, Pages: pages, Self: p.self, Log: p.log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(l) }()
	t.Cleanup(func() {
		r.stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		r.gate.Close()
		if u := r.pool.Usage(); u.Memory != 0 || u.Disk != 0 {
			t.Errorf("the spool still holds %+v", u)
		}
	})
	return r
}

// stop shuts the server down, at once.
func (r *rig) stop() {
	if r.stopped {
		return
	}
	r.stopped = true
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.server.Shutdown(ctx)
}

// client returns an HTTP client that uses the gateway, and trusts its CA.
func (r *rig) client(change ...func(*http.Transport)) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(r.ca.Certificate())
	tr := &http.Transport{
		Proxy:              http.ProxyURL(&url.URL{Scheme: "http", Host: r.addr}),
		TLSClientConfig:    &tls.Config{RootCAs: pool},
		DisableCompression: true,
		ForceAttemptHTTP2:  true,
	}
	for _, f := range change {
		f(tr)
	}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// noHTTP2 keeps a client from HTTP/2.
func noHTTP2(tr *http.Transport) {
	tr.ForceAttemptHTTP2 = false
	tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
}

// dial opens a raw connection to the proxy.
func (r *rig) dial() *rawConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	r.t.Cleanup(func() { _ = c.Close() })
	return &rawConn{Conn: c, t: r.t, br: bufio.NewReader(c)}
}

// rawConn is a client that writes what it likes.
type rawConn struct {
	net.Conn
	t  testing.TB
	br *bufio.Reader
}

func (c *rawConn) send(s string) *rawConn {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
	return c
}

// response reads one response, with its body.
func (c *rawConn) response(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.br, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("reading a response: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("reading a response's body: %v", err)
	}
	return resp, string(b)
}

// closed says whether the other side has closed the connection without sending more.
func (c *rawConn) closed() bool {
	_, err := c.br.ReadByte()
	return err != nil
}

// connect asks for a connection to hostport and makes TLS in it.
func (r *rig) connect(hostport string, protos ...string) *rawConn {
	r.t.Helper()
	return r.secure(r.connectOver(r.dial(), hostport), hostport, protos...)
}

// connectOver asks for a connection to hostport over c. Lines are further ones of the head.
func (r *rig) connectOver(c *rawConn, hostport string, lines ...string) *rawConn {
	r.t.Helper()
	c.send("CONNECT " + hostport + " HTTP/1.1\r\nHost: " + hostport + "\r\n" + strings.Join(lines, "") + "\r\n")
	if resp, err := http.ReadResponse(c.br, &http.Request{Method: http.MethodHead}); err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("CONNECT %s: %+v, %v", hostport, resp, err)
	}
	return c
}

// secure makes TLS over c.
func (r *rig) secure(c *rawConn, hostport string, protos ...string) *rawConn {
	r.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(r.ca.Certificate())
	host, _, _ := net.SplitHostPort(hostport)
	tc := tls.Client(c.Conn, &tls.Config{RootCAs: pool, ServerName: host, NextProtos: protos})
	if err := tc.Handshake(); err != nil {
		r.t.Fatalf("TLS with the gateway for %s: %v", hostport, err)
	}
	return &rawConn{Conn: tc, t: r.t, br: bufio.NewReader(tc)}
}

// rootAuthority signs the origins of tests.
type rootAuthority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newRootAuthority(t testing.TB) *rootAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &rootAuthority{cert: cert, key: key, file: file}
}

func (a *rootAuthority) leaf(t testing.TB, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "origin"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, f := range change {
		f(tpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}

// origin serves h in the clear.
func (r *rig) origin(h http.HandlerFunc) *httptest.Server {
	r.t.Helper()
	s := httptest.NewServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.t.Cleanup(s.Close)
	return s
}

// tlsOrigin serves h over TLS, by HTTP/2 for those who want it.
func (r *rig) tlsOrigin(h http.HandlerFunc, change ...func(*x509.Certificate)) *httptest.Server {
	r.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{r.root.leaf(r.t, change...)}}
	s.StartTLS()
	r.t.Cleanup(s.Close)
	return s
}

// rawOrigin answers each connection by serve, which has the whole connection.
func (r *rig) rawOrigin(serve func(c net.Conn, br *bufio.Reader)) string {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				serve(c, bufio.NewReader(c))
			})
		}
	})
	r.t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// canned is an origin that answers every request with the same bytes and closes the connection.
func (r *rig) canned(answer string) string {
	return r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		_, _ = io.WriteString(c, answer)
	})
}

// get fetches a URL and returns the response with its body.
func get(t testing.TB, c *http.Client, u string, header ...string) (*http.Response, string) {
	t.Helper()
	return do(t, c, http.MethodGet, u, nil, header...)
}

// do sends a request; header is name, value, name, value.
func do(t testing.TB, c *http.Client, method, u string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, u, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: reading the body: %v", method, u, err)
	}
	return resp, string(b)
}

// wantPage checks that a response is a page of the gateway about kind.
func wantPage(t testing.TB, resp *http.Response, body string, status int, kind notice.Kind) {
	t.Helper()
	if resp.StatusCode != status || resp.Header.Get("X-Lazaret-Kind") != string(kind) {
		t.Errorf("got %s about %q, want %d about %q: %s", resp.Status, resp.Header.Get("X-Lazaret-Kind"), status, kind, body)
	}
}

// eicarIn says whether the test virus is in a text.
func eicarIn(s string) bool { return strings.Contains(s, string(scan.EICAR())) }

// short is a time that tests of timeouts wait for.
const short = units.Duration(150 * time.Millisecond)

// seq returns n bytes that differ from place to place.
func seq(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%07d.\n", i) // with a full stop it is no base64
	}
	return b[:n]
}

// eventually waits until ok, which is asked again and again, says so.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come about that %s", what)
		}
	}
}

// mustPath returns a URL of that path.
func mustPath(p string) *url.URL { return &url.URL{Path: p} }

// eicarText returns the test virus.
func eicarText() string { return string(scan.EICAR()) }
