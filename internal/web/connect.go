package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"time"

	"lazaret/internal/egress"
	"lazaret/internal/intercept"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/relay"
	"lazaret/internal/web/http1"
)

// established is the answer to a CONNECT that is granted (RFC 9110, 9.3.6).
const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// connect serves CONNECT: the connection is opened and served by the inner server, or carried through.
func (x *exchange) connect() {
	to, err := parseAuthority(x.r.RequestURI, 0)
	if err == nil && to.port == 0 {
		err = fmt.Errorf("%q has no port, which CONNECT needs (RFC 9110, 9.3.6)", x.r.RequestURI)
	}
	if err != nil {
		x.refuse(notice.BadRequest, err.Error(), "")
		return
	}
	x.aim("https", to, "")
	if !x.authenticate() {
		return
	}
	switch {
	case x.r.ContentLength != 0:
		x.refuse(notice.BadRequest, "a CONNECT request has no content", "")
		return
	case to.host == selfName:
		x.refuse(notice.ForbiddenTarget, "the gateway's own pages are at http://"+selfName+"/", "")
		return
	case !x.portAllowed():
		return
	}
	target := intercept.Target{Host: to.host, Port: to.port, Client: x.c.addr, User: x.facts.User}
	switch d := x.s.opt.Interceptor.Decide(x.r.Context(), target); d.Mode {
	case intercept.Tunnel:
		x.tunnel(target, d)
	case intercept.Inspect, intercept.Plain:
		if nc := x.establish(); nc != nil {
			x.s.open(nc, target, x.facts)
		}
	case intercept.Refuse:
		x.refuse(notice.ForbiddenTarget, d.Reason, "")
	default:
		x.refuse(notice.ForbiddenTarget, d.Reason, fmt.Sprintf("unknown mode %v", d.Mode))
	}
}

// tunnel carries a connection through unopened. The origin is dialled first, so that the client learns of it when that
// fails.
func (x *exchange) tunnel(t intercept.Target, d intercept.Decision) {
	out, err := x.s.opt.Dialer.Dial(x.r.Context(), x.to.String())
	if err != nil {
		x.dialFailed(err)
		return
	}
	nc := x.establish()
	if nc == nil {
		_ = out.Close() // the client has gone; nothing was sent
		return
	}
	x.s.carry(intercept.Named(nc, t, d), out, x.facts, "tunnel", "tunnel: "+d.Reason)
}

// establish takes the connection over and tells the client that it may go on; nil where it is gone.
func (x *exchange) establish() net.Conn {
	nc, buffered := x.hijack()
	if nc == nil {
		return nil
	}
	x.c.close() // plain requests that came before have their own connections to origins
	err := errors.Join(nc.SetWriteDeadline(time.Now().Add(x.set.HeaderTimeout.Std())), writeString(nc, established), nc.SetWriteDeadline(time.Time{}))
	if err != nil {
		_ = nc.Close() // the client has gone
		return nil
	}
	if len(buffered) > 0 {
		return relay.NewPrefixed(nc, buffered)
	}
	return nc
}

func writeString(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

// hijack takes the connection over from package http1, with what the client has already sent; nil where that cannot be.
func (x *exchange) hijack() (net.Conn, []byte) {
	x.head = true
	err := errors.New("a request of HTTP/2 has no connection of its own")
	if t, ok := x.w.(http1.Taker); ok {
		var nc net.Conn
		var ahead []byte
		if nc, ahead, err = t.Take(); err == nil {
			return nc, ahead
		}
	}
	x.s.opt.Log.Debug("taking a connection over", "client", x.c.addr, "error", err)
	return nil, nil
}

// carried is a connection that no requests come over any more: in the making, tunnelled or upgraded.
type carried struct {
	conn   net.Conn
	cancel context.CancelFunc
	making bool // it becomes a connection that requests come over
}

// hold registers a connection that is carried from now on. The context ends when the server is to end; done is called
// when the connection has ended, or belongs to somebody else. When the server has ended there is no place: ok is false, and
// the connection is closed.
func (s *Server) hold(nc net.Conn, making bool) (ctx context.Context, done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		_ = nc.Close() // nothing was promised yet
		return nil, nil, false
	}
	ctx, cancel := context.WithCancel(s.ctx)
	h := &carried{conn: nc, cancel: cancel, making: making}
	s.relays[h] = struct{}{}
	s.wg.Add(1)
	return ctx, func() {
		cancel()
		s.mu.Lock()
		delete(s.relays, h)
		s.mu.Unlock()
		s.wg.Done()
	}, true
}

