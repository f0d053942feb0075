package web

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"

	"lazaret/internal/notice"
)

func TestTurnsOfOneClientDoNotConcernAnother(t *testing.T) {
	turns := newTurns()
	ctx, cancel := context.WithCancel(context.Background())
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	first, err := turns.take(ctx, a, 1)
	if err != nil {
		t.Fatal(err)
	}
	other, err := turns.take(ctx, b, 1)
	if err != nil {
		t.Fatal(err)
	}
	// The same client by its IPv4-mapped address.
	waited := make(chan error, 1)
	go func() {
		leave, err := turns.take(ctx, netip.MustParseAddr("::ffff:10.0.0.1"), 1)
		if err == nil {
			leave()
		}
		waited <- err
	}()
	eventually(t, "the third one waits", func() bool {
		turns.mu.Lock()
		defer turns.mu.Unlock()
		return turns.each[a].users == 2
	})
	first()
	first() // once more does no harm
	if err := <-waited; err != nil {
		t.Error(err)
	}
	other()
	last, err := turns.take(ctx, a, 1)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := turns.take(ctx, a, 1); err == nil {
		t.Error("a place although there is none")
	}
	last()
	if n := turns.clients(); n != 0 {
		t.Errorf("%d clients are remembered", n)
	}
}

// TestRequestsOfOneClientTakeTurns: they wait, over HTTP/2 too, and are served in the end.
func TestRequestsOfOneClientTakeTurns(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.MaxRequestsClient = 2 })
	var now, most atomic.Int32
	release := make(chan struct{})
	o := r.tlsOrigin(func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m; m = most.Load() {
			most.CompareAndSwap(m, n)
		}
		<-release
		_, _ = io.WriteString(w, "done")
	})
	const requests = 8
	client := r.client()
	results := make(chan string, requests)
	for range requests {
		go func() {
			resp, err := client.Get(o.URL + "/")
			if err != nil {
				results <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			results <- fmt.Sprint(resp.StatusCode, " ", string(b))
		}()
	}
	eventually(t, "two are under way", func() bool { return now.Load() == 2 })
	close(release)
	for range requests {
		if got := <-results; got != "200 done" {
			t.Error(got)
		}
	}
	if m := most.Load(); m != 2 {
		t.Errorf("%d at a time", m)
	}
	eventually(t, "nobody is remembered", func() bool { return r.server.turns.clients() == 0 })
}

// TestTurnThatDoesNotComeIsOverload: a client is told, and is not left waiting for ever.
func TestTurnThatDoesNotComeIsOverload(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.MaxRequestsClient, p.web.ReplyTimeout = 1, short })
	started, release := make(chan struct{}, 1), make(chan struct{})
	defer close(release)
	o := r.origin(func(http.ResponseWriter, *http.Request) {
		started <- struct{}{}
		<-release
	})
	upload := r.dial().send("POST " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
	eventually(t, "the upload has its turn", func() bool { return r.server.turns.clients() == 1 })
	resp, body := r.dial().send("GET " + o.URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n").response("GET")
	wantPage(t, resp, body, 503, notice.Overload)
	upload.Close()
}

// TestStreamsTakeNoTurns: they may last for hours, and hold nothing.
func TestStreamsTakeNoTurns(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.MaxRequestsClient = 1 })
	end := make(chan struct{})
	defer close(end)
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/events" {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			<-end
		}
	})
	sockets := r.origin(socketOrigin)
	for range 2 {
		c := r.dial().send("GET " + o.URL + "/events HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp, err := http.ReadResponse(c.br, nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		r.rawSocket(sockets.URL + "/")
	}
	eventually(t, "no place is taken", func() bool { return r.server.turns.clients() == 0 })
}
