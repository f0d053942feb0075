package intercept

import (
	"context"
	"errors"
	"net/netip"
)

// decideNamed decides for a session whose name is known. A tunnel because of a name that only the client has given is made
// where the origin proves that name. The error, a *Fault, says that the origin could not be asked.
func (i *Interceptor) decideNamed(ctx context.Context, s *Session, name string) error {
	s.Decision = i.decide(ctx, s.Target)
	if s.Mode == Tunnel {
		ok, err := i.proven(ctx, s.Target, name)
		if err != nil {
			return err
		}
		if !ok {
			s.Decision = Decision{Inspect, s.Reason + ", but the origin does not prove that name", RuleUnproven}
		}
	}
	d := i.permitted(name, s.Decision)
	if s.Mode != Inspect || d.Mode == Inspect {
		return nil
	}
	if s.Decision = d; d.Mode != Tunnel {
		return nil
	}
	ok, err := i.proven(ctx, s.Target, name)
	if err == nil && !ok {
		s.Decision = Decision{Refuse, d.Reason + ", and the origin does not prove that name", RuleNotPermitted}
	}
	return err
}

// proven says whether an address may be tunnelled to because of a name that only the client has given: the origin there
// has to show a certificate for it. Otherwise anything could be passed through under a listed name. The answer is
// remembered for a while. The error, a *Fault, says that nobody was there to be asked: a second try, of the tunnel, might
// find somebody.
//
// A name that is an address needs no proof where it is the one that is connected to.
func (i *Interceptor) proven(ctx context.Context, t Target, name string) (bool, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return !t.Addr.IsValid() || a == addressOf(t), nil
	}
	if !i.cfg.VerifyTunnels {
		return true, nil
	}
	key := name + " " + t.Addr.String()
	if ok, known := i.proofs.get(key); known {
		return ok, nil
	}
	o := &origin{i: i, target: t, name: name, protos: t.protocols()}
	raw, err := o.dial(ctx)
	if err != nil {
		return false, err
	}
	c, err := o.handshake(ctx, raw, nil)
	ok := err == nil || errors.Is(err, errClientCertificate)
	if err == nil {
		_ = c.Close()
	} else if !ok {
		i.log.Warn("a connection is not tunnelled: the origin does not prove the name that is on a tunnel list",
			"host", name, "address", t.Addr, "client", t.Client, "error", err)
	}
	i.proofs.put(key, ok, i.now().Add(proofLife))
	return ok, nil
}
