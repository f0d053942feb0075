package intercept

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// countingOrigin counts the TLS sessions that were begun with it, and those that were resumed.
type countingOrigin struct {
	addr          netip.AddrPort
	full, resumed atomic.Int64
}

func newCountingOrigin(t *testing.T, cert tls.Certificate, edit ...func(*tls.Config)) *countingOrigin {
	t.Helper()
	o := &countingOrigin{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.DidResume {
			o.resumed.Add(1)
		} else {
			o.full.Add(1)
		}
		_, _ = io.WriteString(w, "ok")
	}))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	for _, e := range edit {
		e(srv.TLS)
	}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	o.addr = srv.Listener.Addr().(*net.TCPAddr).AddrPort()
	return o
}

func (o *countingOrigin) want(t *testing.T, full, resumed int64) {
	t.Helper()
	if f, r := o.full.Load(), o.resumed.Load(); f != full || r != resumed {
		t.Errorf("the origin saw %d sessions begun and %d resumed, want %d and %d", f, r, full, resumed)
	}
}

// browser is a client with one TLS session, which it offers to whoever it is told to: names do not matter to it, as they
// would not to a hostile client.
type browser struct {
	roots *x509.CertPool
	last  *tls.ClientSessionState
	from  string // its address
	http1 bool
	max   uint16
}

func (b *browser) Get(string) (*tls.ClientSessionState, bool) { return b.last, b.last != nil }
func (b *browser) Put(_ string, cs *tls.ClientSessionState)   { b.last = cs }
func newBrowser(i *Interceptor, edit ...func(*browser)) *browser {
	b := &browser{roots: i.ca.pool()}
	for _, e := range edit {
		e(b)
	}
	return b
}

// visit makes one request over a connection of its own and says whether its TLS session was resumed.
func (b *browser) visit(t *testing.T, d *door, name string) bool {
	t.Helper()
	var resumed bool
	tr := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: !b.http1}
	tr.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		dialer := &net.Dialer{}
		if b.from != "" {
			dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(b.from)}
		}
		raw, err := dialer.DialContext(ctx, "tcp", d.addr.String())
		if err != nil {
			return nil, err
		}
		conf := &tls.Config{RootCAs: b.roots, ServerName: name, ClientSessionCache: b, MaxVersion: b.max, NextProtos: []string{"h2", "http/1.1"}}
		if b.http1 {
			conf.NextProtos = nil
		}
		c := tls.Client(raw, conf)
		err = c.HandshakeContext(ctx)
		resumed = c.ConnectionState().DidResume
		return c, err
	}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + name + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || string(body) != "ok" {
		t.Fatalf("body %q, error %v", body, err)
	}
	return resumed
}

func TestSessionsAreCoupledOverResumptions(t *testing.T) {
	root := newRoot(t)
	cert := root.leaf([]string{"site.example"}, nil)
	for _, client := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, server := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, http1 := range []bool{true, false} {
				t.Run(fmt.Sprintf("browser %s origin %s http1 %v", tls.VersionName(client), tls.VersionName(server), http1), func(t *testing.T) {
					org := newCountingOrigin(t, cert, func(c *tls.Config) { c.MaxVersion = server })
					i := gatewayOf(t, root, func(c *Config) { c.MirrorVersion = false })
					d := openDoor(t, i, to("site.example", org.addr))
					b := newBrowser(i, func(b *browser) { b.max, b.http1 = client, http1 })
					if b.visit(t, d, "site.example") {
						t.Fatal("the first visit resumed a session")
					}
					for n := range 3 {
						if !b.visit(t, d, "site.example") {
							t.Errorf("visit %d did not resume", n+2)
						}
					}
					org.want(t, 1, 3)
					if got := i.Stats(); got.Minted > 1 || got.Resumed != 3 {
						t.Errorf("%d leaves minted and %d sessions resumed, want at most 1, and 3", got.Minted, got.Resumed)
					}
				})
			}
		}
	}
}

