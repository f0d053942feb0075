package intercept

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gaissmai/bart"
)

// hostList is a set of hosts, domains and networks.
type hostList struct {
	exact  map[string]struct{} // "host"
	domain map[string]struct{} // ".domain": itself and all below
	below  map[string]struct{} // "*.domain": only what is below
	nets   *bart.Lite
}

// parseHosts reads the entries of a tunnel list. The error joins one for each entry that cannot be used.
func parseHosts(entries []string) (*hostList, error) {
	l := &hostList{exact: map[string]struct{}{}, domain: map[string]struct{}{}, below: map[string]struct{}{}, nets: &bart.Lite{}}
	var errs []error
	for _, e := range entries {
		if err := l.add(e); err != nil {
			errs = append(errs, err)
		}
	}
	return l, errors.Join(errs...)
}

func (l *hostList) add(entry string) error {
	if p, err := parseNet(entry); err == nil {
		l.nets.Insert(p)
		return nil
	}
	set, name := l.exact, entry
	if rest, ok := strings.CutPrefix(entry, "*."); ok {
		set, name = l.below, rest
	} else if rest, ok := strings.CutPrefix(entry, "."); ok {
		set, name = l.domain, rest
	}
	host, err := canonicalHost(name)
	if err != nil || host == "" {
		return fmt.Errorf("%q is not a host (\"bank.example\"), a domain (\".bank.example\", \"*.bank.example\"), an address or a network (\"192.0.2.0/24\")", entry)
	}
	set[host] = struct{}{}
	return nil
}

// matchName returns the entry that a canonical host name is under.
func (l *hostList) matchName(host string) (entry string, ok bool) {
	if _, ok := l.exact[host]; ok {
		return host, true
	}
	for at, rest := 0, host; rest != ""; at++ {
		if _, ok := l.domain[rest]; ok {
			return "." + rest, true
		}
		if _, ok := l.below[rest]; ok && at > 0 {
			return "*." + rest, true
		}
		_, rest, _ = strings.Cut(rest, ".")
	}
	return "", false
}

// matchAddr says whether an address is in one of the list's networks.
func (l *hostList) matchAddr(a netip.Addr) bool {
	return a.IsValid() && l.nets.Contains(a.Unmap().WithZone(""))
}

// parseNets reads networks and single addresses.
func parseNets(entries []string) (*bart.Lite, error) {
	t := &bart.Lite{}
	var errs []error
	for _, e := range entries {
		p, err := parseNet(e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t.Insert(p)
	}
	return t, errors.Join(errs...)
}

func parseNet(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network: write \"192.0.2.0/24\" or \"2001:db8::/32\"", s)
	}
	return p.Masked(), nil
}

var errHost = errors.New("not a host name or an IP address")

// canonicalHost returns a host as it is compared: lower case, without the trailing dot, an IP address in its one form
// without brackets. Names must be in ASCII (A-labels); the empty name stays empty. The error says that it is neither.
func canonicalHost(h string) (string, error) {
	if h == "" {
		return "", nil
	}
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(h, "["), "]")); err == nil {
		return a.Unmap().WithZone("").String(), nil
	}
	h = strings.ToLower(strings.TrimSuffix(h, "."))
	if h == "" || len(h) > 253 {
		return "", errHost
	}
	letters := false
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 {
			return "", errHost
		}
		for _, c := range []byte(label) {
			switch {
			case c >= 'a' && c <= 'z', c == '_', c == '-':
				letters = true
			case c >= '0' && c <= '9':
			default:
				return "", errHost
			}
		}
	}
	// "1.2.3", "2130706433" and the like are read as addresses by some resolvers, and as names by others.
	if last := h[strings.LastIndexByte(h, '.')+1:]; !letters || strings.Trim(last, "0123456789") == "" || isHex(last) {
		return "", errHost
	}
	return h, nil
}

// isHex says whether a label is a hexadecimal number, "0x7f", as the URL standard's IPv4 parser reads it.
func isHex(label string) bool {
	rest, ok := strings.CutPrefix(label, "0x")
	return ok && strings.Trim(rest, "0123456789abcdef") == ""
}

// parseFingerprint reads a SHA-256 in hexadecimal, with or without colons.
func parseFingerprint(s string) ([32]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(b) != 32 {
		return [32]byte{}, fmt.Errorf("fingerprint %q is not a SHA-256: 64 hexadecimal digits", s)
	}
	return [32]byte(b), nil
}
