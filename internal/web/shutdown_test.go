package web

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// TestShutdownLetsWorkEnd has every sort of connection at the gateway while it shuts down: what is under way ends, what is
// idle is closed, and Shutdown returns by itself.
func TestShutdownLetsWorkEnd(t *testing.T) {
	r := newRig(t, func(p *plan) { p.tls.Tunnel = []string{"localhost"} })
	started, release := make(chan struct{}, 10), make(chan struct{})
	h := func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			started <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "done")
	}
	plain, secure := r.origin(h), r.tlsOrigin(h)
	hostport := secure.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(hostport)
	sockets := r.origin(socketOrigin)

	quick := "GET / HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n"
	idlePlain := r.dial().send("GET " + plain.URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
	idlePlain.response("GET")
	idleInside := r.connect(hostport).send(quick)
	idleInside.response("GET")
	idleH2 := r.connect(hostport, "h2")
	h2Request(t, idleH2.Conn, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", hostport)
	tunnel := r.dial().send("CONNECT localhost:" + port + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(tunnel.br, &http.Request{Method: http.MethodHead}); err != nil {
		t.Fatal(err)
	}
	socket := r.dial().send("GET " + sockets.URL + "/ HTTP/1.1\r\nHost: x\r\n" + wsHead)
	if resp, err := http.ReadResponse(socket.br, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}

	slow := map[string]*rawConn{
		"plain":  r.dial().send("GET " + plain.URL + "/slow HTTP/1.1\r\nHost: x\r\n\r\n"),
		"inside": r.connect(hostport).send("GET /slow HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n"),
	}
	slowH2 := make(chan int, 1)
	go func() {
		resp, _ := get(t, r.client(), secure.URL+"/slow")
		slowH2 <- resp.StatusCode
	}()
	for range 3 {
		<-started
	}
	ended := make(chan error, 1)
	r.stopped = true
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ended <- r.server.Shutdown(ctx)
	}()
	for name, c := range map[string]*rawConn{"plain": idlePlain, "inside": idleInside, "HTTP/2": idleH2, "tunnel": tunnel, "WebSocket": socket} {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c.br); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("idle %s goes on", name)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("Shutdown did not wait for what is under way: %v", err)
	default:
	}
	if c, err := net.Dial("tcp", r.addr); err == nil {
		c.Close()
		t.Error("new connections are still taken")
	}
	close(release)
	for name, c := range slow {
		if resp, body := c.response("GET"); resp.StatusCode != http.StatusOK || body != "done" {
			t.Errorf("%s: %s %q", name, resp.Status, body)
		}
	}
	if got := <-slowH2; got != http.StatusOK {
		t.Errorf("HTTP/2: %d", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestShutdownCutsOffWhatOutstaysIt(t *testing.T) {
	r := newRig(t)
	started := make(chan struct{}, 2)
	h := func(_ http.ResponseWriter, req *http.Request) {
		started <- struct{}{}
		<-req.Context().Done()
	}
	secure := r.tlsOrigin(h)
	hostport := secure.Listener.Addr().String()
	c := r.connect(hostport).send("GET / HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n")
	silent := r.dial().send("CONNECT " + hostport + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(silent.br, &http.Request{Method: http.MethodHead}); err != nil {
		t.Fatal(err)
	}
	<-started
	r.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), short.Std())
	defer cancel()
	if err := r.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if !c.closed() || !silent.closed() {
		t.Error("a connection goes on")
	}
}

// TestRetiringEndsNoConnectionUnderARequest has clients keep connections open, which a server that has retired neither closes
// nor keeps: the next answer says that it is the last one.
func TestRetiringEndsNoConnectionUnderARequest(t *testing.T) {
	r := newRig(t)
	h := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") }
	plain, secure := r.origin(h), r.tlsOrigin(h)
	hostport := secure.Listener.Addr().String()
	asks := map[string]string{
		"plain":  "GET " + plain.URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"inside": "GET / HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n",
	}
	kept := map[string]*rawConn{"plain": r.dial(), "inside": r.connect(hostport)}
	for name, c := range kept {
		if resp, body := c.send(asks[name]).response("GET"); body != "done" || resp.Close {
			t.Fatalf("%s: %s %q, close %t", name, resp.Status, body, resp.Close)
		}
	}
	r.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		r.server.Retire(ctx)
		ended <- r.server.Shutdown(ctx)
	}()
	time.Sleep(200 * time.Millisecond) // an idle connection would be closed by now
	for name, c := range kept {
		if resp, body := c.send(asks[name]).response("GET"); body != "done" || !resp.Close {
			t.Errorf("%s: %s %q, close %t", name, resp.Status, body, resp.Close)
		}
		if !c.closed() {
			t.Errorf("%s: the connection goes on", name)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
