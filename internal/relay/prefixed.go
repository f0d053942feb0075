// Package relay copies bytes between two connections, both ways, until both directions have ended: with half-close, an
// idle limit and byte counts, and through the kernel's splice where both ends are plain TCP.
package relay

import (
	"errors"
	"net"
)

// Prefixed is a connection with bytes put back in front of it: what was read to find out what the peer speaks is read
// again. It is not safe for simultaneous reads, as a prefix is only ever read by one.
type Prefixed struct {
	net.Conn
	prefix []byte
}

// NewPrefixed returns c with prefix in front of what it will deliver. The slice is kept, not copied.
func NewPrefixed(c net.Conn, prefix []byte) *Prefixed {
	if p, ok := c.(*Prefixed); ok {
		return &Prefixed{Conn: p.Conn, prefix: append(prefix[:len(prefix):len(prefix)], p.prefix...)}
	}
	return &Prefixed{Conn: c, prefix: prefix}
}

// Read implements net.Conn.
func (p *Prefixed) Read(b []byte) (int, error) {
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		if p.prefix = p.prefix[n:]; len(p.prefix) == 0 {
			p.prefix = nil // a ClientHello's 2 KiB are not kept for the life of the connection
		}
		return n, nil
	}
	return p.Conn.Read(b)
}

// CloseWrite ends the sending side.
func (p *Prefixed) CloseWrite() error { return closeWrite(p.Conn) }

// TCPConn returns the TCP connection below once the prefix is used up, nil before, or where there is none.
func (p *Prefixed) TCPConn() *net.TCPConn {
	if len(p.prefix) > 0 {
		return nil
	}
	return tcpOf(p.Conn)
}

// closeWrite ends the sending side of c, and closes c where it has no such thing.
func closeWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		if err := w.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return c.Close()
}

// tcpOf returns the TCP connection that c is, or stands for without changing its bytes; nil for others. Wrappers say so
// by a method TCPConn: what NetConn returns would be the wrong side of a TLS connection.
func tcpOf(c net.Conn) *net.TCPConn {
	switch v := c.(type) {
	case *net.TCPConn:
		return v
	case interface{ TCPConn() *net.TCPConn }:
		return v.TCPConn()
	}
	return nil
}
