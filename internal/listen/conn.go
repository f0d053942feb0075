package listen

import (
	"net"
	"net/netip"
)

// Conn is an accepted connection. Its place among the limits is given back by Close.
type Conn struct {
	net.Conn
	peer     netip.AddrPort
	local    netip.AddrPort
	original netip.AddrPort
	leave    func()
}

// RemoteAddr returns the client's address: the one that the PROXY protocol header named, where there was one.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.peer) }

// LocalAddr returns the address that the client connected to: the one that the PROXY protocol header named, where there
// was one.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// Client returns the client's address, as RemoteAddr does.
func (c *Conn) Client() netip.AddrPort { return c.peer }

// Original returns where the client wanted to go before its connection was redirected here. It is not valid where the
// listener is not transparent, or the connection was made to the gateway itself.
func (c *Conn) Original() netip.AddrPort { return c.original }

// Close implements net.Conn.
func (c *Conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite ends the sending side.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return c.Close()
}

// TCPConn returns the TCP connection below, for copying without the bytes passing through this program.
func (c *Conn) TCPConn() *net.TCPConn {
	t, _ := c.Conn.(*net.TCPConn)
	return t
}
