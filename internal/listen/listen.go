package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits counts connections, in all and by client. Several listeners may share one. It is safe for use by many
// goroutines.
type Limits struct {
	mu        sync.Mutex
	total     int
	each      map[netip.Addr]int
	maxTotal  int
	maxClient int
}

// NewLimits returns limits of total connections, and client connections for each client address.
func NewLimits(total, client int) *Limits {
	return &Limits{each: map[netip.Addr]int{}, maxTotal: total, maxClient: client}
}

// Set changes the limits. Connections that are there stay.
func (l *Limits) Set(total, client int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.maxTotal, l.maxClient = total, client
}

// Open returns the number of connections that are counted now.
func (l *Limits) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// client returns what a client is counted by: its IPv4 address, or the /64 of IPv6, of which one host has all addresses.
func client(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, err := a.Prefix(64)
		if err == nil {
			return p.Addr()
		}
	}
	return a
}

// enter takes a place for a connection of a. The reason is empty where there was one; leave gives it back, once.
func (l *Limits) enter(a netip.Addr) (leave func(), reason string) {
	a = client(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.maxTotal {
		return nil, fmt.Sprintf("there are %d connections, which is the limit (max_connections)", l.total)
	}
	if l.each[a] >= l.maxClient {
		return nil, fmt.Sprintf("the client has %d connections, which is the limit for one (max_per_client)", l.each[a])
	}
	l.total++
	l.each[a]++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.total--
		if l.each[a]--; l.each[a] == 0 {
			delete(l.each, a)
		}
	}), ""
}

// Options are what a Listener is given besides its settings.
type Options struct {
	Logger      *slog.Logger // nil: slog.Default
	Limits      *Limits      // shared with other listeners; nil: its own
	Transparent bool         // traffic is redirected here: connections know their original destination
	// OnShortage is called when there is no file descriptor for a connection: it closes some that are not needed. nil: nothing is.
	OnShortage func()
}

// Listener accepts connections within limits. Accept may be called by one goroutine at a time; everything else by many.
type Listener struct {
	net.Listener
	cfg     Config
	opt     Options
	trusted []netip.Prefix
	address string // as the settings have it
	refused atomic.Int64
	faults  atomic.Int64
	// stopping says that nothing more is accepted, though the socket stays open.
	stopping atomic.Bool

	accepted chan accepted
	done     chan struct{}
	once     sync.Once
	wg       sync.WaitGroup
}

type accepted struct {
	conn *Conn
	err  error
}

// Listen opens address, as CheckAddress has it: one listener, or for "systemd:NAME" as many as the unit has under that
// name.
func Listen(ctx context.Context, address string, cfg Config, opt Options) ([]*Listener, error) {
	if err := errors.Join(cfg.Validate(), CheckAddress(address)); err != nil {
		return nil, err
	}
	lns, err := fromBefore(address)
	if err != nil {
		return nil, err
	}
	if name, ok := strings.CutPrefix(address, systemdPrefix); ok && len(lns) == 0 {
		if lns, err = fromSystemd(name); err != nil {
			return nil, err
		}
	} else if len(lns) == 0 {
		ln, err := open(ctx, address, cfg, opt)
		if err != nil {
			return nil, fmt.Errorf("listening on %s: %w", address, explain(err))
		}
		lns = append(lns, ln)
	}
	var out []*Listener
	for _, ln := range lns {
		l, err := New(ln, cfg, opt)
		if err != nil {
			return nil, err
		}
		l.address = address
		out = append(out, l)
	}
	return out, nil
}

// open opens a TCP socket. Where traffic is redirected by TPROXY it has to be transparent, for which a privilege is
// needed (CAP_NET_ADMIN); without it REDIRECT still works.
func open(ctx context.Context, address string, cfg Config, opt Options) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: cfg.KeepAlive.Std(), Interval: cfg.KeepAlive.Std()}}
	if opt.Transparent {
		lc.Control = func(network, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { setTransparent(int(fd), network) })
		}
	}
	return lc.Listen(ctx, "tcp", address)
}

// explain adds what to do to the errors that people meet.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another program listens there, or another lazaret: end it, or choose another address", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE, or a systemd socket)", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: this machine does not have that address", err)
	}
	return err
}

