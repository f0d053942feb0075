package intercept

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"lazaret/internal/units"
)

func TestConfigIsChecked(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Hour)
	for want, edit := range map[string]func(*Config){
		"tunnel: \"a b\"":              func(c *Config) { c.Tunnel = []string{"good.example", "a b"} },
		"tunnel: \"**.example\"":       func(c *Config) { c.Tunnel = []string{"**.example"} },
		"tunnel: \"*\"":                func(c *Config) { c.Tunnel = []string{"*"} },
		"tunnel_clients: ":             func(c *Config) { c.TunnelClients = []string{"host.example"} },
		"min_version: \"1.1\"":         func(c *Config) { c.MinVersion = "1.1" },
		"client_certificates: \"ask\"": func(c *Config) { c.ClientCertificates = "ask" },
		"other_protocols: \"pass\"":    func(c *Config) { c.OtherProtocols = "pass" },
		"learned: ":                    func(c *Config) { c.Learned = 0 },
		"hello_timeout: ":              func(c *Config) { c.HelloTimeout = 0 },
		"handshake_timeout: ":          func(c *Config) { c.HandshakeTimeout = units.Duration(-1) },
		"certificates: ":               func(c *Config) { c.Certificates = 1 },
		"sessions: ":                   func(c *Config) { c.Sessions = 0 },
		"exception: number 1: host":    func(c *Config) { c.Exceptions = []Exception{{Host: "*.example", Faults: excusable, Expires: soon}} },
		"exception: number 2: expires": func(c *Config) {
			c.Exceptions = []Exception{{Host: "a.example", Faults: excusable, Expires: soon}, {Host: "b.example", Faults: excusable}}
		},
		"exception: number 1: faults": func(c *Config) { c.Exceptions = []Exception{{Host: "a.example", Expires: soon}} },
		"exception: number 1: fault \"own-ca": func(c *Config) {
			c.Exceptions = []Exception{{Host: "a.example", Faults: []FaultKind{FaultOwnCA}, Expires: soon}}
		},
		"exception: number 1: fingerprint": func(c *Config) {
			c.Exceptions = []Exception{{Host: "a.example", Faults: excusable, Expires: soon, Fingerprint: "12:34"}}
		},
	} {
		cfg := Default()
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want one that begins with %q", err, want)
		}
	}
}

func TestWhatIsNoHTTPSIsPlainOrRefused(t *testing.T) {
	root := newRoot(t)
	i := gatewayOf(t, root, func(c *Config) { c.HelloTimeout = units.Duration(2 * time.Second) })
	target := to("site.example", newOrigin(t, root.leaf([]string{"site.example"}, nil)))
	for _, tc := range []struct {
		sent   string
		want   Mode
		reason string
	}{
		{"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n", Plain, "without TLS"},
		{"SSH-2.0-OpenSSH_9.2\r\n", Refuse, "SSH"},
		{"\x16\x03\x01\x00\x01\x02", Refuse, "not a valid TLS ClientHello"},
		{string(helloOf(t, &tls.Config{ServerName: "site.example", NextProtos: []string{"imap"}})), Refuse, "imap"},
		{string(helloOf(t, &tls.Config{ServerName: "not_a host", InsecureSkipVerify: true})), Refuse, "server_name"},
	} {
		client, server := net.Pipe()
		go func() { _, _ = io.WriteString(client, tc.sent) }()
		s, err := i.Accept(t.Context(), server, target)
		if err != nil {
			t.Errorf("%.20q: %v", tc.sent, err)
			continue
		}
		if s.Mode != tc.want || !strings.Contains(s.Reason, tc.reason) || s.Client != nil || s.Origin != nil {
			t.Errorf("%.20q: %v (%s), want %v (%s)", tc.sent, s.Mode, s.Reason, tc.want, tc.reason)
		}
		if tc.want == Plain {
			b := make([]byte, len(tc.sent))
			if _, err := io.ReadFull(s.Raw, b); err != nil || string(b) != tc.sent {
				t.Errorf("read again %q, %v", b, err)
			}
		}
		if _, err := s.Redial(t.Context()); err == nil {
			t.Error("there is an origin to dial")
		}
		_, _ = s.Close(), client.Close()
	}
}

func TestPanicCostsOneConnection(t *testing.T) {
	i := gatewayOf(t, newRoot(t))
	client, server := net.Pipe()
	defer client.Close()
	i.dialer = nil // what follows the ClientHello has nothing to dial with
	go func() { _, _ = client.Write(helloOf(t, &tls.Config{ServerName: "site.example"})) }()
	if _, err := i.Accept(t.Context(), server, Target{Host: "site.example", Port: 443}); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("error %v", err)
	}
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the client's connection is open")
	}
}

func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"Site.Example.", "[::1]", "::ffff:192.0.2.1", "127.1", "0x7f.1", "xn--bcher-kva.example", "*.a", "a..b", "1.2.3.4."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := canonicalHost(s)
		if err != nil {
			return
		}
		if again, err := canonicalHost(h); err != nil || again != h {
			t.Errorf("%q becomes %q, and that %q (%v)", s, h, again, err)
		}
		l, err := parseHosts([]string{s})
		if h != "" && err == nil {
			if _, ok := l.matchName(h); !ok && net.ParseIP(h) == nil {
				t.Errorf("%q does not match itself", s)
			}
		}
	})
}
