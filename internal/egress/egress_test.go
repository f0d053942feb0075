package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/units"
	"lazaret/test/ports"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPrivateAddresses(t *testing.T) {
	for _, tc := range []struct {
		addr    string
		private bool
	}{
		{"127.0.0.1", true},
		{"127.255.255.254", true},
		{"169.254.169.254", true},
		{"10.0.0.1", true},
		{"172.16.0.1", true},
		{"172.31.255.255", true},
		{"172.32.0.1", false},
		{"192.168.1.1", true},
		{"192.169.1.1", false},
		{"100.64.0.1", true},
		{"100.128.0.1", false},
		{"0.0.0.0", true},
		{"0.1.2.3", true},
		{"255.255.255.255", true},
		{"224.0.0.1", true},
		{"240.0.0.1", true},
		{"192.0.2.1", true},
		{"198.18.0.1", true},
		{"203.0.113.9", true},
		{"8.8.8.8", false},
		{"93.184.216.34", false},
		{"::1", true},
		{"::", true},
		{"fe80::1", true},
		{"fe80::1%eth0", true},
		{"febf::1", true},
		{"fc00::1", true},
		{"fd12:3456::1", true},
		{"fec0::1", true},
		{"ff02::1", true},
		{"2001:db8::1", true},
		{"2001::1", true},
		{"2606:4700::1111", false},
		{"2001:4860:4860::8888", false},
		{"::ffff:127.0.0.1", true},
		{"::ffff:169.254.169.254", true},
		{"::ffff:8.8.8.8", false},
		{"::127.0.0.1", true},
		{"::8.8.8.8", false},
		{"64:ff9b::7f00:1", true},
		{"64:ff9b::a9fe:a9fe", true},
		{"64:ff9b::808:808", false},
		{"64:ff9b:1::808:808", true},
		{"2002:7f00:1::1", true},
		{"2002:c0a8:101::1", true},
		{"2002:808:808::1", false},
	} {
		what, private := Private(netip.MustParseAddr(tc.addr))
		if private != tc.private || private != (what != "") {
			t.Errorf("%s: private %v (%s), want %v", tc.addr, private, what, tc.private)
		}
	}
	if _, private := Private(netip.Addr{}); !private {
		t.Error("no address at all is let pass")
	}
}

func newDialer(t *testing.T, opt Options, edit ...func(*Config)) *Dialer {
	t.Helper()
	cfg := Default()
	for _, e := range edit {
		e(&cfg)
	}
	d, err := New(cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// listener accepts and counts connections on a loopback address.
func listener(t *testing.T, addr string) (netip.AddrPort, *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().(*net.TCPAddr).AddrPort(), &n
}

func wantKind(t *testing.T, err error, want Kind) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Errorf("error %v of kind %v, want %v", err, KindOf(err), want)
	}
}

func TestPrivateDestinationsAreForbiddenHoweverTheyAreWritten(t *testing.T) {
	at, connected := listener(t, "127.0.0.1:0")
	d := newDialer(t, Options{})
	for _, host := range []string{"127.0.0.1", "localhost", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "169.254.169.254", "10.255.255.1", "fe80::1%lo"} {
		_, err := d.Dial(t.Context(), net.JoinHostPort(host, fmt.Sprint(at.Port())))
		wantKind(t, err, Forbidden)
	}
	// What some resolvers take for 127.0.0.1: forbidden, or no name.
	for _, host := range []string{"2130706433", "0x7f000001", "127.1", "0177.0.0.1"} {
		if c, err := d.Dial(t.Context(), net.JoinHostPort(host, fmt.Sprint(at.Port()))); err == nil {
			t.Errorf("%s was connected to", host)
			_ = c.Close()
		}
	}
	if connected.Load() != 0 {
		t.Errorf("%d connections arrived", connected.Load())
	}
	c, err := newDialer(t, Options{AllowPrivate: true}).Dial(t.Context(), at.String())
	if err != nil {
		t.Fatalf("allowed, and yet: %v", err)
	}
	_ = c.Close()
}

