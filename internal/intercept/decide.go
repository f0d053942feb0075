package intercept

import (
	"context"
	"net"
	"net/netip"
	"strconv"
)

// Decide says what will be done with a connection to t, by what is known before anything is sent: the tunnel lists, what
// was learned, and whether the target makes sense. Accept asks it itself; `explain` shows it.
func (i *Interceptor) Decide(_ context.Context, t Target) Decision {
	host, err := canonicalHost(t.Host)
	if err != nil {
		return Decision{Refuse, "the target is not a host name or an address"}
	}
	if host == "" && !t.Addr.IsValid() {
		return Decision{Refuse, "the target has neither a name nor an address"}
	}
	if t.Client.IsValid() && i.clients.Contains(t.Client.Addr().Unmap().WithZone("")) {
		return Decision{Tunnel, "tunnel list: the client's network"}
	}
	addr := t.Addr.Addr()
	if a, err := netip.ParseAddr(host); err == nil {
		addr = a
	}
	for _, l := range i.lists() {
		if entry, ok := l.list.matchName(host); ok {
			return Decision{Tunnel, l.name + ": " + strconv.Quote(entry)}
		}
		if l.list.matchAddr(addr) {
			return Decision{Tunnel, l.name + ": the network of " + addr.String()}
		}
	}
	if e, ok := i.learned.hosts.get(learnedKey(host, t)); ok {
		return Decision{Tunnel, "learned: " + e.Reason + "; remembered until " + date(e.Until)}
	}
	return Decision{Inspect, "nothing says otherwise"}
}

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
