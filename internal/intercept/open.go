package intercept

import (
	"context"
	"crypto/tls"
)

// Open opens a verified connection to an origin for a client that has no TLS session with it to be coupled with: one that gave
// an https URL to the proxy itself, or that speaks without TLS to the gateway. It speaks HTTP/1.1, or one of t's
// Protocols. The error is a *Fault.
func (i *Interceptor) Open(ctx context.Context, t Target) (*tls.Conn, error) {
	name, err := canonicalHost(t.Host)
	if err != nil || name == "" {
		return nil, &Fault{Kind: FaultNotAllowed, Detail: "the target is not a host name or an address", Err: err}
	}
	t.Host = name
	protos := t.Protocols
	if protos == nil {
		protos = []string{"http/1.1"}
	}
	return (&origin{i: i, target: t, name: name, protos: protos}).open(ctx, nil)
}
