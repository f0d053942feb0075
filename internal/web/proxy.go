package web

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"lazaret/internal/notice"
)

// selfName is the name under which the gateway answers requests that come through it.
const selfName = "lazaret.internal"

// serveProxy serves one request to the explicit proxy (RFC 9112, 3.2.2 and 3.2.3).
func (s *Server) serveProxy(w http.ResponseWriter, r *http.Request) {
	x := s.newExchange(w, r)
	defer x.begin()()
	x.facts.Host = r.Host
	switch {
	case !x.set.allows(x.facts.Client): // any more: it was when it connected
		w.Header().Set("Connection", "close")
		x.refuse(notice.ForbiddenClient, "this address may not use the proxy", forbidden(x.facts.Client))
	case looped(r.Header, s.pseudonym):
		x.refuse(notice.Loop, "the request had been here before", "Via: "+strings.Join(r.Header["Via"], ", "))
	case r.Method == http.MethodConnect:
		x.connect()
	case r.URL.Host != "":
		x.absolute()
	default:
		x.toSelf()
	}
}

// allows says whether a client is one of allow_clients.
func (s *settings) allows(addr netip.Addr) bool {
	for _, p := range s.AllowClients {
		if p.Contains(addr) || (p.Addr().Is4In6() && p.Contains(netip.AddrFrom16(addr.As16()))) {
			return true
		}
	}
	return false
}

// forbidden says why a client is refused, for the log.
func forbidden(addr netip.Addr) string { return fmt.Sprintf("%v is in none of allow_clients", addr) }

// absolute serves a request in absolute form.
func (x *exchange) absolute() {
	scheme := strings.ToLower(x.r.URL.Scheme)
	x.facts.URL = strings.ToValidUTF8(scheme+"://"+x.r.URL.Host, "")
	if scheme != "http" && scheme != "https" {
		x.refuse(notice.NotSupported, fmt.Sprintf("%q URLs cannot be fetched here: http and https can", scheme), "")
		return
	}
	to, err := parseAuthority(x.r.URL.Host, defaultPort(scheme))
	if err != nil {
		x.refuse(notice.BadRequest, err.Error(), "")
		return
	}
	x.aim(scheme, to, rawTarget(x.r))
	if x.isSelf(to) {
		x.self()
		return
	}
	if !x.authenticate() {
		return
	}
	if scheme == "http" && badPort(to.port) && !x.set.ConnectPorts.Contain(to.port) {
		x.refuse(notice.ForbiddenTarget, fmt.Sprintf("port %d is not one for HTTP", to.port), "the port is on the Fetch standard's list of blocked ports")
		return
	}
	if scheme == "https" && !x.portAllowed() {
		return
	}
	if x.maxForwards() {
		return
	}
	x.origin = x.c.origin(x.s, scheme, to.String(), x.dialOrigin(scheme, to))
	defer x.c.leave(x.origin)
	x.forward()
}

// portAllowed says whether connect_ports has the origin's port, and refuses the request where it has not.
func (x *exchange) portAllowed() bool {
	if x.set.ConnectPorts.Contain(x.to.port) {
		return true
	}
	x.refuse(notice.ForbiddenTarget, fmt.Sprintf("port %d is not one that the proxy connects to", x.to.port), "the port is not in connect_ports")
	return false
}

// isSelf says whether a name stands for the gateway itself.
func (x *exchange) isSelf(to authority) bool {
	if to.host == selfName {
		return true
	}
	if to.port != x.c.local.Port() {
		return false
	}
	if to.host == "localhost" {
		return x.c.local.Addr().IsLoopback()
	}
	addr, err := netip.ParseAddr(to.host)
	return err == nil && addr == x.c.local.Addr()
}

// toSelf serves a request in origin form, "GET / HTTP/1.1": it is for the gateway itself or a mistake.
func (x *exchange) toSelf() {
	if x.r.RequestURI == "*" && x.r.Method == http.MethodOptions {
		x.w.Header().Set("Allow", "CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE")
		x.w.Header().Set("Content-Length", "0")
		x.sendHead(http.StatusOK)
		return
	}
	to, err := parseAuthority(x.r.Host, 80)
	if err != nil || (!x.isSelf(to) && to.host != x.c.local.Addr().String()) {
		x.refuse(notice.BadRequest, "the request is not one for a proxy: its target has no scheme and host",
			fmt.Sprintf("origin-form request for host %q", x.r.Host))
		return
	}
	x.aim("http", to, rawTarget(x.r))
	x.self()
}

// self answers a request that is for the gateway.
func (x *exchange) self() {
	x.head = true // whatever happens from here on, the answer is not ours to begin again
	x.soon()
	if h := x.s.opt.Self; h != nil {
		h.ServeHTTP(x.w, x.r)
		return
	}
	h := x.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		x.w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	fmt.Fprintf(x.w, //nolint:gosec // plain text, with nothing of the client's in it
		"This is Lazaret, a virus-scanning proxy.\nSet %v as the HTTP and HTTPS proxy of your programs.\n", x.c.local)
}

// maxForwards obeys Max-Forwards of TRACE and OPTIONS (RFC 9110, 7.6.2), and says whether it has answered the request.
func (x *exchange) maxForwards() bool {
	if x.r.Method != http.MethodTrace && x.r.Method != http.MethodOptions {
		return false
	}
	n, ok := countdown(x.r.Header)
	switch {
	case !ok:
		return false
	case n >= 0:
		x.r.Header.Set("Max-Forwards", fmt.Sprint(n))
		return false
	case x.r.Method == http.MethodOptions:
		x.toSelfOptions()
	default:
		x.echo()
	}
	return true
}
