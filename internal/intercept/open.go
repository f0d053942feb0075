package intercept

import (
	"context"
	"crypto/tls"
)

// Open opens a verified connection to an origin for a client that gave an https URL to the proxy itself, instead of asking
// for a connection of its own: there is no TLS session of a browser to couple it with. It speaks HTTP/1.1. The error is a
// *Fault.
func (i *Interceptor) Open(ctx context.Context, t Target) (*tls.Conn, error) {
	name, err := canonicalHost(t.Host)
	if err != nil || name == "" {
		return nil, &Fault{Kind: FaultNotAllowed, Detail: "the target is not a host name or an address", Err: err}
	}
	t.Host = name
	return (&origin{i: i, target: t, name: name, protos: []string{"http/1.1"}}).open(ctx, nil)
}
