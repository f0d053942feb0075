package intercept

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lazaret/test/ports"
)

func TestTunnelLists(t *testing.T) {
	root := newRoot(t)
	file := filepath.Join(t.TempDir(), "tunnel")
	if err := os.WriteFile(file, []byte("# ours\nfile.example # a bank\n\n2001:db8:5::/48\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := gatewayOf(t, root, func(c *Config) {
		c.Tunnel = []string{"bank.example", ".health.example", "*.pay.example", "192.0.2.0/24", "2001:db8::7"}
		c.TunnelClients = []string{"10.1.0.0/16"}
		c.TunnelFile = file
	})
	client := netip.MustParseAddrPort("10.2.0.1:5000")
	for _, tc := range []struct {
		target Target
		want   Mode
		reason string
	}{
		{Target{Host: "bank.example", Port: 443}, Tunnel, `tunnel list: "bank.example"`},
		{Target{Host: "Bank.Example.", Port: 443}, Tunnel, `tunnel list: "bank.example"`},
		{Target{Host: "www.bank.example", Port: 443}, Inspect, ""},
		{Target{Host: "notbank.example", Port: 443}, Inspect, ""},
		{Target{Host: "health.example", Port: 443}, Tunnel, `".health.example"`},
		{Target{Host: "a.b.health.example", Port: 443}, Tunnel, `".health.example"`},
		{Target{Host: "unhealth.example", Port: 443}, Inspect, ""},
		{Target{Host: "pay.example", Port: 443}, Inspect, ""},
		{Target{Host: "x.pay.example", Port: 443}, Tunnel, `"*.pay.example"`},
		{Target{Host: "192.0.2.9", Port: 443}, Tunnel, "network of 192.0.2.9"},
		{Target{Host: "::ffff:192.0.2.9", Port: 443}, Tunnel, "network of 192.0.2.9"},
		{Target{Host: "[2001:db8::7]", Port: 443}, Tunnel, "network of 2001:db8::7"},
		{Target{Host: "2001:db8::8", Port: 443}, Inspect, ""},
		{Target{Addr: netip.MustParseAddrPort("192.0.2.9:443")}, Tunnel, "network of 192.0.2.9"},
		{Target{Host: "file.example", Port: 443}, Tunnel, `tunnel file: "file.example"`},
		{Target{Host: "2001:db8:5::1", Port: 443}, Tunnel, "tunnel file: the network"},
		{Target{Host: "any.example", Port: 443, Client: netip.MustParseAddrPort("10.1.2.3:4")}, Tunnel, "client's network"},
		{Target{Host: "any.example", Port: 443, Client: netip.MustParseAddrPort("[::ffff:10.1.2.3]:4")}, Tunnel, "client's network"},
		{Target{Host: "a b", Port: 443}, Refuse, "not a host name"},
		{Target{Host: "bank.example\x00.evil.example", Port: 443}, Refuse, "not a host name"},
		{Target{Host: "2130706433", Port: 443}, Refuse, "not a host name"},
		{Target{Host: "0x7f.1", Port: 443}, Refuse, "not a host name"},
		{Target{Host: "127.1", Port: 443}, Refuse, "not a host name"},
		{Target{}, Refuse, "neither a name nor an address"},
	} {
		if !tc.target.Client.IsValid() {
			tc.target.Client = client
		}
		d := i.Decide(t.Context(), tc.target)
		if d.Mode != tc.want || !strings.Contains(d.Reason, tc.reason) || d.Reason == "" {
			t.Errorf("%+v: %v (%s), want %v (%s)", tc.target, d.Mode, d.Reason, tc.want, tc.reason)
		}
	}
}

func TestTunnelFileIsReadAgainWhenItChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tunnel")
	write := func(s string) {
		t.Helper()
		if err := replace(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one.example\n")
	i := gatewayOf(t, newRoot(t), func(c *Config) { c.TunnelFile = file })
	mode := func(host string) Mode {
		i.file.looked = time.Time{} // as if the last look was a while ago
		return i.Decide(t.Context(), Target{Host: host, Port: 443}).Mode
	}
	if mode("one.example") != Tunnel || mode("two.example") != Inspect {
		t.Fatal("the file was not read")
	}
	write("two.example\n")
	if mode("one.example") != Inspect || mode("two.example") != Tunnel {
		t.Error("the file was not read again")
	}
	write("three.example\nnot a host\n")
	if mode("two.example") != Tunnel || mode("three.example") != Inspect {
		t.Error("a broken file did not leave the list as it was")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if mode("two.example") != Tunnel {
		t.Error("a missing file did not leave the list as it was")
	}
	write("four.example\n")
	if mode("four.example") != Tunnel {
		t.Error("the file was not read when it was there again")
	}
}

func TestTunnelledConnectionIsNotTouched(t *testing.T) {
	root := newRoot(t)
	cert := root.leaf([]string{"bank.example"}, nil)
	org := newOrigin(t, cert)
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	for what, tc := range map[string]struct {
		target Target
		list   string
	}{
		"by CONNECT":                   {to("bank.example", org), "bank.example"},
		"redirected, by server_name":   {Target{Addr: org}, "bank.example"},
		"redirected, by address":       {Target{Addr: org}, "127.0.0.0/8"},
		"by the address it leads to":   {Target{Host: "localhost", Port: org.Port()}, "127.0.0.0/8"},
		"by CONNECT to an address":     {Target{Host: org.Addr().String(), Port: org.Port()}, "127.0.0.0/8"},
		"an address, by its SNI later": {Target{Host: org.Addr().String(), Port: org.Port()}, "bank.example"},
	} {
		t.Run(what, func(t *testing.T) {
			i := gatewayOf(t, root, func(c *Config) { c.Tunnel = []string{tc.list} })
			d := openDoor(t, i, tc.target)
			name := "bank.example"
			conf := &tls.Config{RootCAs: roots, ServerName: name}
			if tc.target.Host == "localhost" {
				conf.ServerName, conf.InsecureSkipVerify = "localhost", true
			}
			c, err := tls.Dial("tcp", d.addr.String(), conf)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := c.ConnectionState().PeerCertificates[0]; !got.Equal(parsed(t, cert)) {
				t.Errorf("the client saw the certificate of %v", got.Issuer)
			}
			if s := d.session(t); s.Mode != Tunnel || s.Fault != nil {
				t.Errorf("mode %v (%s), fault %v", s.Mode, s.Reason, s.Fault)
			}
		})
	}
}

func TestListedNameDoesNotTunnelToAnOriginThatCannotProveIt(t *testing.T) {
	root := newRoot(t)
	evil := newOrigin(t, root.leaf([]string{"evil.example"}, nil))
	for _, target := range []Target{{Addr: evil}, {Host: evil.Addr().String(), Port: evil.Port()}} {
		i := gatewayOf(t, root, func(c *Config) { c.Tunnel = []string{"bank.example"} })
		d := openDoor(t, i, target)
		for range 2 {
			c, err := tls.Dial("tcp", d.addr.String(), &tls.Config{RootCAs: i.ca.pool(), ServerName: "bank.example"})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			if s := d.session(t); s.Mode != Inspect || s.Fault == nil || s.Fault.Kind != FaultName {
				t.Errorf("%v (%s), fault %v", s.Mode, s.Reason, s.Fault)
			}
		}
	}
}

func TestServerThatSpeaksFirstIsTunnelled(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			_, _ = io.WriteString(c, "220 ready\r\n")
			_ = c.Close()
		}
	}()
	i := gatewayOf(t, newRoot(t), func(c *Config) { c.Tunnel = []string{"mail.example"} })
	d := openDoor(t, i, to("mail.example", ln.Addr().(*net.TCPAddr).AddrPort()))
	c, err := net.Dial("tcp", d.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "220 ready\r\n" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestNamesMustAgree(t *testing.T) {
	root := newRoot(t)
	org := newOrigin(t, root.leaf([]string{"site.example", "other.example", "127.0.0.1"}, nil))
	i := gatewayOf(t, root)
	for _, tc := range []struct {
		what    string
		target  Target
		sni     string // "-" is none
		host    string // of the session; "" is a fault
		forName string // what the leaf has to be good for
	}{
		{"the same", to("site.example", org), "site.example", "site.example", "site.example"},
		{"the same in capitals", to("SITE.example", org), "site.EXAMPLE", "site.example", "site.example"},
		{"no server_name", to("site.example", org), "-", "site.example", "site.example"},
		{"domain fronting", to("site.example", org), "other.example", "", "other.example"},
		{"an address and a name", Target{Host: "127.0.0.1", Port: org.Port()}, "site.example", "site.example", "site.example"},
		{"an address and no name", Target{Host: "127.0.0.1", Port: org.Port()}, "-", "127.0.0.1", "127.0.0.1"},
		{"an address and a name that it cannot prove", Target{Host: "127.0.0.1", Port: org.Port()}, "bank.example", "", "bank.example"},
		{"redirected, with a name", Target{Addr: org}, "site.example", "site.example", "site.example"},
		{"redirected, without", Target{Addr: org}, "-", "127.0.0.1", "127.0.0.1"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			d := openDoor(t, i, tc.target)
			conf := &tls.Config{ServerName: tc.sni, InsecureSkipVerify: true}
			if tc.sni == "-" {
				conf.ServerName = ""
			}
			c, err := tls.Dial("tcp", d.addr.String(), conf)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.ConnectionState().PeerCertificates[0].VerifyHostname(tc.forName); err != nil {
				t.Error(err)
			}
			s := d.session(t)
			if (s.Fault != nil) != (tc.host == "") || (s.Origin != nil) != (tc.host != "") {
				t.Errorf("fault %v, an origin %v", s.Fault, s.Origin != nil)
			}
			if tc.host != "" && s.Target.Host != tc.host {
				t.Errorf("the session is for %q, want %q", s.Target.Host, tc.host)
			}
		})
	}
}

func TestEncryptedClientHelloFallsBackToTheOuterName(t *testing.T) {
	// A server without the key answers to the outer name; the browser verifies it, and comes again without (RFC 9849).
	root := newRoot(t)
	org := newOrigin(t, root.leaf([]string{"public.example"}, nil))
	i := gatewayOf(t, root)
	d := openDoor(t, i, Target{Addr: org})
	_, err := tls.Dial("tcp", d.addr.String(), &tls.Config{
		ServerName: "secret.example", RootCAs: i.ca.pool(), MinVersion: tls.VersionTLS13,
		EncryptedClientHelloConfigList: echConfigs(t, "public.example"),
	})
	var rejected *tls.ECHRejectionError
	if !errors.As(err, &rejected) {
		t.Errorf("error %v, want that ECH was rejected by an authentic server", err)
	}
}

func TestClientCertificateSites(t *testing.T) {
	root := newRoot(t)
	clients := newRoot(t)
	pool := x509.NewCertPool()
	pool.AddCert(clients.cert)
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	mine := clients.leaf([]string{"me"}, nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			org := rawOrigin(t, &tls.Config{
				Certificates: []tls.Certificate{root.leaf([]string{"eid.example"}, nil)},
				ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: version,
			})
			i := gatewayOf(t, root)
			d := openDoor(t, i, to("eid.example", org))
			for n := range 2 {
				c, err := tls.Dial("tcp", d.addr.String(), &tls.Config{RootCAs: roots, ServerName: "eid.example", Certificates: []tls.Certificate{mine}})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(c, "ping"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
					t.Errorf("the browser's own certificate was not used end to end: %v", err)
				}
				_ = c.Close()
				want := []string{"asks for a client certificate", "learned"}[n]
				if s := d.session(t); s.Mode != Tunnel || !strings.Contains(s.Reason, want) {
					t.Errorf("connection %d: %v (%s)", n+1, s.Mode, s.Reason)
				}
			}
			if i.Stats().Learned != 1 {
				t.Errorf("%d hosts learned", i.Stats().Learned)
			}
			if _, err := gatewayOf(t, root).Open(t.Context(), to("eid.example", org)); err == nil {
				t.Error("Open has an answer for a client certificate")
			}
		})
	}
	org := rawOrigin(t, &tls.Config{Certificates: []tls.Certificate{root.leaf([]string{"eid.example"}, nil)}, ClientAuth: tls.RequestClientCert})
	for value, want := range map[string]string{certsAnonymous: "inspect", certsRefuse: "fault"} {
		i := gatewayOf(t, root, func(c *Config) { c.ClientCertificates = value })
		d := openDoor(t, i, to("eid.example", org))
		c, err := tls.Dial("tcp", d.addr.String(), &tls.Config{RootCAs: i.ca.pool(), ServerName: "eid.example"})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		s := d.session(t)
		if s.Mode != Inspect || (s.Fault != nil) != (want == "fault") {
			t.Errorf("%s: %v, fault %v", value, s.Mode, s.Fault)
		}
	}
}

