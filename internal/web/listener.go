package web

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"lazaret/internal/idle"

	"lazaret/internal/notice"
)

// limiter counts the connections of clients.
type limiter struct {
	mu        sync.Mutex
	total     int
	each      map[netip.Addr]int
	max       int
	maxClient int
}

func newLimiter() *limiter { return &limiter{each: map[netip.Addr]int{}} }

func (l *limiter) set(maxTotal, maxClient int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.max, l.maxClient = maxTotal, maxClient
}

// enter takes a place for a connection of addr, and says whether there was one. leave gives it back, once.
func (l *limiter) enter(addr netip.Addr) (leave func(), ok bool) {
	addr = counted(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.max || l.each[addr] >= l.maxClient {
		return nil, false
	}
	l.total++
	l.each[addr]++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.total--
		if l.each[addr]--; l.each[addr] <= 0 {
			delete(l.each, addr)
		}
	}), true
}

// count returns the number of connections.
func (l *limiter) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// counted returns what a client is counted by: its address, or the /64 of IPv6, of which one machine has all addresses.
func counted(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// takeProxied serves a connection of an explicit-proxy client: it gets a place, or is turned away. Those who may not use the proxy get none,
// so that they cannot take anybody's.
func (s *Server) takeProxied(nc net.Conn) {
	c := &client{addr: addrPort(nc.RemoteAddr()), local: addrPort(nc.LocalAddr()), scheme: "http", born: time.Now()}
	if !s.settings.Load().allows(c.addr.Addr()) {
		s.turnAway(nc, c, notice.ForbiddenClient, "this address may not use the proxy", forbidden(c.addr.Addr()))
		return
	}
	leave, ok := s.limits.enter(c.addr.Addr())
	if !ok {
		s.turnAway(nc, c, notice.Overload, "too many connections", "max_connections or max_connections_per_client is reached")
		return
	}
	c.conn = &placedConn{Conn: nc, leave: leave}
	s.serveVisit(c)
}

// placedConn gives its place back when it is closed, whoever has it then.
type placedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *placedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite ends the sending side.
func (c *placedConn) CloseWrite() error { return closeWrite(c.Conn) }

// TCPConn returns the TCP connection below, for internal/relay to splice; nil where there is none.
func (c *placedConn) TCPConn() *net.TCPConn { return idle.TCPBelow(c.Conn) }

func closeWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return c.Close()
}

// feed is the listener that net/http's servers take their connections from.
type feed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newFeed() *feed { return &feed{conns: make(chan net.Conn), done: make(chan struct{})} }

// serve hands c over; it says false when the server takes nothing more.
func (f *feed) serve(c net.Conn) bool {
	select {
	case f.conns <- c:
		return true
	case <-f.done:
		return false
	}
}

// Accept implements net.Listener.
func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, http.ErrServerClosed
	}
}

// Close implements net.Listener.
func (f *feed) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

// Addr implements net.Listener.
func (f *feed) Addr() net.Addr { return feedAddr{} }

type feedAddr struct{}

func (feedAddr) Network() string { return "inside" }
func (feedAddr) String() string  { return "connections opened by the gateway" }