// New returns a Listener that takes its connections from ln, which it closes in the end.
func New(ln net.Listener, cfg Config, opt Options) (*Listener, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	trusted, err := parseNets(cfg.ProxyProtocol)
	if err != nil {
		return nil, err
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.Limits == nil {
		opt.Limits = NewLimits(cfg.MaxConnections, cfg.MaxPerClient)
	}
	l := &Listener{Listener: ln, cfg: cfg, opt: opt, trusted: trusted, accepted: make(chan accepted), done: make(chan struct{})}
	l.wg.Go(l.run)
	return l, nil
}

// Refused returns how many connections were closed at once because of a limit, and Faulty how many because their PROXY
// protocol header was missing or wrong.
func (l *Listener) Refused() int64 { return l.refused.Load() }

// Faulty is described at Refused.
func (l *Listener) Faulty() int64 { return l.faults.Load() }

// Accept implements net.Listener. The connections are *Conn. The error is net.ErrClosed after Close; lack of resources is
// waited out and not reported.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		if a.err != nil {
			return nil, a.err
		}
		return a.conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections that were accepted go on.
func (l *Listener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		close(l.done)
		err = l.Listener.Close()
		l.wg.Wait()
	})
	return err
}

// The back-off after a failed accept, and how often refusals are logged.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
	logEvery   = 10 * time.Second
)

// run accepts until the listener is closed.
func (l *Listener) run() {
	backoff := time.Duration(0)
	var logged time.Time
	for {
		c, err := l.Listener.Accept()
		if err == nil {
			backoff = 0
			l.take(c, &logged)
			continue
		}
		if l.stopping.Load() {
			return
		}
		if errors.Is(err, net.ErrClosed) || !temporary(err) {
			l.hand(accepted{err: err})
			return
		}
		if l.opt.OnShortage != nil && (errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)) {
			l.opt.OnShortage()
		}
		if backoff = min(max(backoff*2, minBackoff), maxBackoff); time.Since(logged) > logEvery {
			logged = time.Now()
			l.opt.Logger.Error("connections cannot be accepted at the moment; trying on", "listener", l.Addr(), "error", err)
		}
		select {
		case <-time.After(backoff):
		case <-l.done:
			return
		}
	}
}

// temporary says whether an error of accept(2) is worth waiting for: a client that went away meanwhile, or a lack of file
// descriptors or memory.
func temporary(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET,
		syscall.EPROTO, syscall.EPERM, syscall.EINTR, syscall.ENETDOWN, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// take finds a place for a connection, or closes it.
func (l *Listener) take(c net.Conn, logged *time.Time) {
	peer := addrPort(c.RemoteAddr())
	leave, reason := l.opt.Limits.enter(peer.Addr())
	if reason != "" {
		_ = c.Close() // there is no place for a word more
		if l.refused.Add(1); time.Since(*logged) > logEvery {
			*logged = time.Now()
			l.opt.Logger.Warn("a connection was refused", "client", peer, "listener", l.Addr(), "reason", reason, "refused", l.refused.Load())
		}
		return
	}
	conn := &Conn{Conn: c, peer: peer, local: addrPort(c.LocalAddr()), leave: leave}
	if l.opt.Transparent {
		conn.original = originalDestination(c, conn.local)
	}
	if !l.trusts(peer.Addr()) {
		l.hand(accepted{conn: conn})
		return
	}
	// The header is read aside: a load balancer that stalls holds up nobody else.
	l.wg.Go(func() {
		if err := l.readHeader(conn); err != nil {
			l.faults.Add(1)
			l.opt.Logger.Warn("a connection of a load balancer was closed", "from", peer, "listener", l.Addr(), "error", err)
			_ = conn.Close()
			return
		}
		l.hand(accepted{conn: conn})
	})
}

// hand gives a connection to Accept, or closes it where nobody will ask any more.
func (l *Listener) hand(a accepted) {
	select {
	case l.accepted <- a:
	case <-l.done:
		if a.conn != nil {
			_ = a.conn.Close() // nothing was begun on it
		}
	}
}

// trusts says whether a peer's PROXY protocol headers are believed.
func (l *Listener) trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range l.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// addrPort returns a TCP address, unmapped.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
