package intercept

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"
)

// The bounds of coupled sessions. A ticket of TLS 1.3 lives for seven days at most (RFC 8446, 4.6.1); browsers hold theirs
// for about a day.
const (
	sessionLife   = 24 * time.Hour
	keyEvery      = 8 * time.Hour
	keysKept      = 4 // so that a ticket outlives its session's memory
	ticketsKept   = 4 // of one origin, for one browser session
	sessionIDSize = 16
)

// extraMark is how our entry in a SessionState's Extra begins; others may be there.
var extraMark = []byte("lazaret coupling 1\x00")

type sessionID [sessionIDSize]byte

// sessions couples TLS sessions: each one of a browser with its own one of an origin, over resumptions on both sides. A
// browser's ticket carries the id of its session, bound to everything that the session was decided by; the origin's
// tickets wait here under that id. Without an entry here a browser's ticket is worth nothing, and a full handshake is made
// on both sides. Only where gateways share their keys the browser resumes what began at another one, and the full handshake
// with the origin begins a session for it here. So no origin ever sees two browsers in one session, and no browser is spared a look at its origin.
type sessions struct {
	now   func() time.Time
	epoch [32]byte // of these settings: a ticket does not outlive them
	store *lru[sessionID, *originTickets]

	mu   sync.Mutex
	conf *tls.Config // has the ticket keys
	keys *ticketKeys
}

// newSessions returns a store of at most size sessions. Where the keys are shared, settings stands for all that tickets are
// given out by, so that they are good wherever it is the same; otherwise they are good here only.
func newSessions(size int, keys *ticketKeys, settings [32]byte, now func() time.Time) (*sessions, error) {
	s := &sessions{now: now, store: newLRU[sessionID, *originTickets](size, now), keys: keys, epoch: settings, conf: &tls.Config{MinVersion: tls.VersionTLS12}}
	if !keys.shared() {
		if _, err := rand.Read(s.epoch[:]); err != nil {
			return nil, fmt.Errorf("making the sessions' epoch: %w", err)
		}
	}
	_, err := s.ticketConfig()
	return s, err
}

// ticketConfig returns what tickets are sealed and opened with. A new key is made when one is due.
func (s *sessions) ticketConfig() (*tls.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, err := s.keys.next()
	if err != nil {
		return nil, err
	}
	if keys != nil {
		s.conf.SetSessionTicketKeys(keys)
	}
	return s.conf, nil
}

// binding returns what a session was decided by: the name, the destination, the client, its user, and the settings.
func (s *sessions) binding(name string, t Target) [32]byte {
	h := sha256.New()
	h.Write(s.epoch[:])
	for _, part := range []string{name, t.Host, t.Addr.String(), t.Client.Addr().String(), t.User} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	h.Write(binary.BigEndian.AppendUint16(nil, t.Port))
	return [32]byte(h.Sum(nil))
}

// originTickets are the sessions that an origin has given to one browser session. Those of TLS 1.3 are used once each
// (RFC 8446, C.4); the one of TLS 1.2 as often as the origin takes it.
type originTickets struct {
	mu    sync.Mutex
	tls12 *tls.ClientSessionState
	tls13 []*tls.ClientSessionState
}

func (o *originTickets) take() *tls.ClientSessionState {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.tls13); n > 0 {
		cs := o.tls13[n-1]
		o.tls13 = o.tls13[:n-1]
		return cs
	}
	return o.tls12
}

func (o *originTickets) add(version uint16, cs *tls.ClientSessionState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if version < tls.VersionTLS13 {
		o.tls12, o.tls13 = cs, nil
		return
	}
	o.tls12 = nil
	if o.tls13 = append(o.tls13, cs); len(o.tls13) > ticketsKept {
		o.tls13 = append([]*tls.ClientSessionState(nil), o.tls13[1:]...)
	}
}

func (o *originTickets) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tls12, o.tls13 = nil, nil
}

func (o *originTickets) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tls12 == nil && len(o.tls13) == 0
}

// coupling is the browser session of one connection, and what its origin's side may resume.
type coupling struct {
	s       *sessions
	binding [32]byte
	freshID sessionID
	fresh   *originTickets

	// What the client's ticket stands for; state is nil where it brought none that is good.
	oldID  sessionID
	old    *originTickets
	state  *tls.SessionState
	ticket []byte
}

