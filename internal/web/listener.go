package web

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
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

// proxyListener takes the connections of explicit-proxy clients: each gets a place, or is turned away. Those who may not use the
// proxy get none, so that they cannot take anybody's.
type proxyListener struct {
	net.Listener
	server *Server
}

// Accept implements net.Listener.
func (l *proxyListener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &client{addr: addrPort(nc.RemoteAddr()), local: addrPort(nc.LocalAddr()), scheme: "http"}
		if !l.server.settings.Load().allows(c.addr.Addr()) {
			l.server.turnAway(nc, c, notice.ForbiddenClient, "this address may not use the proxy", forbidden(c.addr.Addr()))
			continue
		}
		leave, ok := l.server.limits.enter(c.addr.Addr())
		if !ok {
			l.server.turnAway(nc, c, notice.Overload, "too many connections", "max_connections or max_connections_per_client is reached")
			continue
		}
		c.conn = &placedConn{Conn: nc, leave: leave}
		return l.server.newVisit(c), nil
	}
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

// watchedConn is what net/http serves HTTP/1.1 on. It notices the answers that net/http gives by itself to what it
// cannot read, and puts the gateway's pages in their place. It also notices that a connection is idle, and has net/http give
// it up: see park.
type watchedConn struct {
	net.Conn
	server *Server
	owner  *client
	look   lookout

	// These are net/http's goroutine's own while it waits for a request.
	deadline time.Time // what it has set
	sets     int       // how often it has done so since the last request, without reading
	full     int       // the size of its buffer

	parked atomic.Bool // net/http has been told that the connection is at its end
}

// Read implements net.Conn.
func (c *watchedConn) Read(p []byte) (int, error) {
	if c.look.offered(p) {
		return 0, nil // see lookout
	}
	n, err := c.look.take(p), error(nil)
	if n > 0 {
		c.owner.waiting.Store(false)
	} else {
		n, err = c.read(p)
	}
	if n > 0 && c.owner.reading.Load() && !c.owner.lengths.Load() && saysLength(p[:n]) {
		c.owner.lengths.Store(true)
	}
	return n, err
}

func (c *watchedConn) read(p []byte) (int, error) {
	if c.full == 0 {
		c.full = len(p) // the first read is into an empty buffer
	}
	// A buffer that is not all there has bytes of the client in it: they must not be lost.
	if !c.owner.waiting.Load() || len(p) != c.full {
		return c.Conn.Read(p)
	}
	soon := time.Now().Add(c.server.parkAfter)
	if !c.deadline.IsZero() && !soon.Before(c.deadline) {
		soon = c.deadline
	}
	if err := c.Conn.SetReadDeadline(soon); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	switch {
	case n > 0:
		c.owner.waiting.Store(false)
		return n, errors.Join(err, c.Conn.SetReadDeadline(c.deadline))
	case !errors.Is(err, os.ErrDeadlineExceeded) || soon.Equal(c.deadline):
		return n, err
	case idle.TCPBelow(c.owner.conn) != nil:
		c.parked.Store(true)
		return n, err
	}
	c.owner.waiting.Store(false)
	if err := c.Conn.SetReadDeadline(c.deadline); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// saysLength says whether a part of a request's head has a field Content-Length.
func saysLength(head []byte) bool {
	const name = "content-length"
	for {
		i := bytes.IndexByte(head, ':')
		if i < 0 {
			return false
		}
		if i >= len(name) && strings.EqualFold(string(head[i-len(name):i]), name) {
			return true
		}
		head = head[i+1:]
	}
}

// await notes that net/http waits for a request from now on; fresh says that its buffer is empty for certain. A client of the
// proxy has header_timeout for its first request, and is not parked before that.
func (c *watchedConn) await(fresh bool) {
	if fresh && c.owner.session == nil {
		c.owner.waiting.Store(false)
		return
	}
	if c.sets = 0; fresh {
		c.sets = -10
	}
	c.owner.waiting.Store(true)
}

// SetReadDeadline implements net.Conn.
func (c *watchedConn) SetReadDeadline(t time.Time) error {
	if t.IsZero() {
		c.look.unbounded()
	}
	if c.owner.waiting.Load() {
		c.deadline = t
		// One deadline is for the wait, the next one for the request's head. Without a read between the two, the request
		// had come together with the one before.
		if c.sets++; c.sets > 1 {
			c.owner.waiting.Store(false)
		}
	}
	return c.Conn.SetReadDeadline(t)
}

// Close implements net.Conn. A parked connection goes on without net/http.
func (c *watchedConn) Close() error {
	if c.parked.Load() {
		return nil
	}
	return c.owner.hangUp()
}

// Write implements net.Conn.
func (c *watchedConn) Write(p []byte) (int, error) {
	if c.owner.reading.CompareAndSwap(true, false) {
		// The connection ends with this, which need not wait for whoever does not take it, or does not send what he announced.
		now := time.Now()
		err := errors.Join(c.SetWriteDeadline(now.Add(c.server.settings.Load().StallTimeout.Std())), c.Conn.SetReadDeadline(now.Add(c.server.lingering)))
		if err != nil {
			return 0, err
		}
		if page := c.server.ownError(c.owner, p); page != nil {
			if _, err := c.Conn.Write(page); err != nil {
				return 0, err
			}
			return len(p), nil
		}
	}
	return c.Conn.Write(p)
}

// CloseWrite ends the sending side; net/http uses it to let a client read the answer to a request that it has not
// finished sending.
func (c *watchedConn) CloseWrite() error { return closeWrite(c.Conn) }

// feed is the listener that the inner server takes its connections from.
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
