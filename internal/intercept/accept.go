package intercept

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Accept takes a client's connection to t as far as it can be used: it reads what the client begins with, decides, opens
// and verifies the origin, and only then answers the client. The Session says how it went on; a fault of the origin is no
// error, as the client is answered and can be shown a page.
//
// The error is for what leaves nobody to answer: a client that was silent or went away, or did not accept our certificate.
// Accept has closed the client's connection then. It is bounded by the timeouts of Config and by ctx.
func (i *Interceptor) Accept(ctx context.Context, client net.Conn, t Target) (s *Session, err error) {
	defer func() {
		if p := recover(); p != nil {
			i.log.Error("panic while opening a connection", "host", t.Host, "client", t.Client, "panic", p, "stack", string(debug.Stack()))
			_ = s.Close() // the origin's connection, if it came to that
			s, err = nil, fmt.Errorf("opening a connection: panic: %v", p)
		}
		i.counts.outcome(s, err)
		if err != nil {
			_ = client.Close()
		}
	}()
	s = &Session{Target: t, Raw: client}
	s.Decision = i.decideUnseen(ctx, t)
	s.redial = func(context.Context) (*tls.Conn, error) { return nil, errNoOrigin }
	switch s.Mode {
	case Refuse:
		return s, nil
	case Tunnel:
		s.Raw = Named(client, t, s.Decision)
		return s, i.tunnel(ctx, s)
	}
	first, err := i.begin(ctx, s)
	if errors.Is(err, errNotHello) {
		s.Decision = Decision{Refuse, err.Error(), RuleProtocol}
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if first == nil {
		return s, nil // the origin has spoken first
	}
	s.Raw = first.conn
	switch {
	case first.hello != nil:
		return s, i.acceptTLS(ctx, s, first.hello)
	case first.http:
		s.Decision = Decision{Plain, "HTTP without TLS", RuleProtocol}
		return s, nil
	}
	return s, i.other(ctx, s, first)
}

// errNoOrigin is the answer of Redial for sessions that have no origin to dial.
var errNoOrigin = errors.New("this session has no origin to connect to")

// tunnel connects s to its origin for a copy both ways. An origin that cannot be reached is a Fault of the session.
func (i *Interceptor) tunnel(ctx context.Context, s *Session) error {
	i.renew(s.Target, s.Decision)
	raw, err := (&origin{i: i, target: s.Target}).dial(ctx)
	if err != nil {
		return s.fail(err)
	}
	s.RawOrigin = raw
	return nil
}

// fail notes a *Fault in s, and returns any other error.
func (s *Session) fail(err error) error {
	if errors.As(err, &s.Fault) {
		return nil
	}
	return err
}

// acceptTLS goes on behind a ClientHello.
func (i *Interceptor) acceptTLS(ctx context.Context, s *Session, h *clientHello) error {
	name, why := agree(&s.Target, h)
	if why != "" && name == "" {
		s.Decision = Decision{Refuse, why, RuleTarget}
		return nil
	}
	if why != "" {
		s.Fault = &Fault{Kind: FaultNotAllowed, Detail: why}
		s.Reason, s.Rule = why, RuleTarget
		return i.answer(ctx, s, h, name, nil)
	}
	// The name of redirected traffic, or behind an address, is known only now.
	if err := i.decideNamed(ctx, s, name); err != nil {
		return s.fail(err)
	}
	switch s.Mode {
	case Refuse:
		return nil
	case Tunnel:
		return i.tunnel(ctx, s)
	}
	protos, ok := offered(h.alpn, s.Target.protocols())
	if !ok {
		s.Decision = Decision{Refuse, fmt.Sprintf("the client speaks %s inside TLS, and not %s", clean(strings.Join(h.alpn, ", ")), strings.Join(s.Target.protocols(), " or ")), RuleProtocol}
		return nil
	}
	o := &origin{i: i, target: s.Target, name: name, protos: i.lowered(learnedKey(name, s.Target), protos)}
	s.fallBack = i.fallBackOf(o, protos)
	var err error
	if o.coupling, err = i.sessions.couple(h.tickets, i.sessions.binding(name, s.Target)); err != nil {
		return err
	}
	raw, err := o.dial(ctx)
	if err != nil {
		return i.faulty(ctx, s, h, name, err)
	}
	if d, ok := i.decideDialled(raw); ok {
		s.Decision, s.RawOrigin = d, raw
		return nil
	}
	conn, err := o.first(ctx, raw, o.coupling.origin())
	if errors.Is(err, errClientCertificate) {
		return i.clientCertificate(ctx, s, h, o)
	}
	if err != nil {
		i.http11Failed(o, protos)
		return i.faulty(ctx, s, h, name, err)
	}
	s.Origin = conn
	if i.cfg.ClientCertificates == certsTunnel && clientOf(s.Target).IsValid() {
		s.renegotiated = func() { i.learnRenegotiation(o) }
	}
	err = i.answer(ctx, s, h, name, o)
	i.pinned(s.Target, name, err)
	if err != nil {
		_ = s.Origin.Close()
		return err
	}
	return i.settle(ctx, s, o)
}

// settle makes sure that both sides of an opened session have resumed, or neither. A client whose ticket was good for the
// origin's session, but that ended up with a full handshake, has not proven that the session is its own.
func (i *Interceptor) settle(ctx context.Context, s *Session, o *origin) error {
	resumed := s.Client.ConnectionState().DidResume
	if s.Origin.ConnectionState().DidResume && !resumed {
		_ = s.Origin.Close()
		conn, err := o.redial(ctx, s.Proto, o.coupling.anew())
		if err != nil {
			_ = s.Client.Close()
			return fmt.Errorf("opening a session of its own for a client that did not resume: %w", err)
		}
		s.Origin = conn
	}
	if resumed {
		i.counts.resumed.Add(1)
	}
	s.redial = func(ctx context.Context) (*tls.Conn, error) {
		return o.redial(ctx, s.Proto, o.coupling.again(resumed))
	}
	return nil
}

// faulty answers the client in order to tell it what is wrong with the origin.
func (i *Interceptor) faulty(ctx context.Context, s *Session, h *clientHello, name string, err error) error {
	if err := s.fail(err); err != nil {
		return err
	}
	return i.answer(ctx, s, h, name, nil)
}

// clientCertificate does what the settings say about origins that ask for one.
func (i *Interceptor) clientCertificate(ctx context.Context, s *Session, h *clientHello, o *origin) error {
	if i.cfg.ClientCertificates == certsRefuse {
		return i.faulty(ctx, s, h, o.name, clientCertificateFault())
	}
	i.learn(o)
	s.Decision = Decision{Tunnel, errClientCertificate.Error(), RuleClientCertificate}
	return i.tunnel(ctx, s)
}

// agree settles which name a connection is for, from what CONNECT or the redirection said and the client's server_name,
// and completes t with it. Where the two contradict each other the reason is not empty, and name is what the client
// expects to be answered for, empty where it is no name.
//
// A name in both must be the same: otherwise what is asked of the proxy is not what is asked of the origin (domain
// fronting). An address may go with a name, which then has to be proven by the origin at that address. A server_name that
// is an address (which RFC 6066, 3 forbids) must be the one that is connected to.
func agree(t *Target, h *clientHello) (name, why string) {
	sni, err := canonicalHost(h.serverName)
	if err != nil {
		return "", fmt.Sprintf("the client's server_name %q is not a host name", clean(h.serverName))
	}
	host, err := canonicalHost(t.Host)
	if err != nil {
		return "", "the target is not a host name or an address"
	}
	hostAddr, hostErr := netip.ParseAddr(host)
	sniAddr, sniErr := netip.ParseAddr(sni)
	switch {
	case sni == "" || sni == host:
		if host == "" {
			host = addressOf(*t).String()
		}
		t.Host = host
		return host, ""
	case host == "" && sniErr == nil && sniAddr != addressOf(*t):
		return sni, fmt.Sprintf("the connection was made to %s, but the TLS server_name is %s", addressOf(*t), sni)
	case host == "":
		t.Host = sni
		return sni, ""
	case hostErr == nil && sniErr != nil:
		if !t.Addr.IsValid() {
			t.Addr = netip.AddrPortFrom(hostAddr, t.Port)
		}
		t.Host = sni
		return sni, ""
	}
	return sni, fmt.Sprintf("the connection was asked for %s, but the TLS server_name is %s", host, sni)
}

// answer makes TLS with the client, under a leaf for name. With an origin its names, dates and protocol are mirrored;
// without one (nil) the session has a Fault, and the leaf serves the page about it.
func (i *Interceptor) answer(ctx context.Context, s *Session, h *clientHello, name string, o *origin) error {
	ctx, cancel := context.WithTimeout(ctx, i.cfg.HandshakeTimeout.Std())
	defer cancel()
	conf := &tls.Config{
		MinVersion:             versions[i.cfg.MinVersion],
		CipherSuites:           suites12,
		Time:                   i.now,
		SessionTicketsDisabled: o == nil,
	}
	var model *x509.Certificate
	if o != nil {
		cs := s.Origin.ConnectionState()
		o.coupling.serve(conf, cs.DidResume)
		if i.cfg.MirrorVersion {
			conf.MaxVersion = cs.Version
		}
		if cs.NegotiatedProtocol != "" {
			conf.NextProtos = []string{cs.NegotiatedProtocol}
		}
		if !o.excused.Load() { // the names of a certificate that was not proven are not vouched for
			model = cs.PeerCertificates[0]
		}
	} else if protos, ok := offered(h.alpn, s.Target.protocols()); ok {
		conf.NextProtos = protos
		if slices.Contains(protos, "http/1.1") {
			conf.NextProtos = []string{"http/1.1"} // a page and its end are simplest there
		}
	}
	conf.GetConfigForClient = func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
		// Two readings of one ClientHello must not differ: what was decided holds for the name that was read first.
		if chi.ServerName != h.serverName {
			return nil, fmt.Errorf("server_name was read as %q and as %q", h.serverName, chi.ServerName)
		}
		return nil, nil
	}
	conf.GetCertificate = func(chi *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return i.leaves.forClient(ctx, chi, name, model)
	}
	watch := &alertWatch{Conn: s.Raw}
	c := tls.Server(watch, conf)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = s.Raw.Close()
		return &clientError{what: "the TLS handshake with the client failed", err: watch.meant(err)}
	}
	watch.done = true
	_ = s.Raw.SetDeadline(time.Time{})
	s.Client, s.Raw, s.Proto = c, nil, protoOf(c)
	return nil
}

// Close ends everything that the session holds. It may be called in any mode, and after its parts were closed.
func (s *Session) Close() error {
	var errs []error
	for _, c := range []net.Conn{s.Raw, s.RawOrigin} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	for _, c := range []*tls.Conn{s.Client, s.Origin} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
