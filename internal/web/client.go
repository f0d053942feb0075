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

	born    time.Time
	begun   atomic.Bool  // some request has
	resting atomic.Bool  // a request of HTTP/1.1 is waited for
	reading atomic.Bool  // the same, or its head is being read; or HTTP/2 is idle
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

// connContext implements http.Server.ConnContext.
func (s *Server) connContext(ctx context.Context, nc net.Conn) context.Context {
	c, _ := s.inside.Load(nc)
	return context.WithValue(ctx, clientKey{}, c)
}

// connState implements http.Server.ConnState, for HTTP/2.
func (s *Server) connState(nc net.Conn, state http.ConnState) {
	v, _ := s.inside.Load(nc)
	c, ok := v.(*client)
	if !ok {
		return
	}
	switch state {
	case http.StateNew, http.StateIdle:
		s.rests(c)
	case http.StateClosed:
		s.inside.Delete(nc)
		s.idle.remove(c)
		c.close()
	case http.StateActive, http.StateHijacked:
		s.begins(c)
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
// it is under way until the end of the answer has been sent, which comes after the exchange's own: rests then calls again.
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
