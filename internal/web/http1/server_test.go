package http1

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
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

// What still reads a request's content when its answer has come to its end has the connection's buffer, which must not be anybody else's.
func TestContentThatIsReadAfterTheAnswer(t *testing.T) {
	var reading sync.WaitGroup
	for range 20 {
		begun := make(chan struct{})
		c, end := serve(t, func(w http.ResponseWriter, r *http.Request) {
			Passes(r.Body)
			body := r.Body
			reading.Go(func() {
				_, _ = io.ReadFull(body, make([]byte, 3))
				close(begun)
				_, err := io.ReadAll(body)
				if err == nil {
					t.Error("the content came whole")
				}
				if _, err := w.Write([]byte("late")); err == nil {
					t.Error("something was written behind the answer")
				}
			})
			<-begun
			time.Sleep(time.Millisecond) // until it waits for more
			_, _ = io.WriteString(w, "early")
		})
		go io.Copy(io.Discard, c) //nolint:errcheck // a pipe takes nothing that is not read
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
		ended(t, end, Ended)
	}
	reading.Wait()
}

func TestEmptyLinesDoNotKeepAConnection(t *testing.T) {
	for _, behind := range []string{"", "\r\n", "\n\r\n"} {
		c, end := serve(t, func(http.ResponseWriter, *http.Request) {}, func(_ *Server, v *Visit) { v.Next = func() time.Duration { return 20 * time.Millisecond } })
		go io.Copy(io.Discard, c) //nolint:errcheck // a pipe takes nothing that is not read
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"+behind)
		ended(t, end, Idle)
	}
}
