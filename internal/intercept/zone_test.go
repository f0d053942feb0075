package intercept

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/units"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsServer answers over UDP and TCP on one loopback port.
type dnsServer struct {
	addr netip.AddrPort

	mu     sync.Mutex
	asked  []string // names, with the network before: "udp name"
	answer func(network string, q dnsmessage.Message) []dnsmessage.Message
}

// newDNSServer serves with answer, which returns the messages to send; none is silence.
func newDNSServer(t *testing.T, answer func(network string, q dnsmessage.Message) []dnsmessage.Message) *dnsServer {
	t.Helper()
	s := &dnsServer{answer: answer}
	var (
		udp net.PacketConn
		tcp net.Listener
		err error
	)
	for range 20 { // both need the same port
		if udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if tcp, err = net.Listen("tcp", udp.LocalAddr().String()); err == nil {
			break
		}
		_ = udp.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.addr = udp.LocalAddr().(*net.UDPAddr).AddrPort()
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			for _, m := range s.handle(t, "udp", b[:n]) {
				_, _ = udp.WriteTo(m, from)
			}
		}
	})
	wg.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			b, err := readFramed(c)
			if err == nil {
				for _, m := range s.handle(t, "tcp", b) {
					_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
				}
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = udp.Close(); _ = tcp.Close(); wg.Wait() })
	return s
}

func (s *dnsServer) handle(t *testing.T, network string, b []byte) (out [][]byte) {
	var q dnsmessage.Message
	if err := q.Unpack(b); err != nil || len(q.Questions) != 1 {
		t.Errorf("a query that cannot be read: %v", err)
		return nil
	}
	s.mu.Lock()
	s.asked = append(s.asked, network+" "+q.Questions[0].Name.String())
	s.mu.Unlock()
	for _, m := range s.answer(network, q) {
		p, err := m.Pack()
		if err != nil {
			t.Error(err)
			return nil
		}
		out = append(out, p)
	}
	return out
}

func (s *dnsServer) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// reply is an answer to q with these addresses under this TTL; none is NXDOMAIN with an SOA record.
func reply(q dnsmessage.Message, ttl uint32, addrs ...string) dnsmessage.Message {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true}, Questions: q.Questions}
	name := q.Questions[0].Name
	for _, a := range addrs {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: ttl},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()},
		})
	}
	if len(addrs) == 0 {
		m.RCode = dnsmessage.RCodeNameError
		m.Authorities = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET, TTL: 7200},
			Body:   &dnsmessage.SOAResource{NS: name, MBox: name, MinTTL: ttl},
		}}
	}
	return m
}

func zoneGateway(t *testing.T, now func() time.Time, timeout time.Duration, servers ...string) *Interceptor {
	t.Helper()
	return gatewayWith(t, newRoot(t), Options{Now: now}, func(c *Config) {
		c.TunnelZones, c.TunnelZoneServers = []string{"tunnel.test"}, servers
		c.TunnelZoneTimeout = units.Duration(timeout)
	})
}

