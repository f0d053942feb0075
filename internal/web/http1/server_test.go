package http1

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"
)

// serve has h answer what comes over one end of a pipe, which takes nothing that is not read, and returns the other end and how it ended.
func serve(t *testing.T, h http.HandlerFunc, change ...func(*Server, *Visit)) (client net.Conn, end chan Ending) {
	t.Helper()
	near, far := net.Pipe()
	s := &Server{
		Handler: h, MaxHead: 4 << 10, HeadTime: time.Minute, Linger: time.Millisecond, Log: slog.New(slog.DiscardHandler),
		Stall: func() time.Duration { return time.Minute }, Last: func() bool { return false },
	}
	v := &Visit{
		Conn: far, Context: context.Background(), Next: func() time.Duration { return time.Minute }, Rests: func() {}, Begins: func() {},
		Unread: func(m *Malformed) []byte { return []byte(http.StatusText(m.Status) + ": " + m.Error()) },
	}
	for _, f := range change {
		f(s, v)
	}
	end = make(chan Ending, 1)
	go func() {
		defer far.Close()
		end <- s.Serve(v)
	}()
	t.Cleanup(func() { near.Close() })
	return near, end
}

func ended(t *testing.T, end chan Ending, want Ending) {
	t.Helper()
	select {
	case got := <-end:
		if got != want {
			t.Errorf("ended as %d instead of %d", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on for ever")
	}
}

func TestClientThatDoesNotTakeWhatItsMistakeIsAnsweredWith(t *testing.T) {
	c, end := serve(t, nil, func(s *Server, _ *Visit) { s.Stall = func() time.Duration { return 10 * time.Millisecond } })
	_, _ = io.WriteString(c, "mistake\r\n\r\n")
	ended(t, end, Ended)
}
