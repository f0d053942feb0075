package intercept

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"lazaret/internal/units"
)

// talker is an origin of a protocol of its own: it says hello, which may be nothing, and then whatever it is told.
func talker(t *testing.T, hello string) Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.WriteString(c, hello); err == nil {
					_, _ = io.Copy(c, c)
				}
			}()
		}
	}()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	return Target{Addr: addr, Port: addr.Port()}
}

func tunnelOthers(c *Config) {
	c.OtherProtocols = otherTunnel
	c.HelloTimeout = units.Duration(4 * time.Second)
}

func TestOtherProtocolsAreTunnelledWherePolicySaysSo(t *testing.T) {
	root := newRoot(t)
	i := gatewayOf(t, root, tunnelOthers)
	for _, tc := range []struct {
		name, hello, sent string
		want              Mode
		reason            string
	}{
		{"the client speaks first", "", "SSH-2.0-OpenSSH_9.2\r\n", Tunnel, "neither TLS nor HTTP"},
		{"binary", "", "\x00\x00\x00\x02hi", Tunnel, "neither TLS nor HTTP"},
		{"the server speaks first", "SSH-2.0-Server\r\n", "", Tunnel, "the server speaks first"},
		{"a request", "", "GET / HTTP/1.1\r\nHost: site.example\r\n\r\n", Plain, "without TLS"},
		{"a method in lower case", "", "get /eicar HTTP/1.0\r\n\r\n", Refuse, "too much like a request"},
		{"a request behind a blank line", "", "\r\n GET / HTTP/1.0\r\n\r\n", Refuse, "too much like a request"},
		{"a request with a tab", "", "GET\t/ HTTP/1.0\r\n\r\n", Refuse, "too much like a request"},
		{"an alert of TLS", "", "\x15\x03\x01\x00\x02\x02\x28", Refuse, "too much like a request"},
		{"a hello of SSLv2", "", "\x80\x2e\x01\x00\x02", Refuse, "too much like a request"},
		{"a broken hello", "", "\x16\x03\x01\x00\x01\x02", Refuse, "not a valid TLS ClientHello"},
		{"a server that has waited for too long", "HTTP/1.1 408 Request Timeout\r\n\r\n", "", Refuse, "the client was silent"},
		{"a server that ends TLS", "\x15\x03\x03\x00\x02\x02\x28", "", Refuse, "the client was silent"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			client, server := net.Pipe()
			defer client.Close()
			if tc.sent != "" {
				go func() { _, _ = io.WriteString(client, tc.sent) }()
			}
			s, err := i.Accept(t.Context(), server, talker(t, tc.hello))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.Mode != tc.want || s.Rule != RuleProtocol || !strings.Contains(s.Reason, tc.reason) || (s.RawOrigin != nil) != (tc.want == Tunnel) {
				t.Fatalf("%v (%s), want %v (%s)", s.Mode, s.Reason, tc.want, tc.reason)
			}
			if tc.want != Tunnel {
				return
			}
			for conn, want := range map[net.Conn]string{s.Raw: tc.sent, s.RawOrigin: tc.hello} {
				b := make([]byte, len(want))
				if _, err := io.ReadFull(conn, b); err != nil || string(b) != want {
					t.Errorf("read again %q, want %q (%v)", b, want, err)
				}
			}
		})
	}
}

func TestLateHelloIsInspectedWhereOthersAreTunnelled(t *testing.T) {
	root := newRoot(t)
	i := gatewayOf(t, root, tunnelOthers)
	target := to("site.example", newOrigin(t, root.leaf([]string{"site.example"}, nil)))
	client, server := net.Pipe()
	defer client.Close()
	done := make(chan error, 1)
	go func() {
		time.Sleep(silence + silence/2) // the origin has been asked by now, and has nothing to say
		done <- tls.Client(client, &tls.Config{RootCAs: i.ca.pool(), ServerName: "site.example"}).HandshakeContext(t.Context())
	}()
	s, err := i.Accept(t.Context(), server, target)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Mode != Inspect || s.Origin == nil || s.Fault != nil {
		t.Errorf("%v (%s), fault %v", s.Mode, s.Reason, s.Fault)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSilenceOnBothSidesEnds(t *testing.T) {
	i := gatewayOf(t, newRoot(t), tunnelOthers, func(c *Config) { c.HelloTimeout = units.Duration(time.Second) })
	client, server := net.Pipe()
	defer client.Close()
	if s, err := i.Accept(t.Context(), server, talker(t, "")); err == nil || !strings.Contains(err.Error(), "sent nothing") {
		t.Errorf("%+v, %v", s, err)
	}
	i = gatewayOf(t, newRoot(t), tunnelOthers)
	client, server = net.Pipe()
	defer client.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	_ = l.Close() // nobody is there
	s, err := i.Accept(t.Context(), server, Target{Addr: addr, Port: addr.Port()})
	if err != nil || s.Fault == nil || s.Fault.Kind != FaultUnreachable {
		t.Errorf("%+v, %v", s, err)
	}
}

// FuzzNearHTTP holds nearHTTP against what it is for: nothing that a request line begins with, in any case and behind any
// white space, is tunnelled.
func FuzzNearHTTP(f *testing.F) {
	for _, s := range []string{"get / HTTP/1.0", "\r\n\tGeT\t/", "SSH-2.0-x", "\x16\x03", "\x80", "M-SEARCH *"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		is, more := nearHTTP(b)
		if is && more {
			t.Error("both known and unknown")
		}
		word, _, spaced := bytes.Cut(bytes.TrimLeft(b, " \t\r\n"), []byte(" "))
		if spaced && bytes.EqualFold(word, []byte("get")) && len(b) <= maxMethod && !is {
			t.Errorf("%q may be a request", b)
		}
	})
}
