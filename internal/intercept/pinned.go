package intercept

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// The bounds of what is known about clients. A client that has accepted a certificate of ours within acceptedLife has our
// CA; its alerts count for alertWindow after the last of them. Those within alertBurst of one that has counted are the same try:
// browsers make several by themselves, for one visit.
const (
	maxAlerts    = 10_000
	alertWindow  = time.Hour
	alertBurst   = 10 * time.Second
	maxAccepted  = 10_000
	acceptedLife = 24 * time.Hour
)

// pins counts the alerts by which clients refuse our certificates. A client that accepts them for other names, and refuses
// each one for this name, has the origin's certificate built in: it can only be let through, or do without the origin. One
// that has never accepted any has not got our CA, and is not let past the scanner for that.
type pins struct {
	mu       sync.Mutex
	alerts   *lru[string, alerts]       // by host:port and client
	accepted *lru[netip.Addr, struct{}] // clients that have our CA
}

// alerts are those of one client for one host and port.
type alerts struct {
	n    int
	last time.Time // when the last of them was that counted
}

func newPins(now func() time.Time) *pins {
	return &pins{alerts: newLRU[string, alerts](maxAlerts, now), accepted: newLRU[netip.Addr, struct{}](maxAccepted, now)}
}

// refused counts one alert of a client for what learned entry e would be about, and returns how many there were. It is not counted
// where one has been just before.
func (p *pins) refused(key string, now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, known := p.alerts.get(key)
	if known && now.Sub(a.last) < alertBurst {
		return a.n
	}
	a = alerts{a.n + 1, now}
	p.alerts.put(key, a, now.Add(alertWindow))
	return a.n
}

// pinned looks at how the handshake with a client ended that was given a leaf for a verified origin, and has connections
// of this client to this name passed through where it has refused our certificates often enough.
func (i *Interceptor) pinned(t Target, name string, err error) {
	client := clientOf(t)
	if i.cfg.PinnedAlerts == 0 || !client.IsValid() {
		return
	}
	e := Learned{Host: learnedKey(name, t), Client: client.String()}
	if err == nil {
		i.pins.accepted.put(client, struct{}{}, i.now().Add(acceptedLife))
		i.pins.alerts.drop(e.key())
		return
	}
	alert, ok := certificateAlert(err)
	if !ok {
		return
	}
	if _, ok := i.pins.accepted.get(client); !ok {
		i.log.Warn("a client refused our certificate, and has accepted none so far: is the gateway's CA installed there?",
			"host", e.Host, "client", client, "alert", alert)
		return
	}
	n := i.pins.refused(e.key(), i.now())
	if n < i.cfg.PinnedAlerts {
		i.log.Info("a client that has our CA refused our certificate", "host", e.Host, "client", client, "alert", alert, "times", n)
		return
	}
	i.pins.alerts.drop(e.key())
	e.Reason = fmt.Sprintf("the client refused our certificate %d times (%s)", n, alert)
	e.Until = i.now().Add(i.cfg.Pinned.Std()).Truncate(time.Second)
	i.learned.add(e)
	i.log.Warn("a client keeps refusing our certificates for one host: its connections there are passed through unopened",
		"host", e.Host, "client", client, "alert", alert, "until", e.Until.Format(time.RFC3339))
}

// clientOf returns the address of a target's client, in its one form.
func clientOf(t Target) netip.Addr { return t.Client.Addr().Unmap().WithZone("") }