func TestPublicOnlyOverridesWhatIsAllowed(t *testing.T) {
	at, connected := listener(t, "127.0.0.1:0")
	d := newDialer(t, Options{AllowPrivate: true}).PublicOnly("nobody named it")
	for _, host := range []string{"127.0.0.1", "localhost", "169.254.169.254", "192.168.1.1", "fd00::1"} {
		_, err := d.Dial(t.Context(), net.JoinHostPort(host, fmt.Sprint(at.Port())))
		wantKind(t, err, Forbidden)
		if !strings.Contains(fmt.Sprint(err), "nobody named it") {
			t.Errorf("error %v does not say why", err)
		}
	}
	behind := newDialer(t, Options{AllowPrivate: true}, func(c *Config) { c.Parent = "http://" + at.String() }).PublicOnly("nobody named it")
	_, err := behind.DialParent(t.Context(), "10.0.0.1:80")
	wantKind(t, err, Forbidden)
	if connected.Load() != 0 {
		t.Errorf("%d connections arrived", connected.Load())
	}
}

// resolverOf answers every question for an A record by what answer says.
func resolverOf(t *testing.T, answer func(n int64) [4]byte) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for asked := int64(0); ; {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: answer(asked)},
				}}
				asked++
			}
			if b, err := m.Pack(); err == nil {
				_, _ = pc.WriteTo(b, from)
			}
		}
	}()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func TestDNSRebindingGainsNothing(t *testing.T) {
	at, connected := listener(t, "127.0.0.1:0")
	// First a public address, then ours: whoever looked the name up beforehand saw nothing wrong.
	r := resolverOf(t, func(n int64) [4]byte {
		if n == 0 {
			return [4]byte{93, 184, 216, 34}
		}
		return [4]byte{127, 0, 0, 1}
	})
	if addrs, err := r.LookupHost(t.Context(), "rebind.example"); err != nil || addrs[0] != "93.184.216.34" {
		t.Fatalf("the name server does not answer as it should: %v, %v", addrs, err)
	}
	_, err := newDialer(t, Options{Resolver: r}).Dial(t.Context(), fmt.Sprintf("rebind.example:%d", at.Port()))
	wantKind(t, err, Forbidden)
	if connected.Load() != 0 {
		t.Error("a connection arrived")
	}
}

func TestOwnListenersAreNeverDialled(t *testing.T) {
	at, connected := listener(t, "127.0.0.1:0")
	for _, tc := range []struct{ own, dial string }{
		{"127.0.0.1:%d", "127.0.0.1:%d"},
		{"127.0.0.1:%d", "[::ffff:127.0.0.1]:%d"},
		{"127.0.0.1:%d", "localhost:%d"},
		{"127.0.0.1:%d", "0.0.0.0:%d"},
		{"0.0.0.0:%d", "127.0.0.1:%d"},
		{"[::]:%d", "127.0.0.1:%d"},
		{"[::]:%d", "127.0.0.9:%d"},
	} {
		own := netip.MustParseAddrPort(fmt.Sprintf(tc.own, at.Port()))
		d := newDialer(t, Options{AllowPrivate: true, Own: func() []netip.AddrPort { return []netip.AddrPort{own} }})
		_, err := d.Dial(t.Context(), fmt.Sprintf(tc.dial, at.Port()))
		if KindOf(err) != Forbidden || !strings.Contains(err.Error(), "loop") {
			// localhost may stand for ::1 too, where nobody listens.
			if tc.dial != "localhost:%d" || KindOf(err) != Refused {
				t.Errorf("own %s, dialling %s: %v", own, tc.dial, err)
			}
		}
	}
	if connected.Load() != 0 {
		t.Errorf("%d connections arrived", connected.Load())
	}
	other := netip.AddrPortFrom(at.Addr(), at.Port()^1)
	d := newDialer(t, Options{AllowPrivate: true, Own: func() []netip.AddrPort { return []netip.AddrPort{other} }})
	c, err := d.Dial(t.Context(), at.String())
	if err != nil {
		t.Fatalf("another port of this machine: %v", err)
	}
	_ = c.Close()
}