func TestTunnelZone(t *testing.T) {
	s := newDNSServer(t, func(network string, q dnsmessage.Message) []dnsmessage.Message {
		name := q.Questions[0].Name
		alias := dnsmessage.MustNewName("alias.elsewhere.test.")
		switch host := strings.TrimSuffix(strings.ToLower(name.String()), ".tunnel.test."); host {
		case "bank.example", "9.2.0.192", "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2":
			return []dnsmessage.Message{reply(q, 60, "127.0.0.2")}
		case "more.example":
			return []dnsmessage.Message{reply(q, 60, "192.0.2.1", "127.3.2.1")}
		case "empty.example":
			m := reply(q, 60)
			m.RCode, m.Authorities = dnsmessage.RCodeSuccess, nil
			return []dnsmessage.Message{m}
		case "alias.example":
			m := reply(q, 60, "127.0.0.2")
			m.Answers[0].Header.Name = alias
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeCNAME, Class: dnsmessage.ClassINET, TTL: 5},
				Body:   &dnsmessage.CNAMEResource{CNAME: alias},
			})
			return []dnsmessage.Message{m}
		case "smuggled.example": // a record of another name
			m := reply(q, 60, "127.0.0.2")
			m.Answers[0].Header.Name = alias
			return []dnsmessage.Message{m}
		case "hijacked.example":
			return []dnsmessage.Message{reply(q, 60, "192.0.2.80")}
		case "quota.example":
			return []dnsmessage.Message{reply(q, 60, "127.255.255.254")}
		case "refused.example":
			m := reply(q, 60, "127.0.0.2")
			m.RCode = dnsmessage.RCodeRefused
			return []dnsmessage.Message{m}
		case "long.example":
			m := reply(q, 60, "127.0.0.2")
			if network == "udp" {
				m.Truncated, m.Answers = true, nil
			}
			return []dnsmessage.Message{m}
		case "spoofed.example":
			id, question, query := reply(q, 60, "127.0.0.2"), reply(q, 60, "127.0.0.2"), reply(q, 60, "127.0.0.2")
			id.ID++
			question.Questions = []dnsmessage.Question{{Name: alias, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
			query.Response = false
			return []dnsmessage.Message{id, question, query, reply(q, 60)}
		}
		return []dnsmessage.Message{reply(q, 60)}
	})
	i := zoneGateway(t, nil, 20*time.Second, s.addr.String())
	for _, tc := range []struct {
		host string
		want Mode
	}{
		{"bank.example", Tunnel},
		{"BANK.example.", Tunnel},
		{"www.bank.example", Inspect},
		{"192.0.2.9", Tunnel},
		{"::ffff:192.0.2.9", Tunnel},
		{"192.0.2.10", Inspect},
		{"[2001:db8::7]", Tunnel},
		{"2001:db8::8", Inspect},
		{"more.example", Tunnel},
		{"empty.example", Inspect},
		{"alias.example", Tunnel},
		{"smuggled.example", Inspect},
		{"hijacked.example", Inspect},
		{"quota.example", Inspect},
		{"refused.example", Inspect},
		{"long.example", Tunnel},
		{"spoofed.example", Inspect},
		{strings.Repeat("a.", 120) + "example", Inspect}, // longer than DNS can ask for
	} {
		d := i.Decide(t.Context(), Target{Host: tc.host, Port: 443})
		if d.Mode != tc.want || (d.Rule == RuleZone) != (tc.want == Tunnel) {
			t.Errorf("%s: %v (%s), want %v", tc.host, d.Mode, d.Reason, tc.want)
		}
	}
	if d := i.Decide(t.Context(), Target{Addr: netip.MustParseAddrPort("192.0.2.9:443")}); d.Rule != RuleZone || !strings.Contains(d.Reason, "192.0.2.9 is listed in tunnel.test") {
		t.Errorf("redirected: %v (%s)", d.Mode, d.Reason)
	}
	if !slices.Contains(s.names(), "tcp long.example.tunnel.test.") {
		t.Errorf("a truncated answer was not asked for over TCP: %v", s.names())
	}
	if st := i.Stats().Zones; st.Failed != 2 || st.Asked < 10 || st.Skipped != 0 || st.Cached != int(st.Asked) {
		t.Errorf("%+v; want 2 failed", st)
	}
}

