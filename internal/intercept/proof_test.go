package intercept

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// helloFor returns a ClientHello whose server_name is name, be it one that clients would not send.
func helloFor(name string) []byte {
	list := append([]byte{0, byte(len(name) + 3), 0, 0, byte(len(name))}, name...)
	ext := append([]byte{0, 0, 0, byte(len(list))}, list...)
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0xc0, 0x2b, 1, 0, 0, byte(len(ext)))
	body = append(body, ext...)
	msg := append([]byte{typeClientHello, 0, 0, byte(len(body))}, body...)
	return append([]byte{recordHandshake, 3, 1, 0, byte(len(msg))}, msg...)
}

// TestAddressInTheHelloOpensNoTunnel has redirected clients call their destination by an address that is on a list.
func TestAddressInTheHelloOpensNoTunnel(t *testing.T) {
	zone := newDNSServer(t, func(_ string, q dnsmessage.Message) []dnsmessage.Message {
		if strings.HasPrefix(q.Questions[0].Name.String(), "5.2.0.192.") {
			return []dnsmessage.Message{reply(q, 60, "127.0.0.2")}
		}
		return []dnsmessage.Message{reply(q, 60)}
	})
	evil := talker(t, "unscanned").Addr
	for what, edit := range map[string]func(*Config){
		"a network":  func(c *Config) { c.Tunnel = []string{"192.0.2.0/24"} },
		"an address": func(c *Config) { c.Tunnel = []string{"192.0.2.5"} },
		"a zone": func(c *Config) {
			c.TunnelZones, c.TunnelZoneServers = []string{"tunnel.test"}, []string{zone.addr.String()}
		},
	} {
		for _, verify := range []bool{true, false} {
			i := gatewayOf(t, newRoot(t), edit, func(c *Config) { c.VerifyTunnels = verify })
			for _, target := range []Target{{Addr: evil, Port: evil.Port()}, {Host: "192.0.2.5", Addr: evil, Port: evil.Port()}} {
				client, server := net.Pipe()
				go func() {
					_, _ = client.Write(helloFor("192.0.2.5"))
					_, _ = client.Read(make([]byte, 1)) // it is answered, to be shown a page
					_ = client.Close()
				}()
				s, err := i.Accept(t.Context(), server, target)
				if err == nil {
					t.Errorf("%s, verify_tunnels %v: %v (%s)", what, verify, s.Mode, s.Reason)
					_, _ = s.Close(), client.Close()
				}
			}
		}
	}
	// Where it is the destination, nothing has changed.
	h := &clientHello{serverName: "127.0.0.1"}
	if name, why := agree(&Target{Addr: netip.MustParseAddrPort("[::ffff:127.0.0.1]:443")}, h); name != "127.0.0.1" || why != "" {
		t.Errorf("%q, %s", name, why)
	}
	if _, why := agree(&Target{Addr: netip.MustParseAddrPort("127.0.0.2:443")}, h); !strings.Contains(why, "made to 127.0.0.2") {
		t.Errorf("why: %q", why)
	}
}

// TestServerThatCannotBeAskedForAProofGetsNoTunnel refuses the connection that is to prove the name, and takes the next.
func TestServerThatCannotBeAskedForAProofGetsNoTunnel(t *testing.T) {
	evil := talker(t, "unscanned")
	var dialled atomic.Int32
	target := Target{Addr: evil.Addr, Port: evil.Port, Dial: func(ctx context.Context) (net.Conn, error) {
		if dialled.Add(1) == 1 {
			return nil, errors.New("refused")
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", evil.Addr.String())
	}}
	i := gatewayOf(t, newRoot(t), func(c *Config) { c.Tunnel = []string{"bank.example"} })
	client, server := net.Pipe()
	defer client.Close()
	go func() { _ = tls.Client(client, &tls.Config{ServerName: "bank.example"}).HandshakeContext(t.Context()) }()
	s, err := i.Accept(t.Context(), server, target)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.RawOrigin != nil || s.Fault == nil || s.Fault.Kind != FaultUnreachable || dialled.Load() != 1 {
		t.Errorf("%v (%s), fault %v, dialled %d times", s.Mode, s.Reason, s.Fault, dialled.Load())
	}
}
