package intercept

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The bounds of a look-up.
const (
	dnsPort       = 53
	dnsUDPSize    = 1232 // what is announced by EDNS (RFC 6891); it fits every path's MTU
	dnsRounds     = 2    // how often each server is asked
	dnsMaxServers = 3    // of resolv.conf, as in the C library
	dnsMaxChain   = 8    // CNAMEs followed inside one answer
	dnsMaxStrays  = 64   // datagrams that are no answer to what was asked, before a server counts as dead
	resolvConf    = "/etc/resolv.conf"
	resolvEvery   = 5 * time.Second
	dnsNoSOA      = time.Minute // how long "there is none" is believed that does not say how long (RFC 2308, 5)
)

// resolver is a stub resolver for address records. The system's tells no TTLs, and waits longer than traffic can.
type resolver struct {
	fixed   []netip.AddrPort // servers of the settings; nil: those of resolv.conf
	path    string
	timeout time.Duration // for a look-up, all servers and rounds together
	log     *slog.Logger

	mu      sync.Mutex
	servers []netip.AddrPort // of the file
	state   fileState
	looked  time.Time
}

// dnsAnswer is what DNS says about a name: its addresses, none where there are none, and for how long that holds.
type dnsAnswer struct {
	addrs []netip.Addr
	ttl   time.Duration
}

// newResolver returns a resolver that asks the servers, or where there are none those of /etc/resolv.conf.
func newResolver(servers []string, timeout time.Duration, log *slog.Logger) (*resolver, error) {
	r := &resolver{path: resolvConf, timeout: timeout, log: log}
	for _, s := range servers {
		a, err := parseServer(s)
		if err != nil {
			return nil, err
		}
		r.fixed = append(r.fixed, a)
	}
	return r, nil
}

// parseServer reads the address of a DNS server, with or without a port.
func parseServer(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, dnsPort), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		return a, fmt.Errorf("%q is not the address of a DNS server: write \"192.0.2.53\" or \"[2001:db8::53]:5353\"", s)
	}
	return a, nil
}

// list returns the servers to ask. The file is read again when it has changed.
func (r *resolver) list() []netip.AddrPort {
	if r.fixed != nil {
		return r.fixed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.looked.IsZero() && time.Since(r.looked) < resolvEvery {
		return r.servers
	}
	r.looked = time.Now()
	st, err := os.Stat(r.path)
	if err == nil && stateOf(st) == r.state {
		return r.servers
	}
	if err == nil {
		r.state = stateOf(st)
		var b []byte
		if b, err = os.ReadFile(r.path); err == nil {
			r.servers = parseResolvConf(string(b))
		}
	}
	if err != nil {
		r.log.Error("the list of DNS servers cannot be read; it stays as it was", "file", r.path, "error", err)
	}
	if len(r.servers) == 0 { // what the C library does
		return []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort)}
	}
	return r.servers
}

// parseResolvConf returns the name servers of a resolv.conf(5).
func parseResolvConf(s string) []netip.AddrPort {
	var out []netip.AddrPort
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(out) == dnsMaxServers {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, dnsPort))
		}
	}
	return out
}

// lookup asks for the IPv4 addresses of name. The error says that no server gave an answer that can be used in time.
func (r *resolver) lookup(ctx context.Context, name string) (dnsAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	q, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return dnsAnswer{}, fmt.Errorf("%q is too long for DNS: %w", name, err)
	}
	servers := r.list()
	each := r.timeout / time.Duration(dnsRounds*min(len(servers), 2)) // the last ones wait for the first to fail at once
	var errs []error
	for range dnsRounds {
		for _, s := range servers {
			if ctx.Err() != nil {
				return dnsAnswer{}, errors.Join(append(errs, ctx.Err())...)
			}
			a, err := ask(ctx, s, q, each)
			if err == nil {
				return a, nil
			}
			errs = append(errs, fmt.Errorf("DNS server %s: %w", s, err))
		}
	}
	return dnsAnswer{}, errors.Join(errs...)
}

// ask puts the question to one server: by UDP, and by TCP where the answer does not fit (RFC 7766).
func ask(ctx context.Context, server netip.AddrPort, name dnsmessage.Name, timeout time.Duration) (dnsAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	query, id, err := newQuery(name)
	if err != nil {
		return dnsAnswer{}, err
	}
	a, truncated, err := exchange(ctx, "udp", server, query, id, name)
	if truncated {
		a, truncated, err = exchange(ctx, "tcp", server, query, id, name)
		if truncated {
			return dnsAnswer{}, errors.New("its answer is cut off over TCP, too")
		}
	}
	return a, err
}

