package intercept

import (
	"errors"
	"net"
	"strings"
	"time"
)

// Renegotiates says whether a connection to an origin has failed because the origin began another handshake on it (RFC 5246, 7.4.1.1),
// which crypto/tls refuses. Servers do that to ask for a client certificate once they know the path (IIS, Apache); TLS 1.3 has no such
// thing.
func Renegotiates(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "local error" && strings.Contains(op.Err.Error(), "no renegotiation")
}

// renegotiationLife is how long a client's connections to an origin are passed through that asked it for a certificate by a
// renegotiation. It is short, as the rest of such a site needs none and was scanned; and it is the client's own, as anybody
// could have any such site pass otherwise.
const renegotiationLife = time.Hour

// renegotiated returns e as what a renegotiation has taught about a client.
func renegotiated(e Learned) Learned {
	e.Rule = RuleLearned
	return e
}

// learnRenegotiation remembers that an origin asks the client of o for a certificate behind the handshake.
func (i *Interceptor) learnRenegotiation(o *origin) {
	e := renegotiated(Learned{Host: learnedKey(o.name, o.target), Client: clientOf(o.target).String()})
	e.Reason = errClientCertificate.Error() + " in the middle of a connection"
	e.Until = i.now().Add(renegotiationLife).Truncate(time.Second)
	i.learned.add(e)
	i.log.Warn("an origin asks for a client certificate by a renegotiation: the client's connections there are passed through unopened",
		"host", e.Host, "client", e.Client, "until", e.Until.Format(time.RFC3339))
}

// renew keeps what a renegotiation has taught about a client from ending while the client uses it: d is the decision for
// another of its connections to t.
func (i *Interceptor) renew(t Target, d Decision) {
	host, err := canonicalHost(t.Host)
	if d.Rule != RuleLearned || err != nil || !clientOf(t).IsValid() {
		return
	}
	e, ok := i.learned.get(renegotiated(Learned{Host: learnedKey(host, t), Client: clientOf(t).String()}).key())
	if ok && e.Until.Sub(i.now()) < renegotiationLife/2 {
		e.Until = i.now().Add(renegotiationLife).Truncate(time.Second)
		i.learned.add(e)
	}
}

// Failed takes into account that the session's connection to its origin has failed behind the handshake. Where the origin wants to
// ask for a client certificate, and the request was meant for it, that is remembered for this client, so that its next connection is
// passed through unopened, and the Fault is for the page that says so. It is nil for other errors, which are none of TLS.
//
// A request is meant that a browser's user has gone to, or that no browser makes: a page of anybody's can name such a path for its
// images and frames, and is not to have another site pass unscanned.
func (s *Session) Failed(err error, meant bool) *Fault {
	if !Renegotiates(err) {
		return nil
	}
	switch {
	case s == nil || s.renegotiated == nil:
		f := clientCertificateFault()
		f.Err = err
		return f
	case !meant:
		return &Fault{Kind: FaultNotAllowed, Detail: "the server asks for a client certificate for what is a part of another page: open its address by itself", Err: err}
	}
	s.renegotiated()
	return &Fault{Kind: FaultClientCertificate, Detail: "the server asks for a client certificate, in the middle of the connection; your next connection is passed through unopened: try again", Err: err}
}
