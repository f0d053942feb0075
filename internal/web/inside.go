package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"lazaret/internal/egress"
	"lazaret/internal/intercept"
	"lazaret/internal/notice"
)

// serveSession serves an opened connection. It returns at once: what is left of the goroutines and
// buffers that the connection began with is given back.
func (s *Server) serveSession(ctx context.Context, sess *intercept.Session, nc *cork) {
	c := &client{
		addr: sess.Target.Client, local: addrPort(nc.LocalAddr()), session: sess, scheme: "https",
		to: authority{host: sess.Target.Host, port: sess.Target.Port}, born: time.Now(),
	}
	switch {
	case sess.Mode == intercept.Plain:
		c.scheme, c.conn = "http", sess.Raw
		c.pinned = s.plainOrigin(sess, c)
	case sess.Fault == nil && sess.Origin != nil:
		c.conn = sess.Client
		c.pinned = s.sessionOrigin(sess, c)
		if err := c.pinned.start(ctx); err != nil {
			// The first request will try again, and say what is wrong.
			s.opt.Log.Debug("an origin connection was lost before its first request", "host", c.to.host, "error", err)
		}
	default:
		c.conn = sess.Client
		if sess.Fault == nil {
			sess.Fault = &intercept.Fault{Kind: intercept.FaultHandshake, Detail: "there is no connection to the server"}
		}
	}
	if sess.Mode == intercept.Inspect && sess.Proto == "h2" {
		s.serveHTTP2(c)
		return
	}
	if c.pinned == nil {
		c.pinned = &origin{server: s, ended: true} // nothing leaves
	}
	c.below = nc
	s.serveVisit(c)
}

// serveHTTP2 hands an opened connection to net/http, or, where that server ends, to the one that comes after.
func (s *Server) serveHTTP2(c *client) {
	s.inside.Store(c.conn, c) // net/http serves HTTP/2 on a *tls.Conn itself only
	if !s.lateOnly.Load() && s.feed.serve(c.conn) || s.lateFeed.serve(c.conn) {
		return
	}
	s.inside.Delete(c.conn)
	c.end() // nobody is left to serve it
}

// sessionOrigin returns the origin of an inspected session: first over the connection that was verified before the
// browser was answered, then over further ones of the same session.
func (s *Server) sessionOrigin(sess *intercept.Session, c *client) *origin {
	first := sess.Origin
	o := &origin{server: s, scheme: "https", hostport: c.to.String(), gone: func() { s.originGone(c) }}
	o.dial = func(ctx context.Context) (net.Conn, error) {
		if tc := first; tc != nil {
			first = nil // the origin's lock is held
			return tc, nil
		}
		tc, err := sess.Redial(ctx)
		if err != nil {
			return nil, err
		}
		return tc, nil
	}
	return o
}

// plainOrigin returns the origin of a connection that turned out to be HTTP without TLS: the original destination of
// redirected traffic, else the name.
func (s *Server) plainOrigin(sess *intercept.Session, c *client) *origin {
	hostport := c.to.String()
	if sess.Target.Addr.IsValid() {
		hostport = sess.Target.Addr.String()
	}
	o := &origin{server: s, scheme: "http", hostport: hostport, gone: func() { s.originGone(c) }}
	o.dial = func(ctx context.Context) (net.Conn, error) { return s.opt.Dialer.Dial(ctx, hostport) }
	return o
}

// dialOrigin returns the maker of connections for requests that name their origin to the proxy itself.
func (x *exchange) dialOrigin(scheme string, to authority) func(context.Context) (net.Conn, error) {
	s, hostport := x.s, to.String()
	target := intercept.Target{Host: to.host, Port: to.port, Client: x.c.addr, User: x.facts.User}
	return func(ctx context.Context) (net.Conn, error) {
		switch {
		case scheme == "https":
			tc, err := s.opt.Interceptor.Open(ctx, target)
			if err != nil {
				return nil, err
			}
			return tc, nil
		case s.opt.Dialer.ParentURL() != nil:
			return s.opt.Dialer.DialParent(ctx, hostport)
		}
		return s.opt.Dialer.Dial(ctx, hostport)
	}
}