// couple looks at the tickets that a client brought for a connection that was decided by b.
func (s *sessions) couple(tickets [][]byte, binding [32]byte) (*coupling, error) {
	c := &coupling{s: s, binding: binding, fresh: &originTickets{}}
	if _, err := rand.Read(c.freshID[:]); err != nil {
		return nil, fmt.Errorf("making a session id: %w", err)
	}
	conf, err := s.ticketConfig()
	if err != nil {
		return nil, err
	}
	for _, ticket := range tickets {
		state, err := conf.DecryptTicket(ticket, tls.ConnectionState{})
		if err != nil || state == nil {
			continue // another server's, or of a key that is gone: as good as none
		}
		id, ok := idOf(state, binding)
		if !ok {
			continue
		}
		if old, ok := s.store.get(id); ok && !old.empty() {
			c.oldID, c.old, c.state, c.ticket = id, old, state, ticket
			break
		}
		if s.keys.shared() && c.state == nil {
			c.state, c.ticket = state, ticket // and c.old stays nil: what the origin resumes is not here
		}
	}
	return c, nil
}

// idOf returns the id in a ticket that is bound to what the connection was decided by.
func idOf(state *tls.SessionState, binding [32]byte) (id sessionID, ok bool) {
	for _, extra := range state.Extra {
		rest, ours := bytes.CutPrefix(extra, extraMark)
		if !ours || len(rest) != len(binding)+sessionIDSize {
			continue
		}
		if subtle.ConstantTimeCompare(rest[:len(binding)], binding[:]) == 1 {
			return sessionID(rest[len(binding):]), true
		}
	}
	return id, false
}

// serve completes the settings of the client's side: its ticket is good where the origin has resumed too, and the tickets
// that it gets lead back here.
func (c *coupling) serve(conf *tls.Config, originResumed bool) {
	conf.UnwrapSession = func(identity []byte, _ tls.ConnectionState) (*tls.SessionState, error) {
		if (originResumed || c.old == nil) && c.state != nil && bytes.Equal(identity, c.ticket) {
			return c.state, nil
		}
		return nil, nil
	}
	conf.WrapSession = func(cs tls.ConnectionState, state *tls.SessionState) ([]byte, error) {
		id := c.freshID
		if cs.DidResume && c.old != nil {
			id = c.oldID
		}
		state.Extra = slices.DeleteFunc(state.Extra, func(e []byte) bool { return bytes.HasPrefix(e, extraMark) })
		state.Extra = append(state.Extra, slices.Concat(extraMark, c.binding[:], id[:]))
		keys, err := c.s.ticketConfig()
		if err != nil {
			return nil, err
		}
		return keys.EncryptTicket(cs, state)
	}
}

// origin returns the cache for the origin's first connection: it offers what the client's ticket stands for.
func (c *coupling) origin() *originCache { return &originCache{c: c, offer: c.old, resumed: c.old} }

// again returns the cache for a further connection of the same browser session.
func (c *coupling) again(resumed bool) *originCache {
	if resumed && c.old != nil {
		return &originCache{c: c, offer: c.old, resumed: c.old}
	}
	return &originCache{c: c, offer: c.fresh, resumed: c.fresh}
}

// anew returns the cache for a connection that must begin a session of its own.
func (c *coupling) anew() *originCache { return &originCache{c: c} }

// keep stores what the origin has given to a fresh session.
func (c *coupling) keep() {
	c.s.store.put(c.freshID, c.fresh, c.s.now().Add(sessionLife))
}

// originCache is the ClientSessionCache of one connection to an origin.
type originCache struct {
	c       *coupling
	offer   *originTickets // what may be resumed; nil: nothing
	resumed *originTickets // where new tickets go if it was

	mu        sync.Mutex
	version   uint16
	didResume bool
}

// verified notes how the handshake went. It is called by VerifyConnection, before any ticket arrives.
func (o *originCache) verified(cs tls.ConnectionState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.version, o.didResume = cs.Version, cs.DidResume
}

// hasResumed says whether the origin took up the session that was offered.
func (o *originCache) hasResumed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.didResume
}

// Get implements tls.ClientSessionCache.
func (o *originCache) Get(string) (*tls.ClientSessionState, bool) {
	if o.offer == nil {
		return nil, false
	}
	cs := o.offer.take()
	return cs, cs != nil
}

// Put implements tls.ClientSessionCache.
func (o *originCache) Put(_ string, cs *tls.ClientSessionState) {
	if cs == nil { // the offered one was expired
		if o.offer != nil {
			o.offer.forget()
		}
		return
	}
	o.mu.Lock()
	version, resumed := o.version, o.didResume
	o.mu.Unlock()
	if resumed && o.resumed != nil {
		o.resumed.add(version, cs)
		return
	}
	o.c.fresh.add(version, cs)
	o.c.keep()
}
