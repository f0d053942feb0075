package admin

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"lazaret/internal/notice"
)

// internalName is the name under which the console is reached through the proxy.
const internalName = "lazaret.internal"

// ownNames returns the names that the console answers to. "wpad", alone and in the machine's own domain, is what browsers ask
// for by themselves (Web Proxy Auto-Discovery).
func ownNames(more []string) map[string]bool {
	names := map[string]bool{"localhost": true, internalName: true, "wpad": true}
	if h, err := os.Hostname(); err == nil {
		h = canonical(h)
		short, domain, _ := strings.Cut(h, ".")
		for _, n := range []string{h, short, "wpad." + domain} {
			if hostName(n) {
				names[n] = true
			}
		}
	}
	for _, h := range more {
		names[canonical(h)] = true
	}
	return names
}

// canonical returns a host name in lower case, without a final dot.
func canonical(h string) string { return strings.TrimSuffix(strings.ToLower(h), ".") }

// hostName says whether s is a host name in canonical form (RFC 1123 section 2.1, and underscores). Nothing else is ever
// written into /proxy.pac.
func hostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" ||
			label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// asked returns the host that a request was made to, from its Host header: an IP address without brackets, or a name in
// canonical form. ok is false where it is none that the console answers to. It is empty where the client sent none, which
// HTTP/1.0 allows and no browser does.
//
// This is what keeps a web site from reading the console by DNS rebinding: such a request has the site's name here.
func (s *Server) asked(r *http.Request) (host string, ok bool) {
	host = r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.WithZone("").Unmap().String(), true
	}
	host = canonical(host)
	return host, host == "" || s.hosts[host]
}

// guard lets through what may be asked at all, and sets the headers of every answer.
func (s *Server) guard(next http.Handler) http.Handler {
	next = s.recovered(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		if host, ok := s.asked(r); !ok {
			answer(w, r, http.StatusMisdirectedRequest, plain, fmt.Appendf(nil,
				"The console does not answer to the name %q. Ask by IP address, or add the name to [admin] allow_hosts.\n", notice.Clean(host, 80)))
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			answer(w, r, http.StatusMethodNotAllowed, plain, []byte("Only GET and HEAD are answered.\n"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// insider says whether the client may see the state.
func (s *Server) insider(r *http.Request) bool {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	for _, p := range s.cfg.StatusClients {
		if p.Contains(a.Addr().Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// private serves h to insiders only.
func (s *Server) private(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.insider(r) {
			answer(w, r, http.StatusForbidden, plain, []byte("Not for your address: see [admin] status_clients.\n"))
			return
		}
		h.ServeHTTP(w, r)
	})
}
