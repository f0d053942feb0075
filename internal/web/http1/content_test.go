package http1

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lazaret/internal/idle"
)

// A request that is tried again gets content anew (origin.roundTrip sets out.Body): what sends the first attempt's must not look at the
// request any more by then, nor take the second attempt's content.
func TestTheSenderOfAFailedRequestDoesNotTakeTheNextContent(t *testing.T) {
	stolen := 0
	for range 300 {
		nc, other := pair(t)
		_ = other.CloseWrite()
		eventually(t, "the end arrives", func() bool { there, _ := idle.Readable(nc); return there })
		c := New(nc, nc, watcher(t), 4<<10)
		r := request(t, http.MethodPut, "/", strings.Repeat("1", 100))
		if _, err := c.RoundTrip(r, nil); err == nil {
			t.Fatal("it has an answer")
		}
		second := &touched{Reader: strings.NewReader(strings.Repeat("2", 100)), c: make(chan struct{}, 100)}
		r.Body = io.NopCloser(second) // as origin.roundTrip does before it tries again
		time.Sleep(time.Millisecond)
		select {
		case <-second.c:
			stolen++
		default:
		}
	}
	if stolen > 0 {
		t.Errorf("the first sender read the second attempt's content %d times", stolen)
	}
}

type touched struct {
	io.Reader
	c chan struct{}
}

func (o *touched) Read(p []byte) (int, error) {
	o.c <- struct{}{}
	return o.Reader.Read(p)
}
