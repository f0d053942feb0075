package intercept

import (
	"errors"
	"net"
	"strings"
)

// Renegotiates says whether a connection to an origin has failed because the origin began another handshake on it (RFC 5246, 7.4.1.1),
// which crypto/tls refuses. Servers do that to ask for a client certificate once they know the path (IIS, Apache); TLS 1.3 has no such
// thing.
func Renegotiates(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "local error" && strings.Contains(op.Err.Error(), "no renegotiation")
}

// Failed takes into account that the session's connection to its origin has failed behind the handshake. Where the origin wants to
// ask for a client certificate, it is remembered as if it had asked at once, so that the next connection is passed through unopened,
// and the Fault is for the page that says so. It is nil for other errors, which are none of TLS.
func (s *Session) Failed(err error) *Fault {
	if !Renegotiates(err) {
		return nil
	}
	if s != nil && s.renegotiated != nil {
		s.renegotiated()
		return &Fault{Kind: FaultClientCertificate, Detail: "the server asks for a client certificate, in the middle of the connection; the next connection is passed through unopened: try again", Err: err}
	}
	f := clientCertificateFault()
	f.Err = err
	return f
}
