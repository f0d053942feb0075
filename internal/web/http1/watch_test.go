package http1

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/idle"
)

// patience is for what must happen.
const patience = 10 * time.Second

// eventually waits for something that must become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never happened that %s", what)
		}
	}
}

// watcher returns a watcher for the time of the test.
func watcher(t *testing.T) *idle.Watcher {
	t.Helper()
	w, err := idle.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// pair returns both ends of a TCP connection.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = nc.Close()
		_ = other.Close()
	})
	_ = other.SetDeadline(time.Now().Add(patience))
	return nc.(*net.TCPConn), other.(*net.TCPConn)
}

// murmuring is a connection that has something to read which is for a layer between, such as a session ticket of TLS.
type murmuring struct {
	net.Conn
	murmurs atomic.Int32
}

func (m *murmuring) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	if n > 0 && p[0] == '.' {
		m.murmurs.Add(1)
		return 0, os.ErrDeadlineExceeded
	}
	return n, err
}

func TestSessionTicketsDoNotEndSleep(t *testing.T) {
	nc, other := pair(t)
	m := &murmuring{Conn: nc}
	c := New(m, nc, watcher(t), 1<<10)
	gone := make(chan struct{}, 1)
	if !c.Watch(func() { gone <- struct{}{} }) {
		t.Fatal("an idle connection is not watched")
	}
	for i := range 3 {
		_, _ = other.Write([]byte("."))
		eventually(t, "the murmur is heard", func() bool { return m.murmurs.Load() == int32(i+1) })
	}
	if c.Wake(); c.Err() != nil {
		t.Fatalf("the connection is said to be dead: %v", c.Err())
	}
	_, _ = other.Write([]byte("x"))
	var b [1]byte
	if _, err := m.Conn.Read(b[:]); err != nil || b[0] != 'x' {
		t.Errorf("after waking up: %q, %v", b, err)
	}
	if !c.Watch(func() { gone <- struct{}{} }) {
		t.Fatal("it is not watched again")
	}
	_, _ = other.Write([]byte("x"))
	<-gone
	if c.Wake(); c.Err() == nil {
		t.Error("a connection that said something unasked is said to be usable")
	}
}

func TestTheEndIsSeenInSleep(t *testing.T) {
	nc, other := pair(t)
	c := New(nc, nc, watcher(t), 1<<10)
	gone := make(chan struct{})
	c.Watch(func() { close(gone) })
	_ = other.Close()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("nobody was told")
	}
	if c.Err() == nil {
		t.Error("it is said to be usable")
	}
}

func TestALookFindsWhatHasHappened(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(other *net.TCPConn)
		dead bool
	}{
		"nothing":         {func(*net.TCPConn) {}, false},
		"session ticket":  {func(other *net.TCPConn) { _, _ = other.Write([]byte(".")) }, false},
		"unasked answer":  {func(other *net.TCPConn) { _, _ = other.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")) }, true},
		"end":             {func(other *net.TCPConn) { _ = other.CloseWrite() }, true},
		"end by a reset":  {func(other *net.TCPConn) { _ = other.SetLinger(0); _ = other.Close() }, true},
		"unasked and end": {func(other *net.TCPConn) { _, _ = other.Write([]byte("x")); _ = other.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			nc, other := pair(t)
			conn := New(&murmuring{Conn: nc}, nc, watcher(t), 1<<10)
			c.do(other)
			if name != "nothing" {
				eventually(t, "it arrives", func() bool { there, _ := idle.Readable(nc); return there })
			}
			if err := conn.Look(); (err != nil) != c.dead {
				t.Errorf("a look says: %v", err)
			} else if c.dead && (!errors.Is(err, errGone) || conn.Err() == nil) {
				t.Errorf("afterwards: %v, %v", err, conn.Err())
			}
		})
	}
}
