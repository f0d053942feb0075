package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options are what a Dialer is given besides its settings.
type Options struct {
	AllowPrivate bool                    // loopback, link-local, private and metadata addresses may be dialled
	Own          func() []netip.AddrPort // the addresses that this gateway listens on; asked at every dial, may be nil
	Resolver     *net.Resolver           // nil: the system's
	ParentTLS    *tls.Config             // for an https:// parent; nil: the system's roots
}

// Dialer opens connections to the outside. It is safe for use by many goroutines.
type Dialer struct {
	cfg    Config
	opt    Options
	parent *url.URL
	strict string // why no private address is dialled, whatever AllowPrivate says; empty: that says it

	mu     sync.Mutex
	making map[string]int // dials in the making, by host:port
}

// New returns a Dialer, and an error when cfg cannot be used.
func New(cfg Config, opt Options) (*Dialer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	parent, err := parseParent(cfg.Parent)
	if err != nil {
		return nil, fmt.Errorf("parent: %w", err)
	}
	return &Dialer{cfg: cfg, opt: opt, parent: parent, making: map[string]int{}}, nil
}

// PublicOnly returns a Dialer of the same settings that connects to no private address, whatever AllowPrivate says: it is for
// places that neither a user nor the operator has named. why ends the errors about such addresses. Where a parent proxy resolves
// the names, only literal addresses can be judged.
func (d *Dialer) PublicOnly(why string) *Dialer {
	return &Dialer{cfg: d.cfg, opt: d.opt, parent: d.parent, strict: why, making: map[string]int{}}
}

// ParentURL returns the parent proxy with its credentials, nil where there is none. Requests for http:// URLs go to it in
// absolute form (RFC 9112, 3.2.2) over a connection of DialParent.
func (d *Dialer) ParentURL() *url.URL {
	if d.parent == nil {
		return nil
	}
	u := *d.parent
	return &u
}

// Dial connects to hostport, "host:port" with a name or an IP address, through the parent proxy where there is one. Each
// address is judged when it is dialled, so a name that changes its address between two look-ups gains nothing. The error
// is an *Error.
func (d *Dialer) Dial(ctx context.Context, hostport string) (net.Conn, error) {
	return d.bounded(ctx, hostport, func(ctx context.Context) (net.Conn, error) {
		if d.parent != nil {
			if err := d.judgeLiteral(hostport); err != nil {
				return nil, err
			}
			return d.dialThroughParent(ctx, hostport)
		}
		return d.direct(hostport, d.judge).DialContext(ctx, "tcp", hostport)
	})
}

// DialParent connects to the parent proxy itself, for http:// requests. It must not be called where ParentURL is nil. The
// error is an *Error of kind Parent or Timeout. The caller names the origin, so that a literal private address is refused
// on this way too; the parent judges names.
func (d *Dialer) DialParent(ctx context.Context, origin string) (net.Conn, error) {
	return d.bounded(ctx, d.parent.Host, func(ctx context.Context) (net.Conn, error) {
		if err := d.judgeLiteral(origin); err != nil {
			return nil, err
		}
		return d.connectParent(ctx)
	})
}

// bounded runs dial within the time and the number of simultaneous dials allowed, and returns its error as an *Error.
func (d *Dialer) bounded(ctx context.Context, hostport string, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	if err := checkHostport(hostport); err != nil {
		return nil, &Error{Kind: Failed, Addr: hostport, Err: err}
	}
	d.mu.Lock()
	if d.making[hostport] >= d.cfg.MaxDials {
		d.mu.Unlock()
		return nil, &Error{
			Kind: Failed, Addr: hostport,
			Err: fmt.Errorf("%d connections to it are in the making already (max_dials)", d.cfg.MaxDials),
		}
	}
	d.making[hostport]++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		if d.making[hostport]--; d.making[hostport] == 0 {
			delete(d.making, hostport)
		}
		d.mu.Unlock()
	}()

	ctx, cancel := context.WithTimeout(ctx, d.cfg.DialTimeout.Std())
	defer cancel()
	c, err := dial(ctx)
	if err != nil {
		return nil, &Error{Kind: classify(err), Addr: hostport, Err: err}
	}
	return c, nil
}

// direct returns a dialler that asks judge about every address before it is connected to.
func (d *Dialer) direct(hostport string, judge func(netip.AddrPort) error) *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: d.cfg.KeepAlive.Std(), Interval: d.cfg.KeepAlive.Std()},
		Resolver:        d.opt.Resolver,
		ControlContext: func(_ context.Context, _, address string, raw syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("address %q of %s cannot be judged: %w", address, hostport, err)
			}
			if err := judge(ap); err != nil || d.cfg.Mark == 0 {
				return err
			}
			return setMark(raw, d.cfg.Mark)
		},
	}
}

// setMark has the packets of a socket carry the gateway's mark. A connection without it would be led back to the gateway.
func setMark(raw syscall.RawConn, mark uint32) error {
	var err error
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) }); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("[egress] mark cannot be set: %w: it takes root or CAP_NET_ADMIN", err)
	}
	return nil
}

// judgeLiteral judges hostport where its host is an IP address, or a name that stands for the loopback (RFC 6761, 6.3). It is
// what can be judged where the parent proxy resolves the names.
func (d *Dialer) judgeLiteral(hostport string) error {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return d.judge(netip.AddrPortFrom(a, uint16(n)))
	}
	if name := "." + strings.ToLower(strings.TrimSuffix(host, ".")); strings.HasSuffix(name, ".localhost") {
		return d.judge(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(n)))
	}
	return nil
}

func checkHostport(hostport string) error {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not a TCP port", port)
	}
	if host == "" {
		return errors.New("the host is missing")
	}
	return nil
}

// classify returns the kind of a dial's error.
func classify(err error) Kind {
	var (
		forbidden *forbiddenError
		parent    *parentError
		dns       *net.DNSError
		ne        net.Error
	)
	switch {
	case errors.As(err, &forbidden):
		return Forbidden
	case errors.As(err, &parent):
		return parent.kind
	case errors.As(err, &dns):
		return NoName
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout(), errors.Is(err, syscall.ETIMEDOUT):
		return Timeout
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EHOSTUNREACH),
		errors.Is(err, syscall.ENETUNREACH):
		return Refused
	}
	return Failed
}
