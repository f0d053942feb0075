package http1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/idle"
)

// late is a connection whose reader is kept from its work for so long that its deadline has passed.
type late struct{ net.Conn }

func (l late) Read(p []byte) (int, error) {
	time.Sleep(5 * time.Millisecond)
	return l.Conn.Read(p)
}

func TestALookThatComesTooLateDoesNotTakeAnAnswerForSilence(t *testing.T) {
	nc, other := pair(t)
	c := New(late{nc}, nc, watcher(t), 4<<10)
	_, _ = io.WriteString(other, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled")
	eventually(t, "it arrives", func() bool { there, _ := idle.Readable(nc); return there })
	if c.Look() == nil {
		got, err := fetch(c, request(t, "GET", "/", ""))
		t.Errorf("the connection was used: %q, %v", got, err)
	}
}

func TestALookWithoutTCPAsksTheLayerThatThereIs(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := New(near, nil, watcher(t), 4<<10)
	if err := c.Look(); err != nil {
		t.Errorf("an idle one: %v", err)
	}
	ahead := New(&holding{Conn: near, b: []byte("x")}, nil, watcher(t), 4<<10)
	if ahead.Look() == nil {
		t.Error("what had been read already was not seen")
	}
}

// holding is a layer that has read ahead.
type holding struct {
	net.Conn
	b []byte
}

func (h *holding) Read(p []byte) (int, error) {
	if n := copy(p, h.b); n > 0 {
		h.b = h.b[n:]
		return n, nil
	}
	return h.Conn.Read(p)
}

func TestAWatchedConnectionTakesNoRequest(t *testing.T) {
	c, _ := scripted(t, func(int, *http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" })
	if !c.Watch(func() {}) || c.Watch(func() {}) {
		t.Fatal("an idle connection is watched once")
	}
	if _, err := fetch(c, request(t, "GET", "/", "")); !errors.Is(err, errAsleep) || c.Look() != nil {
		t.Errorf("a request meanwhile: %v; a look: %v", err, c.Look())
	}
	c.Wake()
	if got, err := fetch(c, request(t, "GET", "/", "")); err != nil || got != "200 ok" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

func TestASwitchOfProtocolsBeforeTheRequestIsSent(t *testing.T) {
	nc, other := pair(t)
	go func() {
		_, _ = bufio.NewReader(other).ReadString('\n')
		_, _ = io.WriteString(other, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	}()
	endless, w := io.Pipe()
	defer w.Close()
	c := New(nc, nc, watcher(t), 4<<10)
	r := request(t, "POST", "/", "x")
	r.Body, r.ContentLength = endless, -1
	if _, err := c.RoundTrip(r, nil); !errors.Is(err, errUnsent) || c.Err() == nil {
		t.Errorf("%v, afterwards %v", err, c.Err())
	}
}

// net/http reads the beginning of such content by a goroutine of its own, which goes on when the request has been given up.
func TestContentOfUnknownLengthWhereNoneIsUsual(t *testing.T) {
	broken := errors.New("too late")
	for _, method := range []string{"GET", "DELETE"} {
		nc, other := pair(t)
		go io.Copy(io.Discard, other) //nolint:errcheck // until it ends
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		var reads atomic.Int32
		r := request(t, method, "/", "x").WithContext(ctx)
		r.ContentLength = -1
		r.Body = io.NopCloser(readerFunc(func([]byte) (int, error) {
			reads.Add(1)
			defer close(ended)
			<-ctx.Done()
			time.Sleep(20 * time.Millisecond) // by then the request has failed, or is about to
			return 0, broken
		}))
		time.AfterFunc(250*time.Millisecond, cancel) // net/http waits for 200 ms
		if _, err := New(nc, nc, watcher(t), 4<<10).RoundTrip(r, nil); err == nil {
			t.Errorf("%s: it has an answer", method)
		}
		<-ended

		nc, other = pair(t)
		go io.Copy(io.Discard, other) //nolint:errcheck // as above
		r = request(t, method, "/", "x")
		r.Body, r.ContentLength = io.NopCloser(readerFunc(func([]byte) (int, error) { panic(broken) })), -1
		if _, err := New(nc, nc, watcher(t), 4<<10).RoundTrip(r, nil); err == nil || !strings.Contains(err.Error(), "panicked") {
			t.Errorf("%s with content that panics: %v", method, err)
		}
	}
}

// counting counts writes.
type counting struct {
	net.Conn
	writes atomic.Int32
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestContentGoesOutInLargePieces(t *testing.T) {
	nc, other := pair(t)
	go func() {
		r, err := http.ReadRequest(bufio.NewReader(other))
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		if n == 1<<20 {
			_, _ = io.WriteString(other, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}()
	out := &counting{Conn: nc}
	c := New(out, nc, watcher(t), 4<<10)
	if got, err := fetch(c, request(t, "PUT", "/", strings.Repeat("x", 1<<20))); err != nil || got != "200 " {
		t.Fatalf("%q, %v", got, err)
	}
	if n := out.writes.Load(); n > 40 {
		t.Errorf("%d writes for a mebibyte", n)
	}
}
