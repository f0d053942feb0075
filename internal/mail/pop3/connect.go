package pop3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"lazaret/internal/egress"
	"lazaret/internal/intercept"
	"lazaret/internal/notice"
	"lazaret/internal/relay"
)

// protocols is the name of POP3 in TLS (RFC 7301; IANA's registry).
var protocols = []string{"pop3"}

// redirected is a connection that knows where its client wanted to go; *listen.Conn of a transparent listener is one.
type redirected interface {
	Original() netip.AddrPort
}

// greetingError is a server that does not let anybody in: its words are the client's to read.
type greetingError struct{ line []byte }

func (e *greetingError) Error() string { return fmt.Sprintf("the server says %.200q", e.line) }

// destination returns the server that a connection is for. ok is false where there is none.
func (x *session) destination() (to server, ok bool) {
	if x.set.upstream.host != "" {
		return x.set.upstream, true
	}
	r, is := x.client.conn.(redirected)
	if !is || !r.Original().IsValid() {
		return server{}, false
	}
	o := r.Original()
	x.original = netip.AddrPortFrom(o.Addr().Unmap(), o.Port())
	return x.on(x.original.Addr().String(), o.Port()), true
}

// on returns the server on a host's port, which says how it is spoken to.
func (x *session) on(host string, port uint16) server {
	to := server{host: host, port: port}
	if slices.Contains(x.set.TLSPorts, int(port)) {
		to.tls = fromTheStart
	}
	return to
}

// run serves the session from its beginning to its end. begunTLS says that the client begins with TLS.
func (x *session) run(ctx context.Context, begunTLS bool) {
	to, ok := x.destination()
	if !ok {
		if len(x.set.logins) == 0 || begunTLS {
			x.refuse(notice.ForbiddenTarget, permanent, "this connection does not say which server it is for",
				"the connection was not redirected, and there is neither upstream nor login_servers")
			return
		}
		if x.client.send([]byte("+OK POP3 gateway ready; log in as user#server\r\n")) == nil {
			x.loop(ctx)
		}
		return
	}
	x.aim(to)
	begunTLS = begunTLS || x.original.IsValid() && x.set.upstream.host == "" && to.tls == fromTheStart
	var greeting []byte
	var err error
	if begunTLS {
		x.facts.Protocol = "pop3s"
		var carried bool
		greeting, carried, err = x.acceptTLS(ctx)
		if carried || x.gone(err) {
			return
		}
	} else {
		greeting, err = x.connect(ctx)
	}
	if err != nil {
		x.cannotConnect(err)
		return
	}
	if x.client.send(greeting) == nil {
		x.loop(ctx)
	}
}

// aim notes the server that the session is with.
func (x *session) aim(to server) {
	x.server = to
	x.facts.Host = to.address()
	x.facts.URL = "pop3://" + to.address()
}

// target is the server as TLS has to prove it. A redirected client's server_name says which name that is.
func (x *session) target(dial func(context.Context) (net.Conn, error)) intercept.Target {
	t := intercept.Target{Host: x.server.host, Port: x.server.port, Client: x.clientAddr, Protocols: protocols, Dial: dial}
	if x.original.IsValid() && x.set.upstream.host == "" {
		t.Host, t.Addr = "", x.original
	}
	return t
}

func (x *session) dial(ctx context.Context) (net.Conn, error) {
	return x.s.opt.Dialer.Dial(ctx, x.server.address())
}

// connect connects to the server for a client that begins without TLS, and returns its greeting.
func (x *session) connect(ctx context.Context) (greeting []byte, err error) {
	switch x.server.tls {
	case withoutTLS:
		conn, err := x.dial(ctx)
		if err != nil {
			return nil, err
		}
		x.serveWith(conn, false)
	case fromTheStart:
		t := x.target(x.dial)
		t.Host = x.server.host
		conn, err := x.s.opt.Interceptor.Open(ctx, t)
		if err != nil {
			return nil, err
		}
		x.serveWith(conn, true)
	case demandSTLS:
		conn, err := x.s.opt.Interceptor.Open(ctx, x.target(x.dialSTLS(ctx, &greeting)))
		if err != nil {
			return nil, err
		}
		x.serveWith(conn, true)
		return greeting, nil
	}
	return x.greeting()
}

// serveWith makes conn the server's side.
func (x *session) serveWith(conn net.Conn, tls bool) {
	x.join(newPeer(conn, serverBuffer, x.set.ReplyTimeout.Std()))
	x.upTLS = tls
}

// greeting reads the server's first line, which APOP depends on to the byte. A negative one is a *greetingError.
func (x *session) greeting() ([]byte, error) {
	line, ok, err := x.up.reply()
	if err == nil && !ok {
		err = &greetingError{line}
	}
	if err != nil {
		_ = x.up.conn.Close() // it lets nobody in
		return nil, err
	}
	return line, nil
}

