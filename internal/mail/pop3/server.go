package pop3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/intercept"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/spool"
)

// Interceptor opens TLS with clients and servers; *intercept.Interceptor is one.
type Interceptor interface {
	Accept(ctx context.Context, client net.Conn, t intercept.Target) (*intercept.Session, error)
	Open(ctx context.Context, t intercept.Target) (*tls.Conn, error)
}

// Dialer connects to servers; *egress.Dialer is one. It refuses the gateway's own listeners.
type Dialer interface {
	Dial(ctx context.Context, hostport string) (net.Conn, error)
}

// Letter is a message that may be delivered, and has not been begun but for its first fields.
type Letter struct {
	Facts     policy.Facts
	Reference string // that its record has
	Body      *spool.Blob
	// Fixed is how much of its beginning the client may have been sent: nothing may be changed there. A field begins behind it.
	Fixed int
	// Clean says that every engine called it clean; otherwise a policy lets it pass.
	Clean bool
}

// Unwanted is the error of an Editor for a message that must not be delivered: a notice stands in its place.
type Unwanted struct {
	What   string // is told to the recipient: "setup.exe"
	Detail string // is for the log
}

// Error implements error.
func (u *Unwanted) Error() string { return u.What + ": " + u.Detail }

// Editor changes messages that may be delivered: attachment rules, spam marks. It is called by many goroutines, while the
// client is kept waiting.
type Editor interface {
	// Edit returns what is given to the client instead of l.Body: that itself, or another blob, which the relay closes. An
	// *Unwanted has the message replaced; any other error has it deferred.
	Edit(ctx context.Context, l Letter) (*spool.Blob, error)
}

// Options are a Server's parts.
type Options struct {
	Gate        *gate.Gate
	Interceptor Interceptor
	Dialer      Dialer
	Replacer    Replacer // nil: a short English text
	Editor      Editor   // nil: clean messages are not changed
	Log         *slog.Logger

	awake time.Duration // how often a server hears something while a message of it is scanned; 0: awakeEvery
}

// cutOffGrace is how long a session may take to notice that it was cut off.
const cutOffGrace = 3 * time.Second

// Server relays POP3. It is safe for use by many goroutines.
type Server struct {
	opt Options
	set atomic.Pointer[settings]

	ctx    context.Context // ends with the last second of a shutdown
	cancel context.CancelFunc
	grace  time.Duration // for sessions that were cut off

	mu        sync.Mutex
	closed    bool // no connection is taken any more
	draining  bool // no session begins any more either, and those that there are end soon
	listeners []net.Listener
	sessions  map[*session]struct{}
	clients   map[netip.Addr]int
	open      int
	wg        sync.WaitGroup
}

// settings is a Config with what was read from it.
type settings struct {
	Config
	upstream server
	logins   []allowedServer
	allowed  []netip.Prefix
}

// New returns a Server, and an error when cfg cannot be used.
func New(cfg Config, opt Options) (*Server, error) {
	if opt.Replacer == nil {
		opt.Replacer = plainReplacer{}
	}
	if opt.awake == 0 {
		opt.awake = awakeEvery
	}
	s := &Server{opt: opt, sessions: map[*session]struct{}{}, clients: map[netip.Addr]int{}, grace: cutOffGrace}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.Use(cfg); err != nil {
		return nil, err
	}
	return s, nil
}

// Use puts other settings in force, for sessions that begin from now on. Addresses to listen on are not the Server's.
func (s *Server) Use(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	next := &settings{Config: cfg}
	var errs [3]error
	next.upstream, errs[0] = parseUpstream(cfg.Upstream)
	next.logins, errs[1] = parseServers(cfg.LoginServers)
	next.allowed, errs[2] = parseNets(cfg.AllowClients)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	s.set.Store(next)
	return nil
}

// Serve takes connections from l until Shutdown, and then returns nil. Redirected ones know where they wanted to go, where l
// is a transparent *listen.Listener.
func (s *Server) Serve(l net.Listener) error { return s.accept(l, false) }

// ServeTLS is Serve for connections that begin with TLS.
func (s *Server) ServeTLS(l net.Listener) error { return s.accept(l, true) }

