package intercept

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"

	"lazaret/internal/relay"
)

// OpeningError says that what a client sent first through a tunnel keeps it from being one. Nothing of it has passed.
type OpeningError struct{ why string }

// Error implements error.
func (e *OpeningError) Error() string { return e.why }

// Named returns the client's side of a tunnel to t by the decision d. Where that is for t's name, the bytes that the client sends
// first are looked at before they are delivered: those of a ClientHello for another name are not, and Read returns an
// *OpeningError, as a listed host at a content network would else be a way to all of its neighbours (domain fronting). What is
// no TLS, has no server_name, or comes after a greeting of the origin's passes, byte for byte; a client that says nothing is not
// waited for.
//
// What a name hides is not seen: the inner one of Encrypted Client Hello (RFC 9849), and the Host of requests inside.
func Named(client net.Conn, t Target, d Decision) net.Conn {
	host, err := canonicalHost(t.Host)
	if err != nil || !isName(host) || d.Rule == RuleClients || t.Protocols != nil {
		return client
	}
	return &named{Conn: client, target: t, first: recorder{c: client}}
}

// named is a connection whose first bytes are looked at. One goroutine reads from it, others may write to it meanwhile.
type named struct {
	net.Conn
	target Target
	first  recorder
	seen   atomic.Pointer[relay.Prefixed] // what came first, and the connection behind it; nil: it was not seen yet
}

// Read implements net.Conn.
func (n *named) Read(b []byte) (int, error) {
	seen := n.seen.Load()
	if seen == nil {
		if err := n.look(); err != nil {
			return 0, err
		}
		seen = relay.NewPrefixed(n.Conn, n.first.read)
		n.first.read = nil
		n.seen.Store(seen)
	}
	return seen.Read(b)
}

// look reads what the client sends first as far as it has to be known. It goes on where it was after an error of time.
func (n *named) look() error {
	if err := n.first.want(1); err != nil {
		return err // nothing came, which may be an end, too
	}
	if !tlsRecord(n.first.read) {
		return nil
	}
	h, err := n.first.clientHello()
	switch {
	case errors.Is(err, errNotHello):
		return &OpeningError{err.Error()}
	case errors.Is(err, io.EOF):
		return &OpeningError{"the client ended its side within its ClientHello"}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case err != nil:
		return fmt.Errorf("reading the ClientHello: %w", err)
	}
	t := n.target
	if _, why := agree(&t, h); why != "" {
		return &OpeningError{why}
	}
	return nil
}

// CloseWrite ends the sending side.
func (n *named) CloseWrite() error {
	if c, ok := n.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// TCPConn returns the TCP connection below once the first bytes have passed, nil before.
func (n *named) TCPConn() *net.TCPConn {
	if seen := n.seen.Load(); seen != nil {
		return seen.TCPConn()
	}
	return nil
}
