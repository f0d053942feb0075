package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// Table is the name of the nftables table (family inet) that all rules are in.
const Table = "lazaret"

// Mark and Route are the packet mark and the number of the routing table that TPROXY needs.
const (
	Mark  = 0x1a2a
	Route = 6698
)

// Listeners say where traffic is led: the addresses that the gateway listens on, host:port.
type Listeners struct {
	Web  []string // [web] transparent
	POP3 []string // [pop3] listen
	Mark uint32   // [egress] mark; 0: none
}

// Plan is what is to be in force.
type Plan struct {
	Interfaces []string
	Services   []Service
	Clients    [2][]netip.Prefix // served; both empty: all. By family: 0 IPv4, 1 IPv6
	Exclude    [2][]netip.Prefix // destinations left alone
	Spared     [2][]netip.Prefix // clients left alone
	Narrow     bool              // only Clients are served
	RejectQUIC bool
	TProxy     bool
	Local      bool
	UID        uint32 // the gateway's own user; only where HasUID
	HasUID     bool
	OwnMark    uint32
	Warnings   []string // what an administrator should know
}

// Service is a kind of traffic, and the port that it is led to.
type Service struct {
	Name  string
	Ports []uint16
	To    [2]Destination // by family
}

// Destination is where one family's traffic is led.
type Destination struct {
	Port uint16     // 0: nowhere: the traffic is rejected, because nobody would scan it
	Addr netip.Addr // not valid: this machine, whatever its address
}

// private is left alone by exclude_private.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// New turns settings into a plan. The error says which setting is missing, or does not fit the others.
func New(c Config, l Listeners) (*Plan, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if len(c.Interfaces) == 0 && !c.Local {
		return nil, errors.New("[redirect] interfaces: is empty: name the interfaces that clients are behind, such as [\"eth1\"]")
	}
	p := &Plan{
		Interfaces: c.Interfaces, Narrow: len(c.Networks) > 0, RejectQUIC: c.RejectQUIC, TProxy: c.Method == MethodTProxy,
		Local: c.Local, OwnMark: l.Mark,
	}
	p.Clients = byFamily(c.Networks)
	p.Spared = byFamily(c.ExcludeClients)
	exclude := slices.Clone(c.Exclude)
	if c.ExcludePrivate {
		exclude = append(exclude, private...)
	}
	p.Exclude = byFamily(exclude)
	for _, s := range []struct {
		name, key string
		ports     []uint16
		at        []string
	}{
		{"web", "[web] transparent", c.WebPorts, l.Web},
		{"pop3", "[pop3] listen", c.POP3Ports, l.POP3},
	} {
		if len(s.ports) == 0 {
			continue
		}
		if len(s.at) == 0 {
			p.warn("%s names no address: %s traffic is not taken over", s.key, s.name)
			continue
		}
		service, err := p.service(s.name, s.key, s.ports, s.at)
		if err != nil {
			return nil, err
		}
		p.Services = append(p.Services, service)
	}
	if len(p.Services) == 0 {
		return nil, errors.New("nothing listens for redirected traffic: set [web] transparent, such as [\":3129\"]")
	}
	return p, p.known(c)
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// known finds out what the gateway's own traffic is told by.
func (p *Plan) known(c Config) error {
	if !c.Local {
		return nil
	}
	if c.User == "" && p.OwnMark == 0 {
		return errors.New("[redirect] local: the gateway's own traffic would come back to it: set user to whom it runs as, or [egress] mark to a number")
	}
	if c.User == "" {
		return nil
	}
	u, err := user.Lookup(c.User)
	if err != nil {
		if u, err = user.LookupId(c.User); err != nil {
			return fmt.Errorf("[redirect] user: there is no user %q", c.User)
		}
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("[redirect] user: %q has the number %q", c.User, u.Uid)
	}
	p.UID, p.HasUID = uint32(id), true
	return nil
}

// service finds a listener for each family.
func (p *Plan) service(name, key string, ports []uint16, at []string) (Service, error) {
	s := Service{Name: name, Ports: slices.Clone(ports)}
	for _, a := range at {
		if strings.HasPrefix(a, "systemd:") {
			return s, fmt.Errorf("%s: the port of %q is systemd's to know: name the address itself for redirected traffic", key, a)
		}
		i := strings.LastIndexByte(a, ':')
		port, err := strconv.ParseUint(a[i+1:], 10, 16)
		if i < 0 || err != nil || port == 0 {
			return s, fmt.Errorf("%s: %q has no fixed port, which redirected traffic needs", key, a)
		}
		host := strings.Trim(a[:i], "[]")
		if host == "" {
			p.lead(&s, 0, Destination{Port: uint16(port)})
			p.lead(&s, 1, Destination{Port: uint16(port)})
			continue
		}
		addr, err := netip.ParseAddr(host)
		switch {
		case host == "localhost" || err == nil && addr.IsLoopback():
			if !p.Local || len(p.Interfaces) > 0 {
				return s, fmt.Errorf("%s: %q is reached by this machine alone: listen on %q, or on the address that clients reach", key, a, fmt.Sprintf(":%d", port))
			}
			p.lead(&s, family(addr), Destination{Port: uint16(port)})
		case err != nil:
			return s, fmt.Errorf("%s: %q is a name: redirected traffic needs an address", key, a)
		case addr.IsUnspecified():
			p.lead(&s, family(addr), Destination{Port: uint16(port)})
			if addr.Is6() { // [::] takes IPv4 as well
				p.lead(&s, 0, Destination{Port: uint16(port)})
			}
		default:
			p.lead(&s, family(addr), Destination{Port: uint16(port), Addr: addr.Unmap()})
		}
	}
	for f, word := range []string{"IPv4", "IPv6"} {
		if s.To[f].Port == 0 {
			p.warn("%s has no address for %s: such traffic to %s ports is rejected, as nobody would scan it", key, word, name)
		}
	}
	return s, nil
}

// lead takes the first address of a family.
func (p *Plan) lead(s *Service, f int, d Destination) {
	if s.To[f].Port == 0 {
		s.To[f] = d
	}
}

func family(a netip.Addr) int {
	if a.IsValid() && a.Unmap().Is6() {
		return 1
	}
	return 0
}

// byFamily sorts prefixes, without those that others contain: interval sets take no overlaps.
func byFamily(in []netip.Prefix) (out [2][]netip.Prefix) {
	all := slices.Clone(in)
	for i := range all {
		all[i] = all[i].Masked()
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if a.Bits() != b.Bits() {
			return a.Bits() - b.Bits()
		}
		return a.Addr().Compare(b.Addr())
	})
	for _, p := range all {
		f := family(p.Addr())
		if !slices.ContainsFunc(out[f], func(o netip.Prefix) bool { return o.Overlaps(p) }) {
			out[f] = append(out[f], p)
		}
	}
	for f := range out {
		slices.SortFunc(out[f], func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	}
	return out
}

// ports lists the TCP ports of all services, in order.
func (p *Plan) ports() []uint16 {
	var out []uint16
	for _, s := range p.Services {
		out = append(out, s.Ports...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