// newQuery makes a query with an id that cannot be guessed.
func newQuery(name dnsmessage.Name) (query []byte, id uint16, err error) {
	var b [2]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, 0, err
	}
	id = binary.BigEndian.Uint16(b[:])
	var edns dnsmessage.ResourceHeader
	if err := edns.SetEDNS0(dnsUDPSize, dnsmessage.RCodeSuccess, false); err != nil {
		return nil, 0, err
	}
	m := dnsmessage.Message{
		Header:      dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions:   []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Additionals: []dnsmessage.Resource{{Header: edns, Body: &dnsmessage.OPTResource{}}},
	}
	query, err = m.Pack()
	return query, id, err
}

// exchange sends a query from a port of its own and waits for the answer to it. What else arrives there is passed over.
func exchange(ctx context.Context, network string, server netip.AddrPort, query []byte, id uint16, name dnsmessage.Name) (a dnsAnswer, truncated bool, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, server.String())
	if err != nil {
		return a, false, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return a, false, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	read := readDatagram
	if network == "tcp" {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
		read = readFramed
	}
	if _, err := conn.Write(query); err != nil {
		return a, false, err
	}
	for range dnsMaxStrays {
		b, err := read(conn)
		if err != nil {
			return a, false, err
		}
		a, truncated, mine, err := readAnswer(b, id, name)
		if mine {
			return a, truncated, err
		}
	}
	return a, false, errors.New("it sends what was not asked for")
}

func readDatagram(c net.Conn) ([]byte, error) {
	b := make([]byte, 4096)
	n, err := c.Read(b)
	return b[:n], err
}

// readFramed reads a message with its length before it (RFC 1035, 4.2.2).
func readFramed(c net.Conn) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(n[:]))
	_, err := io.ReadFull(c, b)
	return b, err
}

// readAnswer reads an answer. mine is false where it is none to the question; then the rest means nothing. The error says
// that the server could not or would not tell.
func readAnswer(b []byte, id uint16, name dnsmessage.Name) (a dnsAnswer, truncated, mine bool, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.ID != id || !h.Response || h.OpCode != 0 {
		return a, false, false, nil //nolint:nilerr // it is not the answer; that may still come
	}
	// An error may come without the question, as a server that cannot read it cannot repeat it.
	q, err := p.Question()
	if err == nil && (q.Type != dnsmessage.TypeA || q.Class != dnsmessage.ClassINET || !strings.EqualFold(q.Name.String(), name.String())) ||
		err != nil && (h.RCode == dnsmessage.RCodeSuccess || h.RCode == dnsmessage.RCodeNameError) {
		return a, false, false, nil
	}
	switch {
	case h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError:
		return a, false, true, fmt.Errorf("it answered %v", h.RCode)
	case h.Truncated:
		return a, true, true, nil
	}
	if err := p.SkipAllQuestions(); err != nil {
		return a, false, true, err
	}
	if a, err = addresses(&p, name); err != nil || len(a.addrs) > 0 {
		return a, false, true, err
	}
	a.ttl, err = negativeTTL(&p)
	return a, false, true, err
}

// addresses reads the answer section: the A records of name, and of what it is an alias of, with the smallest TTL on the
// way.
func addresses(p *dnsmessage.Parser, name dnsmessage.Name) (dnsAnswer, error) {
	records, err := p.AllAnswers()
	if err != nil {
		return dnsAnswer{}, err
	}
	a := dnsAnswer{ttl: time.Duration(1<<31-1) * time.Second}
	owner := name.String()
	for range dnsMaxChain {
		next := ""
		for _, r := range records {
			if r.Header.Class != dnsmessage.ClassINET || !strings.EqualFold(r.Header.Name.String(), owner) {
				continue
			}
			switch body := r.Body.(type) {
			case *dnsmessage.AResource:
				a.addrs = append(a.addrs, netip.AddrFrom4(body.A))
			case *dnsmessage.CNAMEResource:
				next = body.CNAME.String()
			default:
				continue
			}
			a.ttl = min(a.ttl, seconds(r.Header.TTL))
		}
		if len(a.addrs) > 0 || next == "" {
			break
		}
		owner = next
	}
	return a, nil
}

// negativeTTL returns how long it may be believed that there is no such record (RFC 2308, 5): as long as the SOA record in
// the authority section says.
func negativeTTL(p *dnsmessage.Parser) (time.Duration, error) {
	records, err := p.AllAuthorities()
	if err != nil {
		return 0, err
	}
	for _, r := range records {
		if soa, ok := r.Body.(*dnsmessage.SOAResource); ok {
			return min(seconds(r.Header.TTL), seconds(soa.MinTTL)), nil
		}
	}
	return dnsNoSOA, nil
}

// seconds is a TTL; one with the highest bit set counts as zero (RFC 2181, 8).
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}
