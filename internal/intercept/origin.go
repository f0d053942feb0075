package intercept

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"lazaret/internal/egress"
)

// versions are the values of min_version.
var versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// suites12 are the suites of TLS 1.2 that both sides use: forward secrecy and authenticated encryption only. Those of TLS
// 1.3 are all of that kind.
var suites12 = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// protocols are the application protocols (RFC 7301) that can be inspected.
var protocols = []string{"h2", "http/1.1"}

// errClientCertificate says that the origin asked for a certificate that only the browser has.
var errClientCertificate = errors.New("the origin asks for a client certificate")

// origin is what the gateway needs to know to open connections to an origin for one browser session.
type origin struct {
	i      *Interceptor
	target Target
	name   string   // what the certificate must be for
	protos []string // what is offered

	coupling *coupling                           // the browser's session; nil: nothing is resumed
	excused  atomic.Bool                         // an exception was used
	quiet    bool                                // nothing is counted or logged: it is for an explanation
	seen     func(tls.ConnectionState, []*Fault) // told what the origin presented, and every fault of it; may be nil
}

// address returns what is dialled.
func (o *origin) address() string {
	if o.target.Addr.IsValid() {
		return o.target.Addr.String()
	}
	return net.JoinHostPort(o.target.Host, strconv.Itoa(int(o.target.Port)))
}

// dial opens a TCP connection to the origin. The error is a *Fault of kind FaultUnreachable.
func (o *origin) dial(ctx context.Context) (net.Conn, error) {
	dial := o.target.Dial
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) { return o.i.dialer.Dial(ctx, o.address()) }
	}
	raw, err := dial(ctx)
	if err != nil {
		return nil, &Fault{Kind: FaultUnreachable, Detail: unreachable(err), Err: err}
	}
	return raw, nil
}

// unreachable says why an origin could not be reached, in words that may be shown.
func unreachable(err error) string {
	switch egress.KindOf(err) {
	case egress.Forbidden:
		return "the address may not be connected to through this gateway"
	case egress.NoName:
		return "the name could not be resolved"
	case egress.Refused:
		return "the server refused the connection or cannot be reached"
	case egress.Timeout:
		return "the server did not answer in time"
	case egress.Parent:
		return "the parent proxy could not establish the connection"
	}
	return "the connection failed"
}

// handshake makes TLS on raw and verifies the origin before anything is sent to it. The cache, which may be nil, says which
// session is resumed. It closes raw where it fails. The error is a *Fault, or errClientCertificate.
func (o *origin) handshake(ctx context.Context, raw net.Conn, cache *originCache) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, o.i.cfg.HandshakeTimeout.Std())
	defer cancel()
	var (
		fault *Fault
		asked bool
	)
	conf := &tls.Config{
		ServerName:   o.name,
		NextProtos:   o.protos,
		MinVersion:   versions[o.i.cfg.MinVersion],
		CipherSuites: suites12,
		Time:         o.i.now,
		// VerifyConnection below does it, with more checks and with errors that can be told to the user. It runs on
		// resumption too, and fails the handshake before anything is sent.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cache != nil {
				cache.verified(cs)
			}
			if fault = o.verify(ctx, cs); fault != nil {
				return fault
			}
			return nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			if o.i.cfg.ClientCertificates == certsAnonymous {
				return &tls.Certificate{}, nil
			}
			return nil, errClientCertificate
		},
	}
	if cache != nil {
		conf.ClientSessionCache = cache
	}
	c := tls.Client(raw, conf)
	err := c.HandshakeContext(ctx)
	if err == nil {
		return c, nil
	}
	_ = raw.Close()
	switch {
	case fault != nil:
		return nil, fault
	case asked && errors.Is(err, errClientCertificate):
		return nil, errClientCertificate
	}
	return nil, handshakeFault(err)
}

// verify judges what the origin presented, with missing intermediates fetched. Faults that an exception covers are logged
// and let pass.
func (o *origin) verify(ctx context.Context, cs tls.ConnectionState) *Fault {
	p := presented{name: o.name, chain: cs.PeerCertificates, staple: cs.OCSPResponse, resumed: cs.DidResume}
	path, faults := o.i.verifier.judge(p)
	for range aiaDepth {
		if !o.i.cfg.FetchIntermediates || !slices.ContainsFunc(faults, func(f *Fault) bool { return f.Kind == FaultUntrusted }) {
			break
		}
		more, err := o.i.issuers.complete(ctx, p.chain[0], append(slices.Clone(p.chain[1:]), p.fetched...))
		if err != nil {
			o.i.log.Info("a missing intermediate certificate could not be had", "host", o.name, "error", err)
		}
		if len(more) == 0 {
			break
		}
		p.fetched = append(p.fetched, more...)
		path, faults = o.i.verifier.judge(p)
	}
	if f := o.i.crls.check(ctx, path, o.i.verifier.operators(path), len(path) > 1 && stapled(path[0], path[1], p.staple, o.i.now())); f != nil {
		faults = append(faults, f)
	}
	if o.seen != nil {
		o.seen(cs, faults)
	}
	for _, f := range faults {
		if o.quiet && o.i.exception(o.name, cs.PeerCertificates[0], f) != nil {
			continue
		}
		if !o.i.excused(o.name, cs.PeerCertificates[0], f) {
			return f
		}
		o.excused.Store(true)
	}
	return nil
}