func TestBrokenClientCertificateSiteDoesNotBecomeATunnel(t *testing.T) {
	// Asking for a client certificate is no way around the verification of who asks.
	org := rawOrigin(t, &tls.Config{Certificates: []tls.Certificate{newRoot(t).leaf([]string{"eid.example"}, nil)}, ClientAuth: tls.RequireAnyClientCert})
	i := gatewayOf(t, newRoot(t))
	d := openDoor(t, i, to("eid.example", org))
	c, err := tls.Dial("tcp", d.addr.String(), &tls.Config{RootCAs: i.ca.pool(), ServerName: "eid.example"})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if s := d.session(t); s.Mode != Inspect || s.Fault == nil || s.Fault.Kind != FaultUntrusted {
		t.Errorf("%v (%s), fault %v", s.Mode, s.Reason, s.Fault)
	}
}

func TestClientThatRefusesOurCertificateIsAnError(t *testing.T) {
	root := newRoot(t)
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", newOrigin(t, root.leaf([]string{"site.example"}, nil))))
	if _, err := tls.Dial("tcp", d.addr.String(), &tls.Config{ServerName: "site.example", RootCAs: x509.NewCertPool()}); err == nil {
		t.Fatal("the client accepted it")
	}
	select {
	case err := <-d.errs:
		if !strings.Contains(err.Error(), "handshake with the client failed") || !strings.Contains(err.Error(), "bad certificate") {
			t.Errorf("error %v", err)
		}
	case s := <-d.sessions:
		// In TLS 1.3 the server has finished before the client judges its certificate.
		if _, err := s.Client.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("the session's error is %v", err)
		}
	}
}

func TestUnreachableOriginIsAFaultThatCanBeShown(t *testing.T) {
	addr, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	nobody := netip.MustParseAddrPort(addr)
	i := gatewayOf(t, newRoot(t))
	body, _, err := fetch(t, openDoor(t, i, to("site.example", nobody)), i.ca.pool(), "site.example", nil)
	if err != nil || !strings.Contains(body, "fault: unreachable: the server refused the connection") {
		t.Errorf("%q, %v", body, err)
	}
}

func TestPlainTextOriginOnTheTLSPortIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	i := gatewayOf(t, newRoot(t))
	_, err = i.Open(t.Context(), to("site.example", ln.Addr().(*net.TCPAddr).AddrPort()))
	if err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("error %v", err)
	}
}
