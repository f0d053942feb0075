package intercept

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// The bounds of what is asked of tunnel zones. After zoneBreak failures in a row a zone is left alone for zonePause, and
// then one question tries whether it is back.
const (
	zoneEntries = 20_000
	zoneAtOnce  = 64
	zoneBreak   = 5
	zonePause   = 15 * time.Second
	zoneMinTTL  = time.Second
	zoneMaxTTL  = 24 * time.Hour
	zoneMaxNo   = time.Hour       // for "not listed"
	zoneFailed  = 5 * time.Second // for a question without an answer
)

// zoneErrors is where DNS lists answer that they do not want to tell, such as to a resolver that asks too much. It is no
// listing: otherwise a quota would have everything passed through.
var (
	zoneListed = netip.MustParsePrefix("127.0.0.0/8")
	zoneErrors = netip.MustParsePrefix("127.255.255.0/24")
)

// zones are the tunnel lists that are kept in DNS.
type zones struct {
	names    []string
	breakers []breaker // one for each
	resolver *resolver
	log      *slog.Logger
	now      func() time.Time
	cache    *lru[string, bool]
	flight   singleflight.Group
	places   chan struct{}

	asked, failed, skipped atomic.Int64
}

// ZoneStats are counts of the look-ups in the tunnel zones since the start.
type ZoneStats struct {
	Asked   int64 // questions to DNS
	Failed  int64 // of these, without an answer that can be used
	Skipped int64 // not asked, as the zone has failed lately or too many questions were under way
	Cached  int   // answers in memory
}

var errZoneDown = errors.New("the zone is left alone for a while, as it did not answer")

func newZones(names []string, r *resolver, log *slog.Logger, now func() time.Time) (*zones, error) {
	z := &zones{resolver: r, log: log, now: now, cache: newLRU[string, bool](zoneEntries, now), places: make(chan struct{}, zoneAtOnce)}
	for _, n := range names {
		name, err := parseZone(n)
		if err != nil {
			return nil, err
		}
		z.names = append(z.names, name)
	}
	z.breakers = make([]breaker, len(z.names))
	return z, nil
}

// parseZone returns the name of a zone as it is asked for.
func parseZone(s string) (string, error) {
	name, err := canonicalHost(strings.TrimPrefix(s, "."))
	if _, isAddr := netip.ParseAddr(name); err != nil || name == "" || isAddr == nil {
		return "", fmt.Errorf("%q is not the name of a DNS zone, such as \"tunnel.gateway.example\"", s)
	}
	return name, nil
}

