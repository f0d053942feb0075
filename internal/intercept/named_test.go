package intercept

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"lazaret/internal/relay"
)

// inRecords returns a ClientHello in records of so many bytes each.
func inRecords(hello []byte, size int) []byte {
	var out []byte
	for msg := hello[recordHead:]; len(msg) > 0; {
		n := min(size, len(msg))
		out = append(append(out, recordHandshake, 3, 1, 0, byte(n)), msg[:n]...)
		msg = msg[n:]
	}
	return out
}

func TestTunnelForANameTakesNoOther(t *testing.T) {
	listed := Decision{Tunnel, "tunnel list", RuleList}
	other := inRecords(helloFor("neighbour.example"), 7)
	for _, tc := range []struct {
		what   string
		host   string
		d      Decision
		sent   []byte
		passes bool
	}{
		{"its name", "bank.example", listed, helloFor("bank.example"), true},
		{"its name in another form", "Bank.Example.", listed, helloFor("bank.EXAMPLE"), true},
		{"its name in pieces, and what follows", "bank.example", listed, append(inRecords(helloFor("bank.example"), 3), "\x14\x03 more"...), true},
		{"another name", "bank.example", listed, helloFor("neighbour.example"), false},
		{"another name in pieces", "bank.example", listed, other, false},
		{"a name below", "bank.example", listed, helloFor("www.bank.example"), false},
		{"an address", "bank.example", listed, helloFor("192.0.2.1"), false},
		{"no name that can be", "bank.example", listed, helloFor("a b"), false},
		{"by a file", "bank.example", Decision{Tunnel, "", RuleFile}, other, false},
		{"by a zone", "bank.example", Decision{Tunnel, "", RuleZone}, other, false},
		{"learned", "bank.example", Decision{Tunnel, "", RuleLearned}, other, false},
		{"pinned", "bank.example", Decision{Tunnel, "", RulePinned}, other, false},
		{"by the client's network", "bank.example", Decision{Tunnel, "", RuleClients}, other, true},
		{"by an address", "192.0.2.1", listed, other, true},
		{"a broken hello", "bank.example", listed, []byte("\x16\x03\x01\x00\x01\x02"), false},
		{"half a hello", "bank.example", listed, helloFor("bank.example")[:20], false},
		{"an alert, and a hello for another name", "bank.example", listed, append([]byte("\x15\x03\x01\x00\x02\x01\x5a"), other...), false},
		{"SSH", "bank.example", listed, []byte("SSH-2.0-x\r\n"), true},
		{"one byte", "bank.example", listed, []byte("x"), true},
		{"nothing", "bank.example", listed, nil, true},
		{"too long a hello", "bank.example", listed, append([]byte("\x16\x03\x01\x40\x00\x01\xff\xff\xff"), make([]byte, maxHello)...), false},
	} {
		client, server := net.Pipe()
		go func() {
			_, _ = client.Write(tc.sent)
			_ = client.Close()
		}()
		got, err := io.ReadAll(Named(server, Target{Host: tc.host, Port: 443}, tc.d))
		var opening *OpeningError
		switch {
		case tc.passes && (err != nil || !bytes.Equal(got, tc.sent)):
			t.Errorf("%s: %q, %v; want it to pass as it is", tc.what, got, err)
		case !tc.passes && (len(got) > 0 || !errors.As(err, &opening)):
			t.Errorf("%s: %q passed, %v", tc.what, got, err)
		}
		_ = server.Close()
	}
}

// TestSilenceDoesNotGetAnotherNamePast has the client wait for as long as anybody does, and go on later.
func TestSilenceDoesNotGetAnotherNamePast(t *testing.T) {
	for name, passes := range map[string]bool{"bank.example": true, "neighbour.example": false} {
		client, server := net.Pipe()
		n := Named(server, Target{Host: "bank.example", Port: 443}, Decision{Tunnel, "", RuleList})
		hello := helloFor(name)
		wait := func() {
			t.Helper()
			_ = n.SetReadDeadline(time.Unix(1, 0))
			if m, err := n.Read(make([]byte, 9)); m != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%d bytes, %v", m, err)
			}
			_ = n.SetReadDeadline(time.Time{})
		}
		wait()
		half := make(chan struct{})
		go func() {
			_, _ = client.Write(hello[:30])
			<-half
			_, _ = client.Write(hello[30:])
			_ = client.Close()
		}()
		first := n.(*named)
		if err := first.first.want(30); err != nil {
			t.Fatal(err)
		}
		wait()
		close(half)
		got, err := io.ReadAll(n)
		if passes != (err == nil && bytes.Equal(got, hello)) || !passes && len(got) > 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		_ = server.Close()
	}
}

// TestGreetingPassesANamedTunnel has both sides speak at the same time, over TCP.
func TestGreetingPassesANamedTunnel(t *testing.T) {
	i := gatewayOf(t, newRoot(t), func(c *Config) { c.Tunnel = []string{"mail.example"} })
	target := talker(t, "220 ready\r\n")
	target.Host = "mail.example"
	d := openDoor(t, i, target)
	c, err := net.Dial("tcp", d.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, len("220 ready\r\n"))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "220 ready\r\n" {
		t.Fatalf("%q, %v", b, err)
	}
	big := bytes.Repeat([]byte("EHLO client\r\n"), 100_000)
	go func() {
		_, _ = c.Write(big)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(big), err)
	}
	if s := d.session(t); s.Mode != Tunnel {
		t.Errorf("%v (%s)", s.Mode, s.Reason)
	}
}

// TestLearnedOfAnAddressIsForNoName has a client that gives no name teach something about an address that others have names at.
func TestLearnedOfAnAddressIsForNoName(t *testing.T) {
	root := newRoot(t)
	org := newOrigin(t, root.leaf([]string{"site.example", "127.0.0.1"}, nil))
	for _, rule := range []Rule{RuleLearned, RulePinned} {
		for _, target := range []Target{{Addr: org, Port: org.Port()}, {Host: "127.0.0.1", Port: org.Port()}} {
			i := gatewayOf(t, root)
			e := Learned{Host: org.String(), Reason: "tried", Until: time.Now().Add(time.Hour)}
			if rule == RulePinned {
				e.Client = "127.0.0.1"
			}
			i.learned.add(e)
			asks := target
			asks.Client = netip.MustParseAddrPort("127.0.0.1:1")
			if d := i.Decide(t.Context(), asks); d.Mode != Inspect {
				t.Errorf("before a name is known: %v", d)
			}
			d := openDoor(t, i, target)
			for name, want := range map[string]Rule{"site.example": RuleNone, "127.0.0.1": rule} {
				c, err := tls.Dial("tcp", d.addr.String(), &tls.Config{InsecureSkipVerify: true, ServerName: name})
				if err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
				if s := d.session(t); s.Rule != want || s.Fault != nil {
					t.Errorf("%s for %q: %v (%s), %v", rule, name, s.Mode, s.Reason, s.Fault)
				}
			}
		}
	}
}

// TestNamedTunnelIsSplicedLater keeps the kernel's copy for what follows the first bytes.
func TestNamedTunnelIsSplicedLater(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	n := Named(relay.NewPrefixed(server, []byte("a")), Target{Host: "bank.example"}, Decision{Tunnel, "", RuleList}).(*named)
	if n.TCPConn() != nil {
		t.Error("it stands for the connection below before anything was looked at")
	}
	if _, err := n.Read(make([]byte, 9)); err != nil || n.TCPConn() != server {
		t.Errorf("afterwards it does not: %v", err)
	}
}
