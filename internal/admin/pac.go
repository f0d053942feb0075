package admin

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

//go:embed templates/proxy.pac
var pacText string

var pacTemplate = template.Must(template.New("proxy.pac").Parse(pacText))

// direct is what goes around the proxy: a host, a domain, or a network.
type direct struct {
	name string // "host", or ".domain" for itself and all below, or "*.domain" for what is below; empty: net
	net  netip.Prefix
}

func parseDirect(s string) (direct, bool) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return direct{net: netip.PrefixFrom(a, a.BitLen())}, true
	}
	if p, err := netip.ParsePrefix(s); err == nil && !p.Addr().Is4In6() {
		return direct{net: p.Masked()}, true
	}
	s = canonical(s)
	name := s
	if below, ok := strings.CutPrefix(s, "*."); ok {
		name = below
	} else if domain, ok := strings.CutPrefix(s, "."); ok {
		name = domain
	}
	return direct{name: s}, hostName(name)
}

// localNets are the addresses that are never reached through the gateway: this machine, link-local, private and shared ones
// (RFC 6890, RFC 4193).
var localNets = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
	"::1/128", "fc00::/7", "fe80::/10",
}

// maxDirect bounds the size of the file, which browsers evaluate for each request.
const maxDirect = 1000

// pac serves a proxy auto-configuration file. It names no "DIRECT" behind the proxy: where the gateway cannot be reached,
// nothing goes around it.
func (s *Server) pac(w http.ResponseWriter, r *http.Request) {
	proxies, reachable := s.proxies(r)
	if len(proxies) == 0 {
		answer(w, r, http.StatusServiceUnavailable, plain, []byte("There is no explicit proxy: see [web] listen.\n"))
		return
	}
	entries := append(slices.Clone(localNets), s.cfg.Direct...)
	if s.src.Direct != nil {
		entries = append(entries, s.src.Direct()...)
	}
	names, nets := []string{}, [][]int{}
	for _, e := range entries[:min(len(entries), maxDirect)] {
		switch d, ok := parseDirect(e); {
		case !ok:
		case d.name != "":
			names = append(names, d.name)
		default:
			nets = append(nets, words(d.net))
		}
	}
	var b bytes.Buffer
	err := pacTemplate.Execute(&b, map[string]any{
		"Proxies": script("PROXY " + strings.Join(proxies, "; PROXY ")), "Names": script(names), "Nets": script(nets),
		"Unreachable": !reachable, "Internal": script(internalName),
	})
	if err != nil {
		panic(err) // a template of fixed fields, written to memory
	}
	answer(w, r, http.StatusOK, "application/x-ns-proxy-autoconfig", b.Bytes())
}

// script writes v as a JavaScript literal. JSON is one, with <, >, &, U+2028 and U+2029 escaped.
func script(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers can always be written
	}
	return string(b)
}

// words returns a network as the number of its bits followed by its address in words of 16 bits.
func words(p netip.Prefix) []int {
	out := []int{p.Bits()}
	b := p.Addr().AsSlice()
	for i := 0; i < len(b); i += 2 {
		out = append(out, int(b[i])<<8|int(b[i+1]))
	}
	return out
}

// maxProxies bounds how many proxies a browser is given to try.
const maxProxies = 4

// proxies returns the proxy's addresses as the client of this request reaches them, host:port each: an address that the
// proxy listens on as it is; where it listens on all, the one that the client reached the console under. reachable is false
// where the proxy listens on the loopback address alone and the client is another machine: it is then named all the same, so
// that a browser shows an error instead of going around it.
func (s *Server) proxies(r *http.Request) (proxies []string, reachable bool) {
	if s.src.ProxyAddrs == nil {
		return nil, false
	}
	here := s.reachedAs(r)
	client, _ := netip.ParseAddrPort(r.RemoteAddr)
	local := client.Addr().Unmap().IsLoopback()
	var first, others, loopback []string
	for _, addr := range s.src.ProxyAddrs() {
		host, port, err := net.SplitHostPort(addr)
		if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 {
			continue
		}
		ip, err := netip.ParseAddr(host)
		ip = ip.Unmap().WithZone("")
		switch {
		case host == "" || err == nil && ip.IsUnspecified():
			first = append(first, net.JoinHostPort(here, port))
		case err == nil && ip.IsLoopback() || canonical(host) == "localhost":
			at := "127.0.0.1"
			if !local {
				at = here
			} else if err == nil {
				at = ip.String()
			}
			loopback = append(loopback, net.JoinHostPort(at, port))
		case err == nil && ip.String() == here:
			first = append(first, net.JoinHostPort(ip.String(), port))
		case err == nil:
			others = append(others, net.JoinHostPort(ip.String(), port))
		case hostName(canonical(host)):
			others = append(others, net.JoinHostPort(canonical(host), port))
		}
	}
	all := slices.Concat(first, others)
	reachable = len(all) > 0 || local
	if len(all) == 0 || local {
		all = append(all, loopback...)
	}
	for _, p := range all {
		if !slices.Contains(proxies, p) && len(proxies) < maxProxies {
			proxies = append(proxies, p)
		}
	}
	return proxies, reachable
}

// reachedAs returns a host under which the client reaches this machine: the one it asked for, where that is not a name that
// only the proxy knows; else the address that it connected to.
func (s *Server) reachedAs(r *http.Request) string {
	host, ok := s.asked(r)
	if ok && host != "" && host != internalName {
		return host
	}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if ap, err := netip.ParseAddrPort(a.String()); err == nil && !ap.Addr().IsUnspecified() {
			return ap.Addr().Unmap().WithZone("").String()
		}
	}
	return "127.0.0.1"
}
