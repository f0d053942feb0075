package web

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/intercept"
)

// maxOrigins is how many connections to origins one connection of a client may keep open. Pages come from many hosts, but
// a client spreads them over several connections.
const maxOrigins = 8

// client is one connection of a client, and what belongs to it.
type client struct {
	conn  net.Conn
	addr  netip.AddrPort
	local netip.AddrPort

	// What follows is set inside an opened connection only.
	session *intercept.Session
	scheme  string
	to      authority
	pinned  *origin
	below   *cork // what HTTP/1.1's writes go out by; nil elsewhere

	visit *watchedConn // what net/http serves it on now; nil for HTTP/2

	// reading says that net/http is reading a request: what it writes then is an error of its own.
	reading atomic.Bool
	waiting atomic.Bool  // for the first byte of a request
	lengths atomic.Bool  // some head that came had a Content-Length
	taken   atomic.Bool  // net/http has handed the connection over
	active  atomic.Int32 // exchanges under way

	mu      sync.Mutex
	origins map[string]*origin // of a proxy connection, by scheme and host:port
	closed  bool
}

type clientKey struct{}

// clientOf returns the connection that a request came over.
func clientOf(ctx context.Context) *client {
	c, _ := ctx.Value(clientKey{}).(*client)
	return c
}

// ownerOf returns the client that net/http's connection belongs to.
func (s *Server) ownerOf(nc net.Conn) *client {
	if w, ok := nc.(*watchedConn); ok {
		return w.owner
	}
	c, _ := s.inside.Load(nc)
	owner, _ := c.(*client)
	return owner
}

// connContext implements http.Server.ConnContext.
func (s *Server) connContext(ctx context.Context, nc net.Conn) context.Context {
	owner := s.ownerOf(nc)
	if w, ok := nc.(*watchedConn); ok {
		ctx, w.look.gone = context.WithCancel(ctx)
		owner.visit = w
	}
	return context.WithValue(ctx, clientKey{}, owner)
}

// connState implements http.Server.ConnState.
func (s *Server) connState(nc net.Conn, state http.ConnState) {
	c := s.ownerOf(nc)
	if c == nil {
		return
	}
	switch state {
	case http.StateNew, http.StateIdle:
		c.reading.Store(true)
		s.idle.add(c)
		if w, ok := nc.(*watchedConn); ok {
			w.look.rests()
			w.await(state == http.StateNew)
		}
		if c.pinned != nil && c.pinned.dead() {
			s.originGone(c) // it went while the answer was being sent, or before there was anything to be served
		}
	case http.StateClosed:
		s.inside.Delete(nc)
		if w, ok := nc.(*watchedConn); ok {
			if w.look.gone != nil {
				w.look.gone()
			}
			c.visit = nil // a parked connection need not keep it
			if w.parked.Load() {
				s.park(c)
				return
			}
		}
		s.idle.remove(c)
		c.close()
	case http.StateHijacked:
		c.taken.Store(true)
		c.reading.Store(false)
		s.inside.Delete(nc)
		s.idle.remove(c)
	case http.StateActive:
		if w, ok := nc.(*watchedConn); ok {
			w.look.begins()
		}
		s.idle.remove(c)
	}
}

// origin returns the client's own connection to an origin, made by dial where there is none yet. The caller calls leave
// when it is done with it.
func (c *client) origin(s *Server, scheme, hostport string, dial func(context.Context) (net.Conn, error)) *origin {
	key := scheme + "://" + hostport
	c.mu.Lock()
	defer c.mu.Unlock()
	if o, ok := c.origins[key]; ok {
		o.users.Add(1)
		return o
	}
	if len(c.origins) >= maxOrigins {
		for k, o := range c.origins {
			if o.users.Load() == 0 {
				delete(c.origins, k)
				go o.close() // closing TLS may wait for the other side
				break
			}
		}
	}
	if c.origins == nil {
		c.origins = map[string]*origin{}
	}
	o := &origin{server: s, scheme: scheme, hostport: hostport, dial: dial}
	o.users.Add(1)
	if !c.closed {
		c.origins[key] = o
	}
	return o
}

// leave ends the use of o, and o itself where the client has gone meanwhile.
func (c *client) leave(o *origin) {
	o.server.origins.used(o)
	o.users.Add(-1)
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		o.close()
	}
}

// parkOrigins gives up what the connections to origins do not need until the next request. It is called while there is none.
func (c *client) parkOrigins() {
	c.mu.Lock()
	origins := slices.Collect(maps.Values(c.origins))
	c.mu.Unlock()
	if c.pinned != nil {
		origins = append(origins, c.pinned)
	}
	for _, o := range origins {
		o.park()
	}
}

// close ends the connections to origins, because the client's has ended.
func (c *client) close() {
	c.mu.Lock()
	origins := c.origins
	c.origins, c.closed = nil, true
	c.mu.Unlock()
	for _, o := range origins {
		o.close()
	}
	if c.pinned != nil {
		c.pinned.close()
	}
}

// end ends the connection, and those to origins.
func (c *client) end() {
	_ = c.hangUp() // there is nobody to tell
	c.close()
}

// goodbye is how long a connection that is being closed may take to send what is left.
const goodbye = 5 * time.Second

// hangUp closes the connection. A client that asks TLS for replies and takes none holds up what TLS needs for that, without a limit of
// its own.
func (c *client) hangUp() error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(goodbye)) // closed already, else
	return c.conn.Close()
}

// originGone mirrors the end of an idle origin connection: the client's ends too. While a request is under way nothing is ended, and
// it is under way until net/http has sent the end of the answer, which comes after the exchange's own: connState then calls again.
func (s *Server) originGone(c *client) {
	if c.active.Load() == 0 && c.reading.Load() {
		go s.hangUp(c) // closing TLS may wait for the other side
	}
}

// addrPort returns the IP address and port of a socket's end, the zero value for others.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		if a == nil {
			return netip.AddrPort{}
		}
		ap, err := netip.ParseAddrPort(a.String())
		if err != nil {
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
