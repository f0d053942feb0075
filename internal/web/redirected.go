package web

import (
	"net"
	"net/netip"

	"lazaret/internal/intercept"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
)

// redirected is a connection that knows where its client wanted to go; *listen.Conn of a transparent listener is one.
type redirected interface {
	net.Conn
	// Original is not valid where the connection was made to the gateway itself.
	Original() netip.AddrPort
}

// ServeTransparent takes redirected connections from l until Shutdown, and then returns nil. What they speak, HTTP with or
// without TLS, is told from what arrives. A connection that does not say where it wanted to go is closed.
func (s *Server) ServeTransparent(l net.Listener) error {
	return s.accept(l, "transparent proxy", func(nc net.Conn) { go s.takeRedirected(nc) })
}

// takeRedirected serves one redirected connection.
func (s *Server) takeRedirected(nc net.Conn) {
	client := addrPort(nc.RemoteAddr())
	f := policy.Facts{Protocol: "tcp", Direction: policy.Download, Client: client.Addr()}
	defer s.guard(nc, f)
	var to netip.AddrPort
	if r, ok := nc.(redirected); ok {
		to = r.Original()
	}
	if !s.settings.Load().allows(client.Addr()) {
		s.opt.Gate.Refuse(f, notice.ForbiddenClient, "", forbidden(client.Addr()))
		_ = nc.Close() // it has no place that others could want
		return
	}
	leave, ok := s.limits.enter(client.Addr())
	if !ok {
		s.opt.Gate.Refuse(f, notice.Overload, "", "max_connections or max_connections_per_client is reached")
		_ = nc.Close() // there is no place for it
		return
	}
	placed := &placedConn{Conn: nc, leave: leave}
	if !to.IsValid() {
		s.opt.Gate.Refuse(f, notice.ForbiddenTarget, "", "the connection was not redirected: it has no original destination")
		_ = placed.Close() // it was refused, and recorded
		return
	}
	f.Host = to.Addr().String()
	s.open(placed, intercept.Target{Port: to.Port(), Addr: to, Client: client}, f)
}