func (s *Server) accept(l net.Listener, tls bool) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = l.Close() // nobody accepts from it
		return nil
	}
	s.listeners = append(s.listeners, l)
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	for {
		nc, err := l.Accept()
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
			s.wg.Add(1) // before it has a place: who waits for the last session must not miss it
			go func() {
				defer s.wg.Done()
				s.serve(nc, tls)
			}()
		case s.isClosed():
			return nil
		case errors.As(err, &temporary) && temporary.Temporary():
			s.opt.Log.Warn("accepting a POP3 connection", "error", err)
			time.Sleep(50 * time.Millisecond) // file descriptors run out, and come back
		default:
			return fmt.Errorf("accepting on %v: %w", l.Addr(), err)
		}
	}
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Sessions returns how many sessions there are now.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// Drain takes no connection any more, and returns when the sessions that there are have ended by themselves: it is for a
// gateway whose listeners another process serves already, so that nobody needs to be hurried. When ctx ends first, the
// sessions go on, and the error is the context's; a Shutdown follows either way.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // it accepts nothing more either way
	}
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("POP3: sessions go on: %w", ctx.Err())
	}
}

// Shutdown takes nothing new, ends the sessions whose client is silent, lets a message that is under way reach its end, and
// returns when all have ended. When ctx ends first, the rest is cut off, and the error is the context's: a few seconds later it
// returns even where a session has not ended then.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed, s.draining = true, true
	listeners := s.listeners
	for x := range s.sessions {
		x.hurry()
	}
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // it accepts nothing more either way
	}
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	defer s.cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	s.mu.Lock()
	for x := range s.sessions {
		x.cutOff()
	}
	s.mu.Unlock()
	select {
	case <-done:
		return fmt.Errorf("POP3: sessions were cut off: %w", ctx.Err())
	case <-time.After(s.grace):
		return fmt.Errorf("POP3: %d sessions were cut off, and have not ended: %w", s.Sessions(), ctx.Err())
	}
}

// clientKey is what a client is counted by.
func clientKey(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// enter gives a session a place. why says what is in the way.
func (s *Server) enter(x *session) (why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := clientKey(x.facts.Client)
	switch {
	case s.draining:
		return "the gateway is ending"
	case s.open >= x.set.MaxSessions:
		return "max_sessions is reached"
	case s.clients[key] >= x.set.MaxPerClient:
		return "max_sessions_per_client is reached"
	}
	s.open++
	s.clients[key]++
	s.sessions[x] = struct{}{}
	return ""
}

func (s *Server) leave(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := clientKey(x.facts.Client)
	s.open--
	if s.clients[key]--; s.clients[key] == 0 {
		delete(s.clients, key)
	}
	delete(s.sessions, x)
}

// serve serves one connection, and closes it.
func (s *Server) serve(nc net.Conn, tls bool) {
	x := &session{s: s, set: s.set.Load(), log: s.opt.Log}
	x.facts = policy.Facts{Protocol: "pop3", Direction: policy.Download, Client: addrOf(nc.RemoteAddr()).Addr()}
	x.clientAddr = addrOf(nc.RemoteAddr())
	x.client = newPeer(nc, clientBuffer, x.set.ReplyTimeout.Std())
	defer func() {
		if x.up != nil {
			_ = x.up.conn.Close() // however the session ended: servers open a mailbox for one, or for a few
		}
		_ = x.client.conn.Close() // whatever there was to say was said
	}()
	defer func() {
		if p := recover(); p != nil {
			n := s.opt.Gate.Refuse(x.facts, notice.Internal, "", fmt.Sprintf("panic: %v", p))
			s.opt.Log.Error("a POP3 session panicked", "reference", n.Reference, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if !x.set.allows(x.facts.Client) {
		x.refuse(notice.ForbiddenClient, permanent, "this address is not served here", fmt.Sprintf("%v is in none of allow_clients", x.facts.Client))
		return
	}
	if why := s.enter(x); why != "" {
		x.refuse(notice.Overload, temporary, "too many connections at the moment", why)
		return
	}
	defer s.leave(x)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	x.run(ctx, tls)
}

func (s *settings) allows(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return len(s.allowed) == 0 || slices.ContainsFunc(s.allowed, func(p netip.Prefix) bool { return p.Contains(a) })
}

func addrOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