// serveInside serves one request of an opened connection.
func (s *Server) serveInside(w http.ResponseWriter, r *http.Request) {
	x := s.newExchange(w, r)
	defer x.begin()()
	x.facts.User, x.facts.Host = x.c.session.Target.User, x.c.to.host
	x.aim(x.c.scheme, x.c.to, rawTarget(r))
	if f := x.c.session.Fault; f != nil {
		// The next connection is judged afresh: the page is not to outlive the fault.
		w.Header().Set("Connection", "close")
		x.faulty(f)
		return
	}
	if r.Method == http.MethodConnect {
		x.refuse(notice.NotSupported, "CONNECT inside a connection that was opened", "")
		return
	}
	if fault := x.wrongHost(); fault != "" {
		x.refuse(notice.Mismatch, fault, fmt.Sprintf("host %q in a connection to %v", r.Host, x.c.to))
		return
	}
	switch {
	case looped(r.Header, s.pseudonym):
		x.refuse(notice.Loop, "the request had been here before", "Via: "+strings.Join(r.Header["Via"], ", "))
	case !x.maxForwards():
		x.origin = x.c.pinned
		x.forward()
	}
}

// wrongHost says what is wrong where a request inside a connection is for another host than the connection (domain
// fronting; RFC 9110, 7.4), "" where nothing is.
func (x *exchange) wrongHost() string {
	if x.r.ProtoMajor >= 2 && x.r.URL.Host != "" {
		return "the request's path is a URL (RFC 9113, 8.3.1)"
	}
	if x.r.URL.Host != "" && !strings.EqualFold(x.r.URL.Scheme, x.c.scheme) {
		return "the request's scheme is not the connection's"
	}
	named, err := parseAuthority(x.r.Host, defaultPort(x.c.scheme))
	if err != nil {
		return "the request names no host that can be"
	}
	if x.c.to.host == "" { // redirected traffic without a name: the request has the only one
		x.to.host, x.facts.Host = named.host, named.host
		x.aim(x.c.scheme, x.to, x.path)
	} else if named != x.c.to {
		return "the request is for another host than the connection"
	}
	// HTTP/2 has the host in :authority; a Host header besides must not say something else (RFC 9113, 8.3.1).
	for _, h := range x.r.Header["Host"] {
		if other, err := parseAuthority(h, defaultPort(x.c.scheme)); err != nil || other != named {
			return "the request names two hosts"
		}
	}
	return ""
}

// faulty answers a request to an origin that must not be talked to.
func (x *exchange) faulty(f *intercept.Fault) {
	kind, fault := faultNotice(f)
	n := x.s.opt.Gate.Refuse(x.facts, kind, fault, f.Error())
	n.FaultKind = string(f.Kind)
	x.page(n)
}

// faultNotice returns what a client is told of an origin's fault.
func faultNotice(f *intercept.Fault) (notice.Kind, string) {
	switch f.Kind {
	case intercept.FaultUnreachable:
		var e *egress.Error
		if errors.As(f.Err, &e) {
			return dialNotice(e)
		}
		return notice.OriginRefused, f.Detail
	case intercept.FaultHandshake, intercept.FaultWeak, intercept.FaultClientCertificate:
		return notice.OriginTLS, f.Detail
	case intercept.FaultNotAllowed:
		return notice.ForbiddenTarget, f.Detail
	case intercept.FaultUntrusted, intercept.FaultSelfSigned, intercept.FaultName, intercept.FaultExpired,
		intercept.FaultNotYetValid, intercept.FaultRevoked, intercept.FaultUsage, intercept.FaultMalformed, intercept.FaultOwnCA:
	}
	return notice.OriginCert, f.Detail
}