func TestFailuresHaveTheirKind(t *testing.T) {
	closed, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	d := newDialer(t, Options{AllowPrivate: true})
	_, err = d.Dial(t.Context(), closed)
	wantKind(t, err, Refused)
	none := newDialer(t, Options{Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name server")
	}}})
	_, err = none.Dial(t.Context(), "name.example:443")
	wantKind(t, err, NoName)
	gone, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	_, err = d.Dial(gone, closed)
	wantKind(t, err, Timeout)
	for _, bad := range []string{"", "host", ":443", "host:", "host:0", "host:65536", "host:http"} {
		_, err := d.Dial(t.Context(), bad)
		wantKind(t, err, Failed)
	}
}

func TestDialsToOneHostAreBounded(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		entered <- struct{}{}
		<-leave
		return nil, errors.New("no name server")
	}}
	d := newDialer(t, Options{Resolver: r}, func(c *Config) { c.MaxDials = 1 })
	errs := make(chan error)
	go func() {
		_, err := d.Dial(context.Background(), "slow.example:443")
		errs <- err
	}()
	<-entered
	_, err := d.Dial(t.Context(), "slow.example:443")
	if KindOf(err) != Failed || !strings.Contains(err.Error(), "max_dials") {
		t.Errorf("the second dial: %v", err)
	}
	close(leave)
	go func() {
		for range entered {
		}
	}()
	wantKind(t, <-errs, NoName)
	close(entered)
	if len(d.making) != 0 {
		t.Error("the place was not given back")
	}
}

