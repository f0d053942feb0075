package intercept

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"lazaret/internal/egress"
	"lazaret/internal/relay"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is a certificate authority of the tests' making.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

var serials struct {
	sync.Mutex
	n int64
}

func nextSerial() *big.Int {
	serials.Lock()
	defer serials.Unlock()
	serials.n++
	return big.NewInt(1000 + serials.n)
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newRoot returns a self-signed authority; edit may change its template.
func newRoot(t testing.TB, edit ...func(*x509.Certificate)) *authority {
	t.Helper()
	return (*authority)(nil).child(t, "Test Root", edit...)
}

// child returns an authority below a; below nil, a self-signed one.
func (a *authority) child(t testing.TB, name string, edit ...func(*x509.Certificate)) *authority {
	t.Helper()
	return a.childFor(newKey(t), t, name, edit...)
}

func (a *authority) childFor(key crypto.Signer, t testing.TB, name string, edit ...func(*x509.Certificate)) *authority {
	t.Helper()
	tpl := &x509.Certificate{
		SerialNumber: nextSerial(), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	for _, e := range edit {
		e(tpl)
	}
	if a == nil {
		a = &authority{t: t, cert: tpl, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t: t, cert: c, key: key}
}

// leaf returns a certificate for names (DNS names and IP addresses) with the authority's chain of others behind it.
func (a *authority) leaf(names []string, others []*authority, edit ...func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	return a.leafFor(newKey(a.t), names, others, edit...)
}

// selfLeaf returns a self-signed certificate for names.
func (a *authority) selfLeaf(names []string) tls.Certificate {
	a.t.Helper()
	tpl := &x509.Certificate{
		SerialNumber: nextSerial(), Subject: pkix.Name{CommonName: "alone"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, a.key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}

func (a *authority) leafFor(key crypto.Signer, names []string, others []*authority, edit ...func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	tpl := &x509.Certificate{
		SerialNumber: nextSerial(), Subject: pkix.Name{CommonName: "test leaf"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tpl.IPAddresses = append(tpl.IPAddresses, ip)
		} else {
			tpl.DNSNames = append(tpl.DNSNames, n)
		}
	}
	for _, e := range edit {
		e(tpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	for _, o := range others {
		c.Certificate = append(c.Certificate, o.cert.Raw)
	}
	return c
}

// newOrigin serves TLS on a loopback port with cert until the test ends, and returns its address. Requests are answered
// by "hello from <protocol> for <host>".
func newOrigin(t testing.TB, cert tls.Certificate, edit ...func(*tls.Config)) netip.AddrPort {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello from "+r.Proto+" for "+r.Host)
	}))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10}
	for _, e := range edit {
		e(srv.TLS)
	}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// gatewayOf returns an Interceptor with a CA of its own that trusts root.
func gatewayOf(t testing.TB, root *authority, edit ...func(*Config)) *Interceptor {
	t.Helper()
	return gatewayWith(t, root, Options{}, edit...)
}

func gatewayWith(t testing.TB, root *authority, opt Options, edit ...func(*Config)) *Interceptor {
	t.Helper()
	d, err := egress.New(egress.Default(), egress.Options{AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	cfg := Default()
	cfg.ExtraRoots = []string{rootFile(t, root)}
	for _, e := range edit {
		e(&cfg)
	}
	ca, err := (CAStore{Dir: filepath.Join(t.TempDir(), "ca"), Permit: Permit{cfg.PermitDomains, cfg.PermitNetworks}}).Init()
	if err != nil {
		t.Fatal(err)
	}
	i, err := New(cfg, ca, d, opt)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func rootFile(t testing.TB, a *authority) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (ca *CA) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

// door is a listener whose connections are given to an Interceptor, and the sessions to serve.
type door struct {
	addr     netip.AddrPort
	sessions chan *Session // one for each accepted connection that Accept had no error for
	errs     chan error
}

// openDoor lets every connection to a loopback port be for target.
func openDoor(t testing.TB, i *Interceptor, target Target) *door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{addr: ln.Addr().(*net.TCPAddr).AddrPort(), sessions: make(chan *Session, 100), errs: make(chan error, 100)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				to := target
				to.Client = c.RemoteAddr().(*net.TCPAddr).AddrPort()
				s, err := i.Accept(t.Context(), c, to)
				if err != nil {
					d.errs <- err
					return
				}
				d.sessions <- s
				serve(t, s)
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return d
}

// serve does with a session what a protocol would: it copies where there is an origin, and says the fault where not.
func serve(t testing.TB, s *Session) {
	defer s.Close()
	switch {
	case s.Fault != nil && s.Client != nil:
		_, _ = s.Client.Read(make([]byte, 4096))
		_, _ = io.WriteString(s.Client, "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nfault: "+s.Fault.Error())
	case s.Mode == Inspect && s.Fault == nil:
		_, _ = relay.Copy(t.Context(), s.Client, s.Origin, 10*time.Second)
	case s.Mode == Tunnel && s.Fault == nil:
		_, _ = relay.Copy(t.Context(), s.Raw, s.RawOrigin, 10*time.Second)
	}
}

func (d *door) session(t testing.TB) *Session {
	t.Helper()
	select {
	case s := <-d.sessions:
		return s
	case err := <-d.errs:
		t.Fatalf("no session: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("no session within 20 seconds")
	}
	return nil
}

// rawOrigin accepts TLS on a loopback port and echoes what comes.
func rawOrigin(t testing.TB, conf *tls.Config) netip.AddrPort {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// dialTo dials one address, whatever is asked for.
func dialTo(addr netip.AddrPort) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr.String())
	}
}
