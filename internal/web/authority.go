package web

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// authority is the host and port of a URI (RFC 3986, 3.2) in the one form that names are compared in: lower case, ASCII
// (IDNA), without the root's dot; IP addresses as netip writes them, without brackets.
type authority struct {
	host string
	port uint16
}

// String returns host:port, with brackets around an IPv6 address.
func (a authority) String() string { return net.JoinHostPort(a.host, strconv.Itoa(int(a.port))) }

// short returns the host, and the port where it is not the scheme's own.
func (a authority) short(scheme string) string {
	if a.port == defaultPort(scheme) {
		if strings.Contains(a.host, ":") {
			return "[" + a.host + "]"
		}
		return a.host
	}
	return a.String()
}

func defaultPort(scheme string) uint16 {
	if scheme == "https" {
		return 443
	}
	return 80
}

// parseAuthority reads "host", "host:port" or "[v6]:port". It returns an error for userinfo, for zones, for names that
// cannot be in DNS, and for numbers that some resolvers take for an IPv4 address and others do not.
func parseAuthority(s string, port uint16) (authority, error) {
	host, portText, err := splitAuthority(s)
	if err != nil {
		return authority{}, err
	}
	if portText != "" {
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || n == 0 {
			return authority{}, fmt.Errorf("%q is not a port", portText)
		}
		port = uint16(n)
	}
	host, err = normalHost(host)
	if err != nil {
		return authority{}, err
	}
	return authority{host: host, port: port}, nil
}

func splitAuthority(s string) (host, port string, err error) {
	if strings.ContainsAny(s, "@/?#\\ \t") {
		return "", "", fmt.Errorf("%q is not a host and a port", s)
	}
	if rest, ok := strings.CutPrefix(s, "["); ok {
		host, after, found := strings.Cut(rest, "]")
		addr, err := netip.ParseAddr(host)
		if !found || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", "", fmt.Errorf("%q is not an IPv6 address in brackets", s)
		}
		if after != "" && after[0] != ':' {
			return "", "", fmt.Errorf("%q is not a host and a port", s)
		}
		return host, strings.TrimPrefix(after, ":"), nil
	}
	host, port, _ = strings.Cut(s, ":")
	if strings.Contains(port, ":") {
		return "", "", fmt.Errorf("%q is not a host and a port; an IPv6 address goes in brackets", s)
	}
	return host, port, nil
}

var errNoHost = errors.New("there is no host")

// normalHost returns the form of host that names are compared in.
func normalHost(host string) (string, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().String(), nil
	}
	for i := range len(host) {
		if host[i] >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(host)
			if err != nil {
				return "", fmt.Errorf("%q is not a name: %w", host, err)
			}
			host = ascii
			break
		}
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "" {
		return "", errNoHost
	}
	if len(host) > 253 {
		return "", errors.New("the host's name is longer than DNS allows")
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("%q is not a name: a part of it is empty or too long", host)
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", fmt.Errorf("%q is not a name: %q cannot be in one", host, c)
			}
		}
		last = label
	}
	if numeric(last) {
		return "", fmt.Errorf("%q is neither a name nor an IPv4 address of four decimal numbers", host)
	}
	return host, nil
}

// numeric says whether the last part of a name is what inet_aton, and thereby a URL parser, reads as a number.
func numeric(label string) bool {
	digits, base := label, 10
	if rest, ok := strings.CutPrefix(label, "0x"); ok {
		digits, base = rest, 16
	}
	if digits == "" {
		return true
	}
	for i := range len(digits) {
		c := digits[i]
		if (c < '0' || c > '9') && (base != 16 || c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