// match returns a zone that lists a canonical host: a name as it is, an address in reverse. All are asked at the same time, so
// that several which do not answer are waited for no longer than one. A zone that does not answer in time lists nothing.
func (z *zones) match(ctx context.Context, host string) (zone string, ok bool) {
	if len(z.names) == 0 || host == "" {
		return "", false
	}
	label := host
	if a, err := netip.ParseAddr(host); err == nil {
		label = reversed(a)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the first that lists it is enough
	waiting, answers := 0, make(chan string, len(z.names))
	for n, zone := range z.names {
		yes, answer := z.listed(n, label+"."+zone)
		switch {
		case yes:
			return zone, true
		case answer != nil:
			waiting++
			go func() {
				if answer(ctx) {
					answers <- zone
				} else {
					answers <- ""
				}
			}()
		}
	}
	for range waiting {
		if zone := <-answers; zone != "" {
			return zone, true
		}
	}
	return "", false
}

// reversed returns an address as DNS lists are asked for it (RFC 5782, 2.1 and 2.4): the octets of IPv4 or the nibbles of
// IPv6, the last one first.
func reversed(a netip.Addr) string {
	a = a.Unmap()
	var parts []string
	if a.Is4() {
		for _, b := range a.As4() {
			parts = append([]string{strconv.Itoa(int(b))}, parts...)
		}
	} else {
		b := a.As16()
		for _, c := range hex.EncodeToString(b[:]) {
			parts = append([]string{string(c)}, parts...)
		}
	}
	return strings.Join(parts, ".")
}

// listed says whether a name is in a zone. Where that is not known it is asked for, and answer waits for that; nil, it is known.
// Several that ask the same ask once.
func (z *zones) listed(zone int, name string) (yes bool, answer func(context.Context) bool) {
	if len(name) > 253 {
		return false, nil // no such name can be in DNS
	}
	if yes, ok := z.cache.get(name); ok {
		return yes, nil
	}
	br := &z.breakers[zone]
	if !br.closed(z.now()) { // looked at before a goroutine is spent
		z.skipped.Add(1)
		return false, nil
	}
	ch := z.flight.DoChan(name, func() (_ any, err error) {
		defer recovered(z.log, &err)
		// Not the asker's context: others wait for the same, and the answer is worth keeping.
		yes, err := z.ask(context.Background(), br, name)
		if err != nil && !errors.Is(err, errZoneDown) {
			z.log.Warn("a tunnel zone could not be asked: it lists nothing meanwhile", "name", clean(name), "error", err)
		}
		return yes, nil
	})
	return false, func(ctx context.Context) bool {
		select {
		case r := <-ch:
			yes, _ := r.Val.(bool)
			return yes
		case <-ctx.Done():
			return false
		}
	}
}

// ask asks DNS, and remembers the answer.
func (z *zones) ask(ctx context.Context, br *breaker, name string) (bool, error) {
	if yes, ok := z.cache.get(name); ok { // somebody was quicker
		return yes, nil
	}
	select {
	case z.places <- struct{}{}:
		defer func() { <-z.places }()
	default:
		z.skipped.Add(1)
		return false, errors.New("too many questions are under way")
	}
	if !br.enter(z.now()) {
		z.skipped.Add(1)
		return false, errZoneDown
	}
	answered := false
	defer func() { br.leave(z.now(), answered) }()
	z.asked.Add(1)
	a, err := z.resolver.lookup(ctx, name)
	if err == nil && len(a.addrs) > 0 && !zoneListed.Contains(a.addrs[0]) {
		z.log.Warn("a tunnel zone answered with an address that is no listing: is it a zone of that kind, and does the resolver tell the truth?",
			"name", clean(name), "address", a.addrs[0])
	}
	for _, addr := range a.addrs {
		if zoneErrors.Contains(addr) && err == nil {
			err = fmt.Errorf("the zone answered %s, by which such lists say that they will not tell", addr)
		}
	}
	answered = err == nil
	if err != nil {
		z.failed.Add(1)
		z.cache.put(name, false, z.now().Add(zoneFailed))
		return false, err
	}
	yes, ttl := false, zoneMaxNo
	for _, addr := range a.addrs {
		if zoneListed.Contains(addr) {
			yes, ttl = true, zoneMaxTTL
		}
	}
	z.cache.put(name, yes, z.now().Add(max(zoneMinTTL, min(a.ttl, ttl))))
	return yes, nil
}

// stats returns the counts.
func (z *zones) stats() ZoneStats {
	return ZoneStats{Asked: z.asked.Load(), Failed: z.failed.Load(), Skipped: z.skipped.Load(), Cached: z.cache.size()}
}

// breaker keeps traffic from waiting for what has not answered lately.
type breaker struct {
	mu      sync.Mutex
	failed  int       // in a row
	until   time.Time // when the next try may be
	testing bool      // one is under way
}

// closed says whether a question may be asked now.
func (b *breaker) closed(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.may(now)
}

func (b *breaker) may(now time.Time) bool {
	return b.failed < zoneBreak || (!b.testing && !now.Before(b.until))
}

// enter begins a question, if one may be asked; leave has to end it.
func (b *breaker) enter(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.may(now) {
		return false
	}
	b.testing = b.failed >= zoneBreak
	return true
}

// leave ends a question.
func (b *breaker) leave(now time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.testing = false
	if ok {
		b.failed = 0
		return
	}
	b.failed++
	b.until = now.Add(zonePause)
}
