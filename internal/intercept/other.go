package intercept

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"lazaret/internal/relay"
)

// The values of other_protocols.
const (
	otherRefuse = "refuse"
	otherTunnel = "tunnel"
)

// silence is how long a client may say nothing before its origin is asked whether it is the one that speaks first. Clients
// of TLS and HTTP speak at once.
const silence = time.Second

// greeting is how much of what an origin says first is looked at.
const greeting = 512

// tunnelsOthers says whether connections to t that speak neither TLS nor HTTP are passed through. It is a matter of the
// web alone: other callers know what their clients speak.
func (i *Interceptor) tunnelsOthers(t Target) bool {
	return i.cfg.OtherProtocols == otherTunnel && t.Protocols == nil && t.Dial == nil
}

// begin reads how a client begins. Where others are tunnelled and the origin speaks first, s is a tunnel already, and the
// opening nil; so it is where s has a Fault, as the origin could not be asked.
func (i *Interceptor) begin(ctx context.Context, s *Session) (*opening, error) {
	whole := i.cfg.HelloTimeout.Std()
	if !i.tunnelsOthers(s.Target) {
		return readOpening(ctx, s.Raw, whole, false)
	}
	patience := min(silence, whole)
	first, err := readOpening(ctx, s.Raw, patience, true)
	var ce *clientError
	if !errors.As(err, &ce) || !ce.silent || ctx.Err() != nil {
		return first, err
	}
	return i.eitherFirst(ctx, s, max(whole-patience, time.Second))
}

// eitherFirst connects to the origin of a client that is silent, and waits for either to speak. Servers of TLS and HTTP wait
// for their clients, so that an origin which greets speaks something else; a client that is merely late is taken as ever.
func (i *Interceptor) eitherFirst(ctx context.Context, s *Session, timeout time.Duration) (*opening, error) {
	tunnel := Decision{Tunnel, "neither TLS nor HTTP: the server speaks first", RuleProtocol}
	raw, err := (&origin{i: i, target: s.Target}).dial(ctx)
	if err != nil {
		s.Decision = tunnel
		return nil, s.fail(err)
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	heard := make(chan []byte, 1)
	go func() {
		b := hear(raw, timeout)
		heard <- b
		if len(b) > 0 {
			cancel() // the client need not be waited for
		}
	}()
	first, err := readOpening(waiting, s.Raw, timeout, true)
	_ = raw.SetReadDeadline(time.Unix(1, 0)) // an error would be the origin's, which then has ended the wait itself
	said := <-heard
	var ce *clientError
	switch {
	case errors.As(err, &ce) && ce.silent && len(said) > 0 && ctx.Err() == nil:
	default:
		_ = raw.Close() // the client has spoken, or gone
		return first, err
	}
	if err := errors.Join(raw.SetReadDeadline(time.Time{}), s.Raw.SetReadDeadline(time.Time{})); err != nil {
		_ = raw.Close()
		return nil, &clientError{what: "the connection is gone", err: err}
	}
	if bytes.HasPrefix(said, []byte("HTTP/")) || tlsRecord(said) {
		_ = raw.Close() // it ends connections that it has waited at for too long
		s.Decision = Decision{Refuse, "the client was silent, and the server said " + describe(said), RuleProtocol}
		return nil, nil
	}
	s.Decision, s.RawOrigin = tunnel, relay.NewPrefixed(raw, said)
	return nil, nil
}

// hear returns what an origin says first; nothing where it is silent.
func hear(raw net.Conn, timeout time.Duration) []byte {
	buf := make([]byte, greeting)
	if err := raw.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil
	}
	n, _ := raw.Read(buf) // an origin that ends the connection has said nothing
	return buf[:n]
}

// other tunnels a connection whose client began with neither TLS nor HTTP.
func (i *Interceptor) other(ctx context.Context, s *Session, first *opening) error {
	what := "neither TLS nor HTTP: " + describe(first.head)
	switch {
	case !i.tunnelsOthers(s.Target):
		s.Decision = Decision{Refuse, what, RuleProtocol}
		return nil
	case first.near:
		s.Decision = Decision{Refuse, fmt.Sprintf("%s; too much like a request to be tunnelled", what), RuleProtocol}
		return nil
	}
	s.Decision = Decision{Tunnel, what, RuleProtocol}
	return i.tunnel(ctx, s)
}

// nearHTTP says whether what is no request for looksHTTP could still be one for a lenient server, or TLS begun in another
// way: such a thing must not pass through unscanned. With more it says that too little is there to tell.
func nearHTTP(b []byte) (is, more bool) {
	if tlsRecord(b) || b[0] == sslv2ClientHello {
		return true, false
	}
	word := 0
	for _, c := range b {
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			if word > 0 {
				return true, false
			}
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', word > 0 && (c == '-' || c == '_'):
			if word++; word > maxMethod {
				return false, false
			}
		default:
			return false, false
		}
	}
	// Blank lines could be sent for ever; nobody begins with so many.
	return len(b) > 4*maxMethod, len(b) <= 4*maxMethod
}

// tlsRecord says whether b, which is not empty, begins with the type of a TLS record (RFC 8446, 5.1; 24 is the heartbeat
// of RFC 6520).
func tlsRecord(b []byte) bool { return b[0] >= 20 && b[0] <= 24 }