func TestTwoBrowsersShareNothing(t *testing.T) {
	root := newRoot(t)
	org := newCountingOrigin(t, root.leaf([]string{"site.example"}, nil))
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", org.addr))
	one, two := newBrowser(i), newBrowser(i)
	for _, b := range []*browser{one, two} {
		if b.visit(t, d, "site.example") {
			t.Error("a first visit resumed a session")
		}
	}
	org.want(t, 2, 0)
	for _, b := range []*browser{one, two, two, one} {
		if !b.visit(t, d, "site.example") {
			t.Error("a later visit did not resume")
		}
	}
	org.want(t, 2, 4)
}

func TestTicketIsBoundToNameClientUserDestinationAndSettings(t *testing.T) {
	root := newRoot(t)
	org := newCountingOrigin(t, root.leaf([]string{"site.example", "other.example"}, nil))
	elsewhere := newCountingOrigin(t, root.leaf([]string{"site.example"}, nil))
	i := gatewayOf(t, root)
	home := openDoor(t, i, to("site.example", org.addr))
	user := to("site.example", org.addr)
	user.User = "somebody"
	restarted, err := New(i.cfg, i.ca, i.dialer, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what, name, from string
		door             *door
	}{
		{"another name", "other.example", "", openDoor(t, i, to("other.example", org.addr))},
		{"another client", "site.example", "127.0.0.2", home},
		{"another user", "site.example", "", openDoor(t, i, user)},
		{"another destination", "site.example", "", openDoor(t, i, to("site.example", elsewhere.addr))},
		{"another gateway or settings", "site.example", "", openDoor(t, restarted, to("site.example", org.addr))},
	} {
		t.Run(tc.what, func(t *testing.T) {
			b := newBrowser(i)
			b.visit(t, home, "site.example")
			if b.last == nil {
				t.Fatal("no ticket was given: nothing can be tried")
			}
			b.from = tc.from
			before := org.resumed.Load() + elsewhere.resumed.Load()
			if b.visit(t, tc.door, tc.name) {
				t.Error("the ticket was good there")
			}
			if org.resumed.Load()+elsewhere.resumed.Load() != before {
				t.Error("the origin's session was resumed there")
			}
		})
	}
}