// dialSTLS returns what connects to the server up to the point where TLS begins; it puts the greeting into *greeting.
func (x *session) dialSTLS(_ context.Context, greeting *[]byte) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := x.dial(ctx)
		if err != nil {
			return nil, err
		}
		p := newPeer(conn, serverBuffer, x.set.ReplyTimeout.Std())
		line, ok, err := p.reply()
		if err == nil && !ok {
			err = &greetingError{line}
		}
		if err == nil {
			*greeting = line
			_, err = stls(p)
		}
		if err != nil {
			_ = conn.Close() // there is no way on without TLS
			return nil, err
		}
		return conn, nil
	}
}

// errSTLS is a server that does not begin TLS.
var errSTLS = errors.New("the server does not begin TLS")

// stls has the server begin TLS, and returns its reply. What a server sends behind it, and still without TLS, may be an
// attacker's: it is an error (RFC 9051, 11.1 and the like have it as "response injection").
func stls(p *peer) ([]byte, error) {
	if err := p.order([]byte("STLS\r\n")); err != nil {
		return nil, err
	}
	line, ok, err := p.reply()
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return line, fmt.Errorf("%w: %.100q", errSTLS, line)
	case p.buffered():
		return nil, fmt.Errorf("%w: it sent something without TLS behind its reply to STLS", errSTLS)
	}
	return line, nil
}

// acceptTLS takes a client that begins with TLS. carried says that the connection was passed through, and has ended.
func (x *session) acceptTLS(ctx context.Context) (greeting []byte, carried bool, err error) {
	dial := x.dial
	if x.server.tls == demandSTLS {
		dial = x.dialSTLS(ctx, &greeting)
	}
	sess, err := x.s.opt.Interceptor.Accept(ctx, x.client.conn, x.target(dial))
	if err != nil {
		return nil, false, &clientGone{err}
	}
	if carried, err = x.settle(ctx, sess); carried || err != nil {
		return nil, carried, err
	}
	if greeting == nil {
		greeting, err = x.greeting()
	}
	return greeting, false, err
}

// clientGone says that there is nobody left to tell anything.
type clientGone struct{ err error }

func (e *clientGone) Error() string { return e.err.Error() }
func (e *clientGone) Unwrap() error { return e.err }

// gone records the end of a session whose client went away during its TLS handshake.
func (x *session) gone(err error) bool {
	var g *clientGone
	if !errors.As(err, &g) {
		return false
	}
	x.s.opt.Gate.Refuse(x.facts, notice.NotTLS, "", g.Error())
	return true
}

// settle goes on with what the interceptor made of a client's TLS. The error is what keeps the session from going on; the
// client can be told it.
func (x *session) settle(ctx context.Context, sess *intercept.Session) (carried bool, err error) {
	if h := sess.Target.Host; h != "" {
		x.facts.Host = (server{host: h, port: x.server.port}).address()
		x.facts.URL = "pop3://" + x.facts.Host
	}
	switch {
	case sess.Mode == intercept.Tunnel && sess.RawOrigin != nil:
		x.s.opt.Gate.Exempt(x.facts, "tunnel", "tunnel: "+sess.Reason)
		n, err := relay.Copy(ctx, sess.Raw, sess.RawOrigin, x.set.IdleTimeout.Std())
		x.log.Debug("carried a POP3 connection", "host", x.facts.Host, "up", n.Up, "down", n.Down, "error", err)
		return true, nil
	case sess.Mode == intercept.Inspect && sess.Client != nil:
		x.swap(newPeer(sess.Client, clientBuffer, x.set.ReplyTimeout.Std()))
		x.tls, x.facts.Protocol = true, "pop3s"
		if sess.Fault != nil {
			return false, sess.Fault
		}
		x.serveWith(sess.Origin, true)
		return false, nil
	}
	_ = sess.Close() // there is no TLS of ours to say anything in
	why := sess.Reason
	if sess.Fault != nil {
		why = sess.Fault.Error()
	}
	return false, &clientGone{errors.New(why)}
}

// cannotConnect tells the client, in its greeting or in the place of a reply, why there is no server for it.
func (x *session) cannotConnect(err error) {
	var greeting *greetingError
	if errors.As(err, &greeting) {
		_ = x.client.send(greeting.line) // the server's own words, before the end
		return
	}
	kind, code, text := explain(err)
	x.refuse(kind, code, text, err.Error())
}

