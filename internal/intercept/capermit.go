package intercept

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Permit keeps a CA to some names, by name constraints (RFC 5280, 4.2.1.10): clients take no certificate of it for others,
// whoever has its key. The zero value permits everything.
type Permit struct {
	Domains  []string       // each with all below it
	Networks []netip.Prefix // of addresses that are visited without a name
}

func (p Permit) empty() bool { return len(p.Domains) == 0 && len(p.Networks) == 0 }

// constrain writes the constraints into a template. A kind of name that is not mentioned would be free: so where there are
// only domains all addresses are excluded, and the other way round.
func (p Permit) constrain(tpl *x509.Certificate) error {
	if p.empty() {
		return nil
	}
	tpl.PermittedDNSDomainsCritical = true
	for _, d := range p.Domains {
		name, err := canonicalHost(d)
		if _, e := netip.ParseAddr(name); err != nil || name == "" || e == nil {
			return fmt.Errorf("%q is not a domain that a CA can be kept to: write it as in \"school.example\"; what is below it is meant, too", d)
		}
		tpl.PermittedDNSDomains = append(tpl.PermittedDNSDomains, name)
	}
	for _, n := range p.Networks {
		if !n.IsValid() {
			return errors.New("a network that a CA is to be kept to is not valid: write it as in \"192.0.2.0/24\"")
		}
		tpl.PermittedIPRanges = append(tpl.PermittedIPRanges, ipNet(n.Masked()))
	}
	if len(p.Domains) == 0 {
		// OpenSSL and Go take an empty name for all names, Chromium and Firefox too.
		tpl.ExcludedDNSDomains = []string{""}
	}
	if len(p.Networks) == 0 {
		tpl.ExcludedIPRanges = []*net.IPNet{ipNet(netip.MustParsePrefix("0.0.0.0/0")), ipNet(netip.MustParsePrefix("::/0"))}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// permitOf returns what a CA of ours was kept to.
func permitOf(c *x509.Certificate) Permit {
	p := Permit{Domains: c.PermittedDNSDomains}
	for _, n := range c.PermittedIPRanges {
		addr, ok := netip.AddrFromSlice(n.IP)
		if bits, _ := n.Mask.Size(); ok {
			p.Networks = append(p.Networks, netip.PrefixFrom(addr, bits))
		}
	}
	return p
}

// Permitted returns what the CA is kept to by its own certificate.
func (ca *CA) Permitted() Permit { return permitOf(ca.cert) }

// permits says whether clients will take a certificate of the CA for a name (a wildcard, too) or an address: by its own name
// constraints, and by those of its issuers in its file.
func (ca *CA) permits(name string) bool {
	for _, c := range append([]*x509.Certificate{ca.cert}, ca.issuers...) {
		if ip := net.ParseIP(name); ip != nil {
			if !permitsIP(c, ip) {
				return false
			}
		} else if !permitsName(c, name) {
			return false
		}
	}
	return true
}

func permitsIP(c *x509.Certificate, ip net.IP) bool {
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	in := func(list []*net.IPNet) bool {
		for _, n := range list {
			if len(n.IP) == len(ip) && n.Contains(ip) {
				return true
			}
		}
		return false
	}
	return !in(c.ExcludedIPRanges) && (len(c.PermittedIPRanges) == 0 || in(c.PermittedIPRanges))
}

func permitsName(c *x509.Certificate, name string) bool {
	name, wildcard := strings.CutPrefix(strings.ToLower(name), "*.")
	for _, d := range c.ExcludedDNSDomains {
		d = strings.ToLower(d)
		// A wildcard above an excluded name would cover that.
		if below(name, d) || (wildcard && below(strings.TrimPrefix(d, "."), name)) {
			return false
		}
	}
	if len(c.PermittedDNSDomains) == 0 {
		return true
	}
	for _, d := range c.PermittedDNSDomains {
		if below(name, strings.ToLower(d)) {
			return true
		}
	}
	return false
}

// below says whether a name is within a constraint: it itself and what is below it, for ".example" only what is below, and
// everything for the empty one.
func below(name, constraint string) bool {
	if constraint == "" {
		return true
	}
	if base, ok := strings.CutPrefix(constraint, "."); ok {
		return strings.HasSuffix(name, "."+base)
	}
	return name == constraint || strings.HasSuffix(name, "."+constraint)
}