func TestClientThatDoesNotResumeGetsAnOriginSessionOfItsOwn(t *testing.T) {
	// The ticket is of TLS 1.2 and good for the origin's session, but the handshake with the client ends up at TLS 1.3 and
	// is a full one. Anybody who saw the ticket pass could do that.
	root := newRoot(t)
	org := newCountingOrigin(t, root.leaf([]string{"site.example"}, nil), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
	i := gatewayOf(t, root, func(c *Config) { c.MirrorVersion = false })
	d := openDoor(t, i, to("site.example", org.addr))
	b := newBrowser(i, func(b *browser) { b.max = tls.VersionTLS12 })
	b.visit(t, d, "site.example")
	thief := newBrowser(i, func(n *browser) { n.last = b.last })
	if thief.visit(t, d, "site.example") {
		t.Fatal("a ticket of TLS 1.2 was resumed in TLS 1.3")
	}
	org.want(t, 2, 0)
	// Its own session goes on by itself.
	if !thief.visit(t, d, "site.example") {
		t.Error("the session of its own was not resumed")
	}
	org.want(t, 2, 1)
}

func TestOriginThatGoesBadIsNoticedAtTheNextResumption(t *testing.T) {
	root := newRoot(t)
	org := newCountingOrigin(t, root.leaf([]string{"site.example"}, nil))
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", org.addr))
	b := newBrowser(i)
	b.visit(t, d, "site.example")
	d.session(t)
	i.verifier.roots = x509.NewCertPool() // as if the authority had lost its trust
	c, err := tls.Dial("tcp", d.addr.String(), &tls.Config{RootCAs: b.roots, ServerName: "site.example", ClientSessionCache: b})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s := d.session(t); s.Fault == nil || s.Fault.Kind != FaultUntrusted || c.ConnectionState().DidResume {
		t.Errorf("fault %v, resumed %v", s.Fault, c.ConnectionState().DidResume)
	}
	org.want(t, 1, 0)
}

func TestOriginThatDoesNotResumeMakesTheBrowserBeginAnew(t *testing.T) {
	root := newRoot(t)
	org := newCountingOrigin(t, root.leaf([]string{"site.example"}, nil), func(c *tls.Config) {
		c.UnwrapSession = func([]byte, tls.ConnectionState) (*tls.SessionState, error) { return nil, nil }
	})
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", org.addr))
	b := newBrowser(i)
	for range 3 {
		if b.visit(t, d, "site.example") {
			t.Error("the browser resumed a session that the origin had not")
		}
	}
	org.want(t, 3, 0)
}

func TestRedialStaysInTheBrowsersSession(t *testing.T) {
	root := newRoot(t)
	org := newCountingOrigin(t, root.leaf([]string{"site.example"}, nil))
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", org.addr))
	b := newBrowser(i)
	b.visit(t, d, "site.example")
	s := d.session(t)
	c, err := s.Redial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !c.ConnectionState().DidResume || c.ConnectionState().NegotiatedProtocol != "h2" {
		t.Errorf("resumed %v, protocol %q", c.ConnectionState().DidResume, c.ConnectionState().NegotiatedProtocol)
	}
}

func TestOpenSSLReconnects(t *testing.T) {
	root := newRoot(t)
	org := rawOrigin(t, &tls.Config{Certificates: []tls.Certificate{root.leaf([]string{"site.example"}, nil)}})
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", org))
	dir := t.TempDir()
	ca, sess := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "session")
	if err := os.WriteFile(ca, i.ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for n, extra := range [][]string{{"-sess_out", sess}, {"-sess_in", sess}} {
		argv := append([]string{"s_client", "-connect", d.addr.String(), "-servername", "site.example", "-CAfile", ca, "-verify_return_error", "-quiet", "-no_ign_eof"}, extra...)
		cmd := exec.CommandContext(t.Context(), "openssl", argv...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		echoed := make(chan struct{})
		cmd.Stdout, cmd.Stderr = writerFunc(func([]byte) { close(echoed) }), &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The echo brings the origin's tickets along; without it the session has nothing to resume.
		if _, err := io.WriteString(in, "ping\n"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-echoed:
		case <-time.After(20 * time.Second):
			t.Fatalf("no echo: %s", out.String())
		}
		_ = in.Close()
		_ = cmd.Wait()
		if got := d.session(t); got.Client.ConnectionState().DidResume != (n == 1) || got.Origin.ConnectionState().DidResume != (n == 1) {
			t.Errorf("connection %d: browser's side resumed %v, origin's %v", n+1, got.Client.ConnectionState().DidResume, got.Origin.ConnectionState().DidResume)
		}
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestOpenSSLReconnectOption(t *testing.T) {
	// -reconnect connects five times more with the session of the first connection, at once: it reads nothing in between.
	// In TLS 1.3, on either side, the tickets may not have come by then; for that see TestOpenSSLReconnects.
	root := newRoot(t)
	org := rawOrigin(t, &tls.Config{Certificates: []tls.Certificate{root.leaf([]string{"site.example"}, nil)}, MaxVersion: tls.VersionTLS12})
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", org))
	out, err := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", d.addr.String(), "-servername", "site.example", "-tls1_2", "-reconnect").CombinedOutput()
	if err != nil {
		t.Logf("openssl: %v", err)
	}
	if n, r := strings.Count(string(out), "New, TLSv1.2"), strings.Count(string(out), "Reused, TLSv1.2"); n != 1 || r != 5 {
		t.Errorf("openssl saw %d new and %d reused sessions, want 1 and 5:\n%s", n, r, out)
	}
	browser, origin := 0, 0
	for range 6 {
		s := d.session(t)
		if s.Client.ConnectionState().DidResume {
			browser++
		}
		if s.Origin.ConnectionState().DidResume {
			origin++
		}
	}
	if browser != 5 || origin != 5 {
		t.Errorf("%d resumed by the browser's side and %d by the origin's, want 5 each", browser, origin)
	}
}