// explain says what is told about a server that cannot be talked to.
func explain(err error) (kind notice.Kind, code, text string) {
	var f *intercept.Fault
	var e *egress.Error
	isFault := errors.As(err, &f)
	switch {
	case isFault && f.Kind != intercept.FaultUnreachable:
		return notice.OriginCert, permanent, "the server's TLS is not safe: " + f.Detail
	case !errors.As(err, &e):
		return notice.OriginProtocol, temporary, "the mail server cannot be talked to"
	}
	switch e.Kind {
	case egress.Forbidden:
		return notice.ForbiddenTarget, permanent, "the gateway does not connect to that server"
	case egress.NoName:
		return notice.OriginDNS, temporary, "the mail server's name is not known"
	case egress.Timeout:
		return notice.OriginTimeout, temporary, "the mail server does not answer in time"
	case egress.Failed, egress.Refused, egress.Parent:
	}
	return notice.OriginRefused, temporary, "the mail server cannot be reached"
}

// startTLS serves STLS (RFC 2595, 4): the server begins TLS first, and is verified before the client is answered.
func (x *session) startTLS(ctx context.Context) error {
	if x.tls || x.upTLS || x.up == nil {
		return x.say("-ERR STLS is not possible here")
	}
	if x.client.buffered() {
		// What came behind the command was sent without TLS, maybe by somebody else. It must not be taken for a command
		// that was protected (CVE-2011-0411 and its kin).
		x.s.opt.Gate.Refuse(x.facts, notice.BadRequest, "", "commands without TLS behind STLS")
		_ = x.say("-ERR nothing may follow STLS before TLS has begun")
		return errEnd
	}
	line, err := stls(x.up)
	if errors.Is(err, errSTLS) && line != nil {
		return x.reply(line) // the server's refusal: the client decides whether it goes on without
	}
	if err != nil {
		return x.upstreamGone(err)
	}
	if err := x.reply(line); err != nil {
		return err
	}
	var used atomic.Bool
	raw := x.up.conn
	sess, err := x.s.opt.Interceptor.Accept(ctx, x.client.conn, x.target(func(context.Context) (net.Conn, error) {
		if used.Swap(true) {
			return nil, errors.New("a connection that began TLS by STLS cannot be opened twice")
		}
		return raw, nil
	}))
	if err != nil {
		x.gone(&clientGone{err})
		_ = raw.Close() // the client did not go on
		return errEnd
	}
	carried, err := x.settle(ctx, sess)
	switch {
	case carried, x.gone(err):
		return errEnd
	case err != nil:
		_ = raw.Close() // the server is not what it should be
		return x.faulty(err)
	}
	return nil
}

// faulty answers the next command with what is wrong with the server, and ends the session.
func (x *session) faulty(fault error) error {
	if _, err := x.command(); err != nil {
		return err
	}
	x.cannotConnect(fault)
	return errEnd
}

// login connects to the server that is part of a login, "USER user#host:port".
func (x *session) login(ctx context.Context, name string) error {
	user, to, ok := chosen(name)
	if !ok {
		return x.say("-ERR log in as user#server, or user#server:port")
	}
	if !slices.ContainsFunc(x.set.logins, func(a allowedServer) bool { return a.matches(to) }) {
		x.aim(to)
		n := x.s.opt.Gate.Refuse(x.facts, notice.ForbiddenTarget, "", "the server is in none of login_servers")
		return x.say("-ERR the gateway does not connect to that server; reference " + n.Reference)
	}
	x.aim(x.on(to.host, to.port))
	if _, err := x.connect(ctx); err != nil {
		x.cannotConnect(err)
		return errEnd
	}
	x.byLogin = true
	return x.user(user)
}

// again serves a USER that comes after the one that the server was part of: a mail program asks for the password once more. It is
// the server's business what the login is, and nobody's to go elsewhere in the same connection.
func (x *session) again(name string) error {
	user, to, ok := chosen(name)
	if !ok && !strings.Contains(name, "#") {
		return x.user(name)
	}
	if !ok || to.host != x.server.host || to.port != x.server.port {
		return x.say("-ERR this connection is one with " + x.server.address() + "; connect again for another server")
	}
	return x.user(user)
}

// user passes a login on.
func (x *session) user(name string) error {
	x.facts.User = name
	return x.relayed(command{verb: "USER", line: []byte("USER " + name + "\r\n")})
}

// local serves a session whose server is not known yet.
func (x *session) local(ctx context.Context, c command) error {
	switch c.verb {
	case "USER":
		return x.login(ctx, strings.Join(c.args, " "))
	case "CAPA":
		return x.reply([]byte("+OK Capability list follows\r\nUSER\r\nRESP-CODES\r\n.\r\n"))
	case "NOOP":
		return x.say("+OK")
	case "QUIT":
		_ = x.say("+OK") // the end, either way
		return errEnd
	}
	return x.say("-ERR log in first, as user#server")
}
