package intercept

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
)

// Explanation is what would happen to a connection, and why.
type Explanation struct {
	Decision Decision // the last word; before Dialled, what the settings and the learned list say
	Name     string   // what the origin's certificate has to be for

	// The rest is known where the origin was dialled.
	Dialled           bool
	Address           netip.AddrPort // what answered; zero where nothing did, or where a parent proxy connects
	Version           uint16         // of TLS, 0 where there was no handshake
	Proto             string         // "h2" or "http/1.1"
	Chain             []*x509.Certificate
	Fault             *Fault   // why no request would reach the origin; nil: none
	Excused           []*Fault // what an exception lets pass
	ClientCertificate bool     // the origin asks for one
}

// Explain says what would happen to a TLS connection to t whose client gives the right server_name, without serving one:
// nothing is learned, counted or answered. With dial the origin is connected to and verified as for a browser that speaks
// HTTP/2, whatever the decision; what that finds is part of the explanation, and not the error. ctx bounds it.
func (i *Interceptor) Explain(ctx context.Context, t Target, dial bool) Explanation {
	x := Explanation{Decision: i.decide(ctx, t)}
	name, err := canonicalHost(t.Host)
	if err == nil && name == "" && t.Addr.IsValid() {
		name = t.Addr.Addr().Unmap().String()
	}
	x.Name = name
	if err == nil && name != "" {
		x.Decision = i.permitted(name, x.Decision)
	}
	if !dial || err != nil || name == "" {
		return x
	}
	t.Host = name
	x.Dialled = true
	o := &origin{i: i, target: t, name: name, protos: protocols, quiet: true}
	o.seen = func(cs tls.ConnectionState, faults []*Fault) {
		x.Version, x.Proto, x.Chain = cs.Version, cs.NegotiatedProtocol, cs.PeerCertificates
		for _, f := range faults {
			if i.exception(name, cs.PeerCertificates[0], f) != nil {
				x.Excused = append(x.Excused, f)
			}
		}
	}
	raw, err := o.dial(ctx)
	if err != nil {
		errors.As(err, &x.Fault)
		return x
	}
	if a, ok := raw.RemoteAddr().(*net.TCPAddr); ok && i.dialer.ParentURL() == nil {
		x.Address = a.AddrPort()
	}
	if d, ok := i.decideDialled(raw); ok && x.Decision.Mode == Inspect {
		x.Decision = d
	}
	c, err := o.handshake(ctx, raw, nil)
	switch {
	case errors.Is(err, errClientCertificate):
		x.ClientCertificate = true
		x.clientCertificate(i.cfg.ClientCertificates)
	case err != nil:
		errors.As(err, &x.Fault)
	default:
		x.Proto = protoOf(c)
		_ = c.Close()
	}
	return x
}

// clientCertificate takes into account that the origin asks for a client certificate.
func (x *Explanation) clientCertificate(setting string) {
	if x.Decision.Mode != Inspect {
		return
	}
	if setting == certsRefuse {
		x.Fault = clientCertificateFault()
		return
	}
	x.Decision = Decision{Tunnel, errClientCertificate.Error(), RuleClientCertificate}
}

func clientCertificateFault() *Fault {
	return &Fault{
		Kind: FaultNotAllowed, Detail: "the server asks for a client certificate, and this gateway is set not to let that pass",
	}
}