// Stats are numbers of the moment.
type Stats struct {
	Connections int // of clients, tunnels included
	Carried     int // of those, tunnelled, upgraded, or on their way to be inspected
}

// Stats returns the numbers of the moment.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Connections: s.limits.count(), Carried: len(s.relays)}
}

// guard ends one connection where the code that serves it panics.
func (s *Server) guard(nc net.Conn, f policy.Facts) {
	if p := recover(); p != nil {
		_ = nc.Close() // nothing sensible can be said on it any more
		n := s.opt.Gate.Refuse(f, notice.Internal, "", fmt.Sprintf("panic: %v", p))
		s.opt.Log.Error("a connection made the proxy panic", "reference", n.Reference, "panic", p, "stack", string(debug.Stack()))
	}
}

// carry copies both ways until either end has enough, and records it as an exception with its reason; so it does a tunnel that
// turns out to be for another name, of which nothing has passed.
func (s *Server) carry(client, origin net.Conn, f policy.Facts, kind, why string) {
	defer s.guard(client, f)
	ctx, done, ok := s.hold(client, false)
	if !ok {
		_ = origin.Close() // nothing was sent
		return
	}
	defer done()
	s.opt.Gate.Exempt(f, kind, why)
	n, err := relay.Copy(ctx, client, origin, s.settings.Load().StreamTimeout.Std())
	if opening := (*intercept.OpeningError)(nil); errors.As(err, &opening) {
		s.opt.Gate.Refuse(f, notice.Mismatch, "", err.Error()) // there is nothing to be said on it
	}
	s.opt.Log.Debug("carried a connection", "host", f.Host, "client", f.Client, "up", n.Up, "down", n.Down, "why", why, "error", err)
}

// open has a connection's beginning looked at by the interceptor, and serves it as what it turns out to be.
func (s *Server) open(nc net.Conn, target intercept.Target, f policy.Facts) {
	defer s.guard(nc, f)
	ctx, done, ok := s.hold(nc, true)
	if !ok {
		return
	}
	below := &cork{Conn: nc}
	nc = below
	sess, err := s.opt.Interceptor.Accept(ctx, nc, target)
	switch {
	case err != nil:
		defer done()
		if ctx.Err() == nil {
			s.opt.Gate.Refuse(f, notice.NotTLS, "", err.Error())
		}
		_ = nc.Close() // there is nobody left to answer
	case sess.Mode == intercept.Tunnel && sess.RawOrigin != nil:
		done()
		if host := sess.Target.Host; host != "" { // redirected traffic has told its name by now
			f.Host, f.Protocol = host, "https"
		}
		s.carry(sess.Raw, sess.RawOrigin, f, "tunnel", "tunnel: "+sess.Reason)
	case (sess.Mode == intercept.Inspect && sess.Client != nil) || sess.Mode == intercept.Plain:
		defer done()
		s.serveSession(ctx, sess, below)
	default:
		defer done()
		kind, detail := notice.NotTLS, sess.Reason
		if sess.Rule == intercept.RuleNotPermitted {
			kind = notice.ForbiddenTarget
		}
		if sess.Fault != nil {
			kind, _ = faultNotice(sess.Fault)
			detail = sess.Fault.Error()
		}
		s.opt.Gate.Refuse(f, kind, "", detail)
		_ = sess.Close() // there is nothing to be said on it
	}
}

// dialFailed answers a request whose origin could not be connected to.
func (x *exchange) dialFailed(err error) {
	kind, fault := dialNotice(err)
	x.refuse(kind, fault, err.Error())
}

// dialNotice returns what a client is told when its origin could not be connected to. The operating system's and the
// parent proxy's words stay in the log.
func dialNotice(err error) (kind notice.Kind, fault string) {
	switch egress.KindOf(err) {
	case egress.Forbidden:
		return notice.ForbiddenTarget, "the gateway does not connect to that address"
	case egress.NoName:
		return notice.OriginDNS, "the name could not be found"
	case egress.Timeout:
		return notice.OriginTimeout, "no connection in time"
	case egress.Parent:
		return notice.OriginRefused, "the parent proxy did not connect"
	case egress.Refused:
		return notice.OriginRefused, "the connection was refused"
	case egress.Failed:
	}
	return notice.OriginRefused, "the connection failed"
}