// connectProxy is a parent proxy that answers CONNECT by what answer writes and reads on the connection.
func connectProxy(t *testing.T, conf *tls.Config, answer func(c net.Conn, r *http.Request)) string {
	t.Helper()
	var (
		ln  net.Listener
		err error
	)
	if conf != nil {
		ln, err = tls.Listen("tcp", "127.0.0.1:0", conf)
	} else {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				answer(c, r)
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

func TestParentProxy(t *testing.T) {
	var asked atomic.Value
	good := func(c net.Conn, r *http.Request) {
		asked.Store(r.Method + " " + r.RequestURI + " " + r.Host + " " + r.Header.Get("Proxy-Authorization"))
		_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\nVia: 1.1 parent\r\n\r\nearly ")
		_, _ = io.Copy(c, io.LimitReader(c, 4))
	}
	addr := connectProxy(t, nil, good)
	d := newDialer(t, Options{}, func(c *Config) { c.Parent = "http://me:p%40ss@" + addr })
	for _, host := range []string{"site.example:443", "93.184.216.34:443", "[2606:4700::1111]:8443"} {
		c, err := d.Dial(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "ping"); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != "early ping" {
			t.Errorf("through the tunnel came %q, %v", b, err)
		}
		_ = c.Close()
		if want := "CONNECT " + host + " " + host + " Basic bWU6cEBzcw=="; asked.Load() != want {
			t.Errorf("the parent was asked %q, want %q", asked.Load(), want)
		}
	}
	asked.Store("")
	_, err := d.Dial(t.Context(), "169.254.169.254:80")
	wantKind(t, err, Forbidden)
	_, err = d.DialParent(t.Context(), "127.0.0.1:80")
	wantKind(t, err, Forbidden)
	for _, name := range []string{"localhost:80", "LocalHost.:80", "a.localhost:443"} {
		_, err = d.Dial(t.Context(), name)
		wantKind(t, err, Forbidden)
	}
	if asked.Load() != "" {
		t.Error("the parent was asked for a private address")
	}
	if u := d.ParentURL(); u.Host != addr || ProxyAuthorization(u) != "Basic bWU6cEBzcw==" {
		t.Errorf("ParentURL is %v", u)
	}
	c, err := d.DialParent(t.Context(), "site.example:80")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestParentProxyOverTLSIsVerified(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	cert := srv.TLS.Certificates[0]
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	srv.Close()
	addr := connectProxy(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(c net.Conn, _ *http.Request) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	})
	parent := func(c *Config) { c.Parent = "https://" + addr }
	c, err := newDialer(t, Options{ParentTLS: &tls.Config{RootCAs: pool}}, parent).Dial(t.Context(), "site.example:443")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	_, err = newDialer(t, Options{}, parent).Dial(t.Context(), "site.example:443")
	wantKind(t, err, Parent)
}

func TestFailuresOfTheParentAreNotTheOrigins(t *testing.T) {
	for what, tc := range map[string]struct {
		answer string
		want   Kind
		text   string
	}{
		"refuses":         {"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope", Parent, "403"},
		"wants a login":   {"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Parent, "407"},
		"gateway timeout": {"HTTP/1.1 504 Gateway Timeout\r\n\r\n", Timeout, "504"},
		"says nothing":    {"", Parent, "CONNECT"},
		"speaks nonsense": {"SSH-2.0-x\r\n", Parent, "CONNECT"},
		"never ends":      {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", maxParentHead), Parent, "longer than"},
	} {
		t.Run(what, func(t *testing.T) {
			addr := connectProxy(t, nil, func(c net.Conn, _ *http.Request) { _, _ = io.WriteString(c, tc.answer) })
			d := newDialer(t, Options{}, func(c *Config) { c.Parent = "http://u:secretword@" + addr })
			_, err := d.Dial(t.Context(), "site.example:443")
			wantKind(t, err, tc.want)
			if !strings.Contains(fmt.Sprint(err), tc.text) || strings.Contains(fmt.Sprint(err), "secretword") {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("stalls", func(t *testing.T) {
		stalled := make(chan struct{})
		addr := connectProxy(t, nil, func(c net.Conn, _ *http.Request) {
			close(stalled)
			_, _ = io.Copy(io.Discard, c)
		})
		d := newDialer(t, Options{}, func(c *Config) { c.Parent = "http://" + addr })
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-stalled; cancel() }()
		_, err := d.Dial(ctx, "site.example:443")
		wantKind(t, err, Timeout)
	})
	t.Run("is this gateway", func(t *testing.T) {
		at, _ := listener(t, "127.0.0.1:0")
		d := newDialer(t, Options{AllowPrivate: true, Own: func() []netip.AddrPort { return []netip.AddrPort{at} }}, func(c *Config) { c.Parent = "http://" + at.String() })
		_, err := d.Dial(t.Context(), "site.example:443")
		if err == nil || !strings.Contains(err.Error(), "loop") {
			t.Errorf("error %v", err)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
	for parent, want := range map[string]string{
		"http://proxy.example:3128":     "",
		"https://u:p@proxy.example":     "",
		"http://[2001:db8::1]:8080/":    "",
		"socks5://proxy.example:1080":   "scheme",
		"proxy.example:3128":            "scheme",
		"http://":                       "host is missing",
		"http://proxy.example/path":     "no path",
		"http://proxy.example:99999":    "TCP port",
		"http://u:secretword@[bad:host": "not a URL",
	} {
		cfg := Default()
		cfg.Parent = parent
		err := cfg.Validate()
		if (err == nil) != (want == "") || (err != nil && (!strings.HasPrefix(err.Error(), "parent: ") || !strings.Contains(err.Error(), want))) {
			t.Errorf("%q: %v, want %q", parent, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secretword") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	bad := Config{DialTimeout: units.Duration(-1)}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("three keys are wrong: %v", err)
	}
}
