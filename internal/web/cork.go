package web

import (
	"errors"
	"net"
	"sync"
)

// corkSize is how much is collected before it is sent: what TLS makes of a body that waits in memory goes out in few writes,
// instead of one for each record of 16 KiB at most.
const corkSize = 64 << 10

// corkBuffers have room for one more record than is collected.
var corkBuffers = sync.Pool{New: func() any { b := make([]byte, 0, corkSize+20<<10); return &b }}

// cork is a connection below TLS whose writes can be collected for a while.
type cork struct {
	net.Conn

	mu   sync.Mutex
	held *[]byte // nil: writes pass through
}

// Write implements net.Conn. While writes are collected, an error may be that of earlier ones.
func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.held == nil {
		c.mu.Unlock()
		return c.Conn.Write(p)
	}
	defer c.mu.Unlock()
	if len(*c.held)+len(p) > cap(*c.held) {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) >= corkSize {
		return c.Conn.Write(p)
	}
	*c.held = append(*c.held, p...)
	if len(*c.held) >= corkSize {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// flush sends what was collected; the lock is held.
func (c *cork) flush() error {
	if len(*c.held) == 0 {
		return nil
	}
	_, err := c.Conn.Write(*c.held)
	*c.held = (*c.held)[:0]
	return err
}

// hold has writes collected until release. c may be nil.
func (c *cork) hold() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = corkBuffers.Get().(*[]byte)
	}
}

// release sends what was collected, and has writes pass through again. c may be nil.
func (c *cork) release() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		return nil
	}
	err := c.flush()
	corkBuffers.Put(c.held)
	c.held = nil
	return err
}

// CloseWrite ends the sending side.
func (c *cork) CloseWrite() error { return errors.Join(c.release(), closeWrite(c.Conn)) }

// TCPConn returns the TCP connection below, for internal/relay to splice; nil where there is none, or something is in between.
func (c *cork) TCPConn() *net.TCPConn {
	switch v := c.Conn.(type) {
	case *net.TCPConn:
		return v
	case interface{ TCPConn() *net.TCPConn }:
		return v.TCPConn()
	}
	return nil
}