func TestTunnelZoneIsCachedByTTL(t *testing.T) {
	s := newDNSServer(t, func(_ string, q dnsmessage.Message) []dnsmessage.Message {
		switch strings.TrimSuffix(q.Questions[0].Name.String(), ".tunnel.test.") {
		case "yes.example":
			return []dnsmessage.Message{reply(q, 300, "127.0.0.2")}
		case "zero.example":
			return []dnsmessage.Message{reply(q, 1<<31, "127.0.0.2")}
		}
		return []dnsmessage.Message{reply(q, 120)}
	})
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	i := zoneGateway(t, clock, 20*time.Second, s.addr.String())
	asked := 0
	look := func(host string, want Mode, questions int) {
		t.Helper()
		if d := i.Decide(t.Context(), Target{Host: host, Port: 443}); d.Mode != want {
			t.Errorf("%s: %v", host, d.Mode)
		}
		if n := len(s.names()); n-asked != questions {
			t.Errorf("%s was asked for %d times, want %d", host, n-asked, questions)
		}
		asked = len(s.names())
	}
	look("yes.example", Tunnel, 1)
	look("yes.example", Tunnel, 0)
	look("no.example", Inspect, 1)
	look("no.example", Inspect, 0)
	look("zero.example", Tunnel, 1)
	pass(time.Second)
	look("zero.example", Tunnel, 1)
	pass(118 * time.Second)
	look("no.example", Inspect, 0)
	pass(time.Second)
	look("no.example", Inspect, 1)
	look("yes.example", Tunnel, 0)
	pass(180 * time.Second)
	look("yes.example", Tunnel, 1)
	i.zones.cache = newLRU[string, bool](2, clock)
	for _, h := range []string{"a.example", "b.example", "c.example"} {
		look(h, Inspect, 1)
	}
	if n := i.Stats().Zones.Cached; n != 2 {
		t.Errorf("%d answers are kept, want 2", n)
	}
}

func TestDeadDNSDoesNotStallTraffic(t *testing.T) {
	var (
		mu    sync.Mutex
		alive bool
	)
	s := newDNSServer(t, func(_ string, q dnsmessage.Message) []dnsmessage.Message {
		mu.Lock()
		defer mu.Unlock()
		if alive {
			return []dnsmessage.Message{reply(q, 60, "127.0.0.2")}
		}
		return nil
	})
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	i := zoneGateway(t, clock, 20*time.Millisecond, s.addr.String())
	host := func(n int) Target { return Target{Host: string(rune('a'+n)) + ".example", Port: 443} }
	for n := range 20 {
		if d := i.Decide(t.Context(), host(n)); d.Mode != Inspect {
			t.Errorf("%v (%s)", d.Mode, d.Reason)
		}
	}
	if st := i.Stats().Zones; st.Asked != zoneBreak || st.Failed != zoneBreak || st.Skipped != 20-zoneBreak {
		t.Errorf("%+v, want %d asked and the rest skipped", st, zoneBreak)
	}
	// Then one tries whether it is back, and finds it dead; later another finds it alive.
	mu.Lock()
	now = now.Add(zonePause)
	mu.Unlock()
	for n := range 5 {
		i.Decide(t.Context(), host(n))
	}
	if st := i.Stats().Zones; st.Asked != zoneBreak+1 {
		t.Errorf("%d asked after the pause, want one more", st.Asked-zoneBreak)
	}
	mu.Lock()
	now, alive = now.Add(zonePause), true
	mu.Unlock()
	i.zones.resolver.timeout = 20 * time.Second
	for n := range 5 {
		if d := i.Decide(t.Context(), host(n)); d.Mode != Tunnel {
			t.Errorf("the zone is back, and %s is %v (%s)", host(n).Host, d.Mode, d.Reason)
		}
	}
}

func TestSlowDNSHoldsAConnectionForNoLongerThanItMay(t *testing.T) {
	gate := make(chan struct{})
	s := newDNSServer(t, func(_ string, q dnsmessage.Message) []dnsmessage.Message {
		<-gate
		return []dnsmessage.Message{reply(q, 60, "127.0.0.2")}
	})
	t.Cleanup(func() { close(gate) })
	i := zoneGateway(t, nil, 50*time.Millisecond, s.addr.String())
	var wg sync.WaitGroup
	for range 50 { // who asks the same waits for the one question
		wg.Go(func() {
			if d := i.Decide(t.Context(), Target{Host: "bank.example", Port: 443}); d.Mode != Inspect {
				t.Errorf("%v (%s)", d.Mode, d.Reason)
			}
		})
	}
	wg.Wait()
	if st := i.Stats().Zones; st.Asked == 0 || st.Asked > 2 || st.Failed != st.Asked {
		t.Errorf("%+v", st)
	}
	// A client that goes away does not wait at all.
	i = zoneGateway(t, nil, 300*time.Millisecond, s.addr.String())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d := i.Decide(ctx, Target{Host: "bank.example", Port: 443}); d.Mode != Inspect {
		t.Errorf("%v (%s)", d.Mode, d.Reason)
	}
}

