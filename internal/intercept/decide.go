package intercept

import (
	"context"
	"net"
	"net/netip"
	"strconv"
)

// Decide says what will be done with a connection to t, by what is known before anything is sent: the tunnel lists, what
// was learned, and whether the target makes sense. Accept asks it itself. One that leaves nothing for Accept to do, as the
// caller tunnels or refuses by it, is counted here. ctx bounds the look-up of the tunnel zones.
func (i *Interceptor) Decide(ctx context.Context, t Target) Decision {
	d := i.decideUnseen(ctx, t)
	// A connection to port 443 would not turn out to be HTTP without TLS, which needs no certificate. Here the client can be
	// told, later no more.
	if name, err := canonicalHost(t.Host); err == nil && isName(name) && t.Port == 443 && d.Mode == Inspect {
		if out := i.permitted(name, d); out.Mode == Refuse {
			d = out
		}
	}
	if d.Mode == Tunnel || d.Mode == Refuse {
		i.counts.decided(d)
		i.renew(t, d)
	}
	return d
}

// decideUnseen is decide before the client's server_name is known. What was learned of an address by clients that gave no name
// does not hold for the names that others may give there.
func (i *Interceptor) decideUnseen(ctx context.Context, t Target) Decision {
	d := i.decide(ctx, t)
	if host, err := canonicalHost(t.Host); err == nil && !isName(host) && (d.Rule == RuleLearned || d.Rule == RulePinned) {
		return undecided
	}
	return d
}

// undecided is what is done where no list has the host, and nothing was learned.
var undecided = Decision{Inspect, "nothing says otherwise", RuleNone}

// decide is Decide, uncounted.
func (i *Interceptor) decide(ctx context.Context, t Target) Decision {
	host, err := canonicalHost(t.Host)
	if err != nil {
		return Decision{Refuse, "the target is not a host name or an address", RuleTarget}
	}
	if host == "" && !t.Addr.IsValid() {
		return Decision{Refuse, "the target has neither a name nor an address", RuleTarget}
	}
	if t.Client.IsValid() && i.clients.Contains(t.Client.Addr().Unmap().WithZone("")) {
		return Decision{Tunnel, "tunnel list: the client's network", RuleClients}
	}
	// What is connected to counts, and not what a client calls it.
	addr, asked := addressOf(t), host
	if a, err := netip.ParseAddr(host); err == nil && !addr.IsValid() {
		addr = a
	}
	if !isName(host) {
		asked = addr.String()
	}
	for _, l := range i.lists() {
		if entry, ok := l.list.matchName(host); ok {
			return Decision{Tunnel, l.name + ": " + strconv.Quote(entry), l.rule}
		}
		if l.list.matchAddr(addr) {
			return Decision{Tunnel, l.name + ": the network of " + addr.String(), l.rule}
		}
	}
	if zone, ok := i.zones.match(ctx, asked); ok {
		return Decision{Tunnel, "tunnel zone: " + asked + " is listed in " + zone, RuleZone}
	}
	if d, ok := i.remembered(learnedKey(host, t), clientOf(t)); ok {
		return d
	}
	return undecided
}

// remembered returns the decision by what was learned of a host and port, for everybody or for one client.
func (i *Interceptor) remembered(key string, client netip.Addr) (Decision, bool) {
	mine := Learned{Host: key, Client: client.String()}
	if i.cfg.ClientCertificates == certsTunnel {
		e, ok := i.learned.get(key)
		if !ok && client.IsValid() {
			e, ok = i.learned.get(renegotiated(mine).key())
		}
		if ok {
			return Decision{Tunnel, "learned: " + e.Reason + "; remembered until " + date(e.Until), RuleLearned}, true
		}
	}
	if client.IsValid() && i.cfg.PinnedAlerts > 0 {
		if e, ok := i.learned.get(mine.key()); ok {
			return Decision{Tunnel, "pinned: " + e.Reason + "; remembered until " + date(e.Until), RulePinned}, true
		}
	}
	return Decision{}, false
}

// permitted returns d, or what is done instead where the CA is not good for name, so that no client would take its leaf.
func (i *Interceptor) permitted(name string, d Decision) Decision {
	if d.Mode != Inspect || i.ca.permits(name) {
		return d
	}
	why := "name constraints: clients take no certificate of the gateway's CA for " + name
	if i.cfg.NotPermitted == notPermittedTunnel {
		return Decision{Tunnel, why, RuleNotPermitted}
	}
	return Decision{Refuse, why + "; not_permitted = \"tunnel\" passes such hosts through unscanned", RuleNotPermitted}
}

// isName says that a canonical host is a name and no address.
func isName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil && host != ""
}

// decideDialled looks for the address that a connection was made to in the tunnel lists. Behind a parent proxy that address
// is not the origin's.
func (i *Interceptor) decideDialled(raw net.Conn) (Decision, bool) {
	a, ok := raw.RemoteAddr().(*net.TCPAddr)
	if !ok || i.dialer.ParentURL() != nil {
		return Decision{}, false
	}
	addr := a.AddrPort().Addr().Unmap()
	for _, l := range i.lists() {
		if l.list.matchAddr(addr) {
			return Decision{Tunnel, l.name + ": the network of " + addr.String(), l.rule}, true
		}
	}
	return Decision{}, false
}

// addressOf returns the original destination of redirected traffic in its one form, the zero Addr for other targets.
func addressOf(t Target) netip.Addr { return t.Addr.Addr().Unmap().WithZone("") }

// learnedKey is a host and port, or the address where there is no name.
func learnedKey(host string, t Target) string {
	if host == "" {
		return t.Addr.String()
	}
	port := t.Port
	if port == 0 {
		port = t.Addr.Port()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