// excused says whether an exception covers a fault, and logs its use.
func (i *Interceptor) excused(name string, leaf *x509.Certificate, f *Fault) bool {
	e := i.exception(name, leaf, f)
	if e == nil {
		return false
	}
	i.counts.exceptions.Add(1)
	i.log.Warn("an origin's fault is let pass by an exception", "host", name, "fault", f.Kind, "detail", f.Detail,
		"expires", e.Expires.Format(time.RFC3339))
	return true
}

// exception returns the exception that covers a fault now, nil where there is none.
func (i *Interceptor) exception(name string, leaf *x509.Certificate, f *Fault) *Exception {
	for n := range i.cfg.Exceptions {
		e := &i.cfg.Exceptions[n]
		host, err := canonicalHost(e.Host)
		if err != nil || host != name || !slices.Contains(e.Faults, f.Kind) || !i.now().Before(e.Expires) {
			continue
		}
		if e.Fingerprint != "" {
			if want, err := parseFingerprint(e.Fingerprint); err != nil || want != sha256.Sum256(leaf.Raw) {
				continue
			}
		}
		return e
	}
	return nil
}

// handshakeFault turns a failed handshake into a fault, in the field's terms. crypto/tls has no types for most of its
// errors, so their texts are looked at; one that is not known is shown as it is.
func handshakeFault(err error) *Fault {
	var (
		record tls.RecordHeaderError
		netErr net.Error
		opErr  *net.OpError
	)
	f := &Fault{Kind: FaultHandshake, Err: err}
	text := err.Error()
	has := func(s string) bool { return strings.Contains(text, s) }
	refused := errors.As(err, &opErr) && opErr.Op == "remote error"
	switch {
	case errors.As(err, &record):
		f.Detail = "the server does not speak TLS on this port"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		f.Detail = "the server did not finish the TLS handshake in time"
	case errors.Is(err, context.Canceled):
		f.Detail = "the TLS handshake was given up"
	case has("failed to parse certificate"), has("x509: "):
		f.Kind, f.Detail = FaultMalformed, "the server's certificate is malformed: "+clean(strings.TrimPrefix(text, "tls: "))
	case refused && has("protocol version not supported"), has("unsupported protocol version"), has("unsupported version"):
		f.Kind, f.Detail = FaultWeak, "the server speaks no version of TLS that is safe (1.2 or 1.3)"
	case refused && has("handshake failure"):
		f.Detail = "the server refused the TLS handshake (handshake_failure): it has no safe cipher suite or parameters in common"
	case refused:
		f.Detail = "the server refused the TLS handshake: " + clean(strings.TrimPrefix(opErr.Err.Error(), "tls: "))
	case has("unconfigured cipher suite"):
		f.Kind, f.Detail = FaultWeak, "the server chose a cipher suite that is not safe"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		f.Detail = "the server ended the connection during the TLS handshake"
	default:
		f.Detail = "the TLS handshake with the server failed: " + clean(strings.TrimPrefix(text, "tls: "))
	}
	return f
}

// protocols returns the application protocols that can be inspected on connections to t.
func (t Target) protocols() []string {
	if t.Protocols != nil {
		return t.Protocols
	}
	return protocols
}

// offered returns the protocols of known that the client offers, in its order. ok is false where it offers protocols but
// none that can be inspected.
func offered(alpn, known []string) (protos []string, ok bool) {
	for _, p := range alpn {
		if slices.Contains(known, p) && !slices.Contains(protos, p) {
			protos = append(protos, p)
		}
	}
	return protos, len(protos) > 0 || len(alpn) == 0
}

// first makes TLS on raw, which was dialled. A fault of a session that was resumed is one of the certificate that was shown when it
// began; the origin may have replaced it, or have a current OCSP answer. So it is asked once more, with a full handshake, which has the
// last word. The error is a *Fault, or errClientCertificate.
func (o *origin) first(ctx context.Context, raw net.Conn, cache *originCache) (*tls.Conn, error) {
	c, err := o.handshake(ctx, raw, cache)
	var fault *Fault
	if err == nil || cache == nil || !cache.hasResumed() || !errors.As(err, &fault) {
		return c, err
	}
	cache.offer.forget()
	o.excused.Store(false)
	if raw, err = o.dial(ctx); err != nil {
		return nil, err
	}
	return o.handshake(ctx, raw, o.coupling.anew())
}

// open dials the origin and makes TLS with it. The error is a *Fault.
func (o *origin) open(ctx context.Context, cache *originCache) (*tls.Conn, error) {
	raw, err := o.dial(ctx)
	if err != nil {
		return nil, err
	}
	c, err := o.first(ctx, raw, cache)
	if errors.Is(err, errClientCertificate) {
		return nil, &Fault{Kind: FaultNotAllowed, Detail: "the server asks for a client certificate, which only the browser has", Err: err}
	}
	return c, err
}

// redial opens one more connection to the origin, which must speak proto as the first one did.
func (o *origin) redial(ctx context.Context, proto string, cache *originCache) (*tls.Conn, error) {
	c, err := o.open(ctx, cache)
	if err != nil {
		var f *Fault
		if errors.As(err, &f) && f.Kind == FaultUnreachable {
			return nil, f.Err
		}
		return nil, err
	}
	if got := protoOf(c); got != proto {
		_ = c.Close()
		return nil, &Fault{Kind: FaultHandshake, Detail: fmt.Sprintf("the server now speaks %s, and %s before", got, proto)}
	}
	return c, nil
}

// protoOf returns the protocol that a connection negotiated; none means HTTP/1.1.
func protoOf(c *tls.Conn) string {
	if p := c.ConnectionState().NegotiatedProtocol; p != "" {
		return p
	}
	return "http/1.1"
}