func TestNextDNSServerIsAsked(t *testing.T) {
	good := newDNSServer(t, func(_ string, q dnsmessage.Message) []dnsmessage.Message {
		return []dnsmessage.Message{reply(q, 60, "127.0.0.2")}
	})
	broken := newDNSServer(t, func(_ string, q dnsmessage.Message) []dnsmessage.Message {
		m := reply(q, 60)
		m.RCode, m.Questions = dnsmessage.RCodeFormatError, nil
		return []dnsmessage.Message{m}
	})
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	i := zoneGateway(t, nil, 20*time.Second, closed.LocalAddr().String(), broken.addr.String(), good.addr.String())
	if d := i.Decide(t.Context(), Target{Host: "bank.example", Port: 443}); d.Rule != RuleZone {
		t.Errorf("%v (%s)", d.Mode, d.Reason)
	}
	if len(broken.names()) == 0 {
		t.Error("the second server was not asked")
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	r, err := newResolver(nil, time.Second, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.path = path
	local := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	for _, tc := range []struct {
		text string
		want []netip.AddrPort
	}{
		{"# none\n", local},
		{
			"search a.example\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # two\nnameserver wrong\n#nameserver 192.0.2.9\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n",
			[]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:53"), netip.MustParseAddrPort("[fe80::1%eth0]:53")},
		},
		{"nameserver 192.0.2.5", []netip.AddrPort{netip.MustParseAddrPort("192.0.2.5:53")}},
	} {
		if err := replace(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r.looked = time.Time{}
		if got := r.list(); !slices.Equal(got, tc.want) {
			t.Errorf("%q: %v, want %v", tc.text, got, tc.want)
		}
	}
	before := r.list()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.looked = time.Time{}
	if got := r.list(); !slices.Equal(got, before) {
		t.Errorf("without the file: %v, want %v", got, before)
	}
}

func FuzzDNSAnswer(f *testing.F) {
	name := dnsmessage.MustNewName("bank.example.tunnel.test.")
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	for _, m := range []dnsmessage.Message{reply(q, 60, "127.0.0.2"), reply(q, 60), q} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, truncated, mine, err := readAnswer(b, 7, name)
		if len(a.addrs) > 0 && (!mine || truncated || err != nil) {
			t.Errorf("addresses %v of no answer: mine %v, truncated %v, error %v", a.addrs, mine, truncated, err)
		}
		if a.ttl < 0 {
			t.Errorf("TTL %v", a.ttl)
		}
	})
}

// TestZonesAreAskedAtTheSameTime has each zone answer only when all have been asked.
func TestZonesAreAskedAtTheSameTime(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = udp.Close(); wg.Wait() })
	wg.Go(func() {
		type question struct {
			from  net.Addr
			reply dnsmessage.Message
		}
		asked := map[string]question{}
		for len(asked) < 3 {
			b := make([]byte, 4096)
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if err := q.Unpack(b[:n]); err != nil {
				t.Error(err)
				return
			}
			name, answer := q.Questions[0].Name.String(), reply(q, 60)
			if strings.HasSuffix(name, ".c.zone.") {
				answer = reply(q, 60, "127.0.0.2")
			}
			asked[name] = question{from, answer}
		}
		for _, q := range asked {
			if b, err := q.reply.Pack(); err == nil {
				_, _ = udp.WriteTo(b, q.from)
			}
		}
	})
	i := gatewayOf(t, newRoot(t), func(c *Config) {
		c.TunnelZones, c.TunnelZoneServers = []string{"a.zone", "b.zone", "c.zone"}, []string{udp.LocalAddr().String()}
		c.TunnelZoneTimeout = units.Duration(4 * time.Second)
	})
	if d := i.Decide(t.Context(), Target{Host: "bank.example", Port: 443}); d.Rule != RuleZone || !strings.Contains(d.Reason, "c.zone") {
		t.Errorf("%v (%s)", d.Mode, d.Reason)
	}
	if st := i.Stats().Zones; st.Asked != 3 || st.Failed != 0 {
		t.Errorf("%+v, want three questions and none that failed", st)
	}
}
