package egress

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// notGlobal lists what is not reachable on the Internet, by the IANA special-purpose address registries (RFC 6890) and
// the multicast ranges. The first match names the reason.
var notGlobal = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local (cloud metadata lives there)"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private (RFC 1918)"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private (RFC 1918)"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private (RFC 1918)"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by carriers (RFC 6598)"},
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified (\"this network\")"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved for protocols (RFC 6890)"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation (RFC 5737)"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation (RFC 5737)"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation (RFC 5737)"},
	{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks (RFC 2544)"},
	{netip.MustParsePrefix("192.88.99.0/24"), "an abandoned 6to4 relay (RFC 7526)"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fc00::/7"), "unique local (RFC 4193)"},
	{netip.MustParsePrefix("fec0::/10"), "site-local (RFC 3879)"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("2001::/32"), "Teredo (RFC 4380)"},
	{netip.MustParsePrefix("2001:2::/48"), "for benchmarks (RFC 5180)"},
	{netip.MustParsePrefix("2001:10::/28"), "ORCHID (RFC 4843)"},
	{netip.MustParsePrefix("2001:20::/28"), "ORCHIDv2 (RFC 7343)"},
	{netip.MustParsePrefix("2001:db8::/32"), "for documentation (RFC 3849)"},
	{netip.MustParsePrefix("3fff::/20"), "for documentation (RFC 9637)"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing (RFC 9602)"},
	{netip.MustParsePrefix("100::/64"), "discard-only (RFC 6666)"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local-use translation (RFC 8215)"},
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour = netip.MustParsePrefix("2002::/16")
	v4Compat  = netip.MustParsePrefix("::/96")
)

// embedded returns the IPv4 address inside an IPv6 address of the formats that lead to one: mapped (RFC 4291, 2.5.5.2),
// compatible (2.5.5.1), NAT64 (RFC 6052) and 6to4 (RFC 3056).
func embedded(a netip.Addr) (netip.Addr, bool) {
	if a.Is4In6() {
		return a.Unmap(), true
	}
	if !a.Is6() {
		return netip.Addr{}, false
	}
	b := a.As16()
	switch {
	case nat64.Contains(a), v4Compat.Contains(a) && binary.BigEndian.Uint32(b[12:]) > 1:
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

// Private says whether an address is one that the Internet does not reach (loopback, link-local, private, multicast and
// the like, or an IPv6 form that leads to such an IPv4 address), and what sort of address that is.
func Private(a netip.Addr) (what string, private bool) {
	a = a.WithZone("")
	if !a.IsValid() {
		return "no address", true
	}
	if v4, ok := embedded(a); ok {
		if what, private = Private(v4); private {
			return what + ", inside an IPv6 address", true
		}
		return "", false
	}
	for _, r := range notGlobal {
		if r.prefix.Contains(a) {
			return r.what, true
		}
	}
	return "", false
}

// forbiddenError is the refusal of one address.
type forbiddenError struct {
	addr netip.AddrPort
	why  string
}

func (e *forbiddenError) Error() string {
	return fmt.Sprintf("%v is not connected to: %s", e.addr, e.why)
}

// judgeLoop returns an error for the addresses of the gateway's own listeners. It holds even where private destinations
// are allowed: a gateway that talks to itself would go round until its limits.
func (d *Dialer) judgeLoop(ap netip.AddrPort) error {
	if d.opt.Own == nil {
		return nil
	}
	for _, own := range d.opt.Own() {
		if sameListener(own, ap) {
			return &forbiddenError{ap, "it is a listener of this gateway (a loop)"}
		}
	}
	return nil
}

// judge returns an error for an address that must not be dialled.
func (d *Dialer) judge(ap netip.AddrPort) error {
	if err := d.judgeLoop(ap); err != nil {
		return err
	}
	why := d.strict
	if why == "" {
		if d.opt.AllowPrivate {
			return nil
		}
		why = "allow_private_destinations is off"
	}
	if what, private := Private(ap.Addr()); private {
		return &forbiddenError{ap, "the address is " + what + "; " + why}
	}
	return nil
}

// sameListener says whether dialling ap would reach a listener bound to own. A listener on the unspecified address has
// every address of this machine, and dialling the unspecified address reaches this machine.
func sameListener(own, ap netip.AddrPort) bool {
	if own.Port() != ap.Port() {
		return false
	}
	o, a := own.Addr().Unmap().WithZone(""), ap.Addr().Unmap().WithZone("")
	if v4, ok := embedded(a); ok {
		a = v4
	}
	switch {
	case o == a:
		return true
	case o.IsUnspecified():
		return a.IsLoopback() || a.IsUnspecified() || isLocal(a)
	case a.IsUnspecified():
		return o.IsLoopback()
	}
	return false
}

// isLocal says whether a is an address of this machine. It is asked only for the ports that the gateway listens on.
func isLocal(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true // cannot tell: a refused connection does less harm than a loop
	}
	for _, ia := range addrs {
		if n, ok := ia.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a {
				return true
			}
		}
	}
	return false
}
