package web

import (
	"context"
	"net"
	"time"

	"lazaret/internal/idle"

	"golang.org/x/sys/unix"
)

// quiet is how long nothing must have moved over a carried connection for it to count as idle when the service ends.
// One in the making also waits for its origin.
const (
	quiet       = time.Second
	quietMaking = 5 * time.Second
	// quietRetired is the same for a server that has retired. Nobody waits for its end, and a tunnel that is still may be one
	// in which an answer is waited for.
	quietRetired = 30 * time.Second
)

// retiring is how long clients have to come back for the answer that ends their connection.
const retiring = 5 * time.Second

// drain ends connections as they become idle, and returns when none of HTTP/1.1 is left and none will come, or ctx has ended.
func (s *Server) drain(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// A connection that becomes another's affair is noted there before it is forgotten here.
		if s.endVisits()+s.endRelays() == 0 && s.endVisits() == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// endRelays ends the carried connections that are idle, and returns how many there still are.
func (s *Server) endRelays() int {
	still, making := quiet, quietMaking
	if s.retired.Load() {
		still, making = quietRetired, quietRetired
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.relays {
		if idle := idleFor(h.conn); idle >= making || idle >= still && !h.making {
			h.cancel()
		}
	}
	return len(s.relays)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// closeRelays ends all carried connections.
func (s *Server) closeRelays() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.relays {
		h.cancel()
		_ = h.conn.Close() // whoever carries it finds out
	}
}

// idleFor returns for how long the kernel has neither sent nor received data on the TCP connection below c. A connection
// of which that cannot be known has been idle for ever.
func idleFor(c net.Conn) time.Duration {
	const ever = time.Duration(1<<63 - 1)
	t := idle.TCPBelow(c)
	if t == nil {
		return ever
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return ever
	}
	age := ever
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			age = time.Duration(min(info.Last_data_recv, info.Last_data_sent)) * time.Millisecond
		}
	})
	if err != nil {
		return ever
	}
	return age
}

// Retire is for a server whose sockets another process has taken over: nobody comes any more, and those who are there are sent
// away politely. What they ask is answered, and each answer of HTTP/1 says that the connection ends with it, so that a client
// which asks again soon does not find its connection closed under its request (RFC 9112, 9.3.1 and 9.6). Retire returns when
// nobody is left, after retiring, or when ctx ends; Shutdown, which is to follow, finds those that are idle.
func (s *Server) Retire(ctx context.Context) {
	s.retired.Store(true)
	ctx, cancel := context.WithTimeout(ctx, retiring)
	defer cancel()
	for s.limits.count() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}
