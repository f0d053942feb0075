package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns the two ends of a TCP connection.
func pair(t testing.TB) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// result is what Copy returned.
type result struct {
	n   Counts
	err error
}

// between relays two pairs and returns the outer ends.
func between(ctx context.Context, t testing.TB, idle time.Duration, wrap func(net.Conn) net.Conn) (client, server *net.TCPConn, done chan result) {
	t.Helper()
	client, a := pair(t)
	b, server := pair(t)
	done = make(chan result, 1)
	go func() {
		n, err := Copy(ctx, wrap(a), wrap(b), idle)
		done <- result{n, err}
	}()
	return client, server, done
}

func plain(c net.Conn) net.Conn { return c }

// opaque hides what a connection is, so that it is copied through a buffer.
type opaqueConn struct{ net.Conn }

func (c opaqueConn) CloseWrite() error { return closeWrite(c.Conn) }

func opaque(c net.Conn) net.Conn { return opaqueConn{c} }

func TestCopyBothWaysWithHalfClose(t *testing.T) {
	for what, wrap := range map[string]func(net.Conn) net.Conn{"spliced": plain, "buffered": opaque} {
		t.Run(what, func(t *testing.T) {
			client, server, done := between(t.Context(), t, time.Minute, wrap)
			up, down := make([]byte, 3*chunk+12345), make([]byte, 2*chunk+1)
			_, _ = rand.Read(up)
			_, _ = rand.Read(down)
			go func() {
				_, _ = client.Write(up)
				_ = client.CloseWrite()
			}()
			if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, up) {
				t.Fatalf("up: %d bytes, the same %v, %v", len(got), bytes.Equal(got, up), err)
			}
			// The other direction lives on.
			go func() {
				_, _ = server.Write(down)
				_ = server.CloseWrite()
			}()
			if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, down) {
				t.Fatalf("down: %d bytes, the same %v, %v", len(got), bytes.Equal(got, down), err)
			}
			if r := <-done; r.err != nil || r.n != (Counts{int64(len(up)), int64(len(down))}) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestPrefixIsSentFirst(t *testing.T) {
	client, a := pair(t)
	b, server := pair(t)
	done := make(chan result, 1)
	go func() {
		n, err := Copy(t.Context(), NewPrefixed(NewPrefixed(a, []byte("two ")), []byte("one ")), b, time.Minute)
		done <- result{n, err}
	}()
	_, _ = io.WriteString(client, "three")
	_ = client.CloseWrite()
	got, err := io.ReadAll(server)
	if err != nil || string(got) != "one two three" {
		t.Errorf("%q, %v", got, err)
	}
	_ = server.Close()
	if r := <-done; r.err != nil || r.n.Up != int64(len("one two three")) {
		t.Errorf("%+v", r)
	}
}

func TestPrefixedReads(t *testing.T) {
	a, b := pair(t)
	p := NewPrefixed(b, []byte("abc"))
	if p.TCPConn() != nil {
		t.Error("with a prefix left it stands for the TCP connection")
	}
	_, _ = io.WriteString(a, "def")
	_ = a.CloseWrite()
	if got, err := io.ReadAll(p); err != nil || string(got) != "abcdef" {
		t.Errorf("%q, %v", got, err)
	}
	if p.TCPConn() != b {
		t.Error("without a prefix it does not stand for the TCP connection")
	}
}

func TestIdleRelayEnds(t *testing.T) {
	for what, wrap := range map[string]func(net.Conn) net.Conn{"spliced": plain, "buffered": opaque} {
		t.Run(what, func(t *testing.T) {
			client, server, done := between(t.Context(), t, 30*time.Millisecond, wrap)
			_, _ = io.WriteString(client, "x")
			if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if r := <-done; !errors.Is(r.err, ErrIdle) || r.n.Up != 1 {
				t.Errorf("%+v", r)
			}
			if _, err := client.Read(make([]byte, 1)); err == nil {
				t.Error("the client's connection is open")
			}
		})
	}
}

func TestOneBusyDirectionKeepsTheOtherAlive(t *testing.T) {
	for what, wrap := range map[string]func(net.Conn) net.Conn{"spliced": plain, "buffered": opaque} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			const idle = 600 * time.Millisecond
			client, server, done := between(t.Context(), t, idle, wrap)
			begin := time.Now()
			sent := 0
			for ; time.Since(begin) < 3*idle; sent++ { // slowly, and for longer than the idle time
				if _, err := client.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
					t.Fatalf("after %v: %v", time.Since(begin), err)
				}
				time.Sleep(idle / 20)
			}
			_, _ = io.WriteString(server, "still here")
			_ = server.CloseWrite()
			if got, err := io.ReadAll(client); err != nil || string(got) != "still here" {
				t.Errorf("%q, %v", got, err)
			}
			_ = client.Close()
			if r := <-done; r.err != nil || r.n.Up != int64(sent) {
				t.Errorf("%+v, %d sent", r, sent)
			}
		})
	}
}

func TestCancelledContextEndsBoth(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	client, server, done := between(ctx, t, time.Minute, plain)
	why := errors.New("the service ends")
	cancel(why)
	if r := <-done; !errors.Is(r.err, why) {
		t.Errorf("%+v", r)
	}
	for _, c := range []*net.TCPConn{client, server} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection is open")
		}
	}
}

func TestResetEndsTheOtherSide(t *testing.T) {
	client, server, done := between(t.Context(), t, time.Minute, plain)
	_ = client.SetLinger(0)
	_ = client.Close()
	if r := <-done; r.err == nil {
		t.Error("a reset is no error")
	}
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Error("the server's connection is open")
	}
}

// panicConn panics when it is read.
type panicConn struct{ net.Conn }

func (panicConn) Read([]byte) (int, error) { panic("read") }

func TestPanicCostsOneRelay(t *testing.T) {
	_, a := pair(t)
	b, server := pair(t)
	if _, err := Copy(t.Context(), panicConn{a}, b, time.Minute); err == nil {
		t.Error("no error")
	}
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Error("the server's connection is open")
	}
}

func TestIdleTimeOfZeroIsRefused(t *testing.T) {
	_, a := pair(t)
	_, b := pair(t)
	if _, err := Copy(t.Context(), a, b, 0); err == nil {
		t.Error("no error")
	}
}

// BenchmarkCopy moves data through a relay.
func BenchmarkCopy(b *testing.B) {
	for what, wrap := range map[string]func(net.Conn) net.Conn{"spliced": plain, "buffered": opaque} {
		b.Run(what, func(b *testing.B) {
			client, server, done := between(b.Context(), b, time.Minute, wrap)
			go func() { _, _ = io.Copy(io.Discard, server); _ = server.Close() }()
			buf := make([]byte, 1<<20)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := client.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			_ = client.Close()
			<-done
		})
	}
}
