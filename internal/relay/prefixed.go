// Package relay copies bytes between two connections, both ways, until both directions have ended: with half-close, an
// idle limit and byte counts, and through the kernel's splice where both ends are plain TCP.
package relay

import (
	"errors"
	"net"
	"sync"
)

// Prefixed is a connection with bytes put back in front of it: what was read to find out what the peer speaks is read
// again. Only one goroutine may read from it at a time; others may write to it meanwhile, and ask for its TCPConn.
type Prefixed struct {
	net.Conn
	mu     sync.Mutex
	prefix []byte
}

// NewPrefixed returns c with prefix in front of what it will deliver. The slice is kept, not copied.
func NewPrefixed(c net.Conn, prefix []byte) *Prefixed {
	if p, ok := c.(*Prefixed); ok {
		return &Prefixed{Conn: p.Conn, prefix: append(prefix[:len(prefix):len(prefix)], p.take()...)}
	}
	return &Prefixed{Conn: c, prefix: prefix}
}

// Read implements net.Conn.
func (p *Prefixed) Read(b []byte) (int, error) {
	if n := p.again(b); n > 0 {
		return n, nil
	}
	return p.Conn.Read(b)
}

// again copies some of the prefix to b, and returns how much.
func (p *Prefixed) again(b []byte) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := copy(b, p.prefix)
	if p.prefix = p.prefix[n:]; len(p.prefix) == 0 {
		p.prefix = nil // a ClientHello's 2 KiB are not kept for the life of the connection
	}
	return n
}

// take returns what is left of the prefix, which is then used up.
func (p *Prefixed) take() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.prefix
	p.prefix = nil
	return b
}

// CloseWrite ends the sending side.
func (p *Prefixed) CloseWrite() error { return closeWrite(p.Conn) }

// TCPConn returns the TCP connection below once the prefix is used up, nil before, or where there is none.
func (p *Prefixed) TCPConn() *net.TCPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
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
