package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/units"
)

// parkingRig parks idle connections soon.
func parkingRig(t *testing.T, change ...func(*plan)) *rig {
	r := newRig(t, change...)
	r.server.parkAfter = 20 * time.Millisecond
	return r
}

func (r *rig) parked() int {
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	return len(r.server.parked)
}

func TestParkedConnectionIsUsedAgain(t *testing.T) {
	r := parkingRig(t)
	h := func(w http.ResponseWriter, req *http.Request) { fmt.Fprint(w, req.RemoteAddr) }
	secure, plain := r.tlsOrigin(h), r.origin(h)
	hostport := secure.Listener.Addr().String()
	inPlain := r.dial().send("CONNECT " + plain.Listener.Addr().String() + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(inPlain.br, &http.Request{Method: http.MethodHead}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, target, host string
		conn               *rawConn
	}{
		{"TLS", "/", hostport, r.connect(hostport)},
		{"plain", "/", plain.Listener.Addr().String(), inPlain},
		{"proxy", plain.URL + "/", plain.Listener.Addr().String(), r.dial()},
	} {
		request := "GET " + c.target + " HTTP/1.1\r\nHost: " + c.host + "\r\n\r\n"
		var peer string
		for i := range 4 {
			resp, body := c.conn.send(request).response("GET")
			if i == 0 {
				peer = body
			}
			if resp.StatusCode != http.StatusOK || body != peer {
				t.Fatalf("%s, request %d: %s, over %s instead of %s", c.name, i, resp.Status, body, peer)
			}
			eventually(t, "the connection is parked", func() bool { return r.parked() == 1 })
		}
		c.conn.Close()
		eventually(t, "it is parked no more", func() bool { return r.parked() == 0 })
	}
}

func TestHalfARequestIsNotLostToParking(t *testing.T) {
	r := parkingRig(t)
	hostport := r.tlsOrigin(virusOrigin).Listener.Addr().String()
	plain := r.origin(virusOrigin)
	for request, dial := range map[string]func() *rawConn{
		"GET /clean HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n":   func() *rawConn { return r.connect(hostport) },
		"GET " + plain.URL + "/clean HTTP/1.1\r\nHost: x\r\n\r\n": r.dial,
	} {
		for cut := 1; cut < len(request); cut += 7 {
			for name, before := range map[string]string{"first": "", "after another": request} {
				c := dial().send(before + request[:cut])
				if before != "" {
					c.response("GET")
				}
				time.Sleep(3 * r.server.parkAfter)
				if resp, body := c.send(request[cut:]).response("GET"); resp.StatusCode != http.StatusOK {
					t.Fatalf("%s, cut at %d: %s %s", name, cut, resp.Status, body)
				}
				c.Close()
			}
		}
	}
}

// A connection to the proxy outlasts those to its origins, which are not kept after their end.
func TestEndOfOriginIsNoticedByAParkedProxyConnection(t *testing.T) {
	r := parkingRig(t)
	ended := make(chan struct{}, 10)
	var opened atomic.Int32
	addr := r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
		opened.Add(1)
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if opened.Load() == 1 {
			eventually(t, "the connection is parked", func() bool { return r.parked() == 1 })
			time.Sleep(r.server.parkAfter) // its origin is put to sleep after that
		}
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c) // until the gateway has closed it, too
		ended <- struct{}{}
	})
	c := r.dial()
	request := "GET http://" + addr + "/ HTTP/1.1\r\nHost: " + addr + "\r\n\r\n"
	for i := range 2 {
		if resp, body := c.send(request).response("GET"); resp.StatusCode != http.StatusOK || body != "ok" {
			t.Fatalf("request %d: %s %s", i, resp.Status, body)
		}
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("the connection to the origin stays, although that has ended it")
		}
	}
	if opened.Load() != 2 {
		t.Errorf("%d connections to the origin", opened.Load())
	}
}

func TestPipelinedRequestsAreNotLostToParking(t *testing.T) {
	r := parkingRig(t)
	hostport := r.tlsOrigin(func(http.ResponseWriter, *http.Request) { time.Sleep(2 * r.server.parkAfter) }).Listener.Addr().String()
	request := "GET / HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n"
	plain := r.origin(func(http.ResponseWriter, *http.Request) { time.Sleep(2 * r.server.parkAfter) })
	outer := "GET " + plain.URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, c := range []*rawConn{r.connect(hostport).send(request + request + request), r.dial().send(outer + outer + outer)} {
		for range 3 {
			if resp, _ := c.response("GET"); resp.StatusCode != http.StatusOK {
				t.Fatal(resp.Status)
			}
		}
	}
}

func TestEndOfOriginIsMirroredToAParkedConnection(t *testing.T) {
	r := parkingRig(t)
	for name, last := range map[string]string{"closed": "", "said something unasked": "HTTP/1.1 408 Request Timeout\r\n\r\n"} {
		end := make(chan struct{})
		cert := r.root.leaf(t)
		addr := r.rawOrigin(func(c net.Conn, _ *bufio.Reader) {
			tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			if _, err := http.ReadRequest(bufio.NewReader(tc)); err != nil {
				return
			}
			_, _ = io.WriteString(tc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			<-end
			_, _ = io.WriteString(tc, last)
			if last == "" {
				tc.Close()
			}
			_, _ = io.Copy(io.Discard, tc)
		})
		c := r.connect(addr)
		if _, body := c.send("GET / HTTP/1.1\r\nHost: " + addr + "\r\n\r\n").response("GET"); body != "ok" {
			t.Fatal(body)
		}
		eventually(t, "the connection is parked", func() bool { return r.parked() == 1 })
		time.Sleep(r.server.parkAfter)
		close(end)
		if !c.closed() {
			t.Errorf("%s: the browser's connection goes on", name)
		}
		eventually(t, "nothing is left of it", func() bool { return r.parked() == 0 })
	}
}

func TestParkedConnectionsEnd(t *testing.T) {
	r := parkingRig(t, func(p *plan) { p.web.IdleTimeout = units.Duration(300 * time.Millisecond) })
	hostport := r.tlsOrigin(virusOrigin).Listener.Addr().String()
	request := "GET /clean HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n"
	c := r.connect(hostport).send(request)
	c.response("GET")
	if !c.closed() {
		t.Error("it may stay for ever")
	}
	proxied := "GET " + r.origin(virusOrigin).URL + "/clean HTTP/1.1\r\nHost: x\r\n\r\n"
	outer := r.dial().send(proxied)
	outer.response("GET")
	outer.ends("a connection to the proxy")
	c = r.connect(hostport).send(request)
	c.response("GET")
	outer = r.dial().send(proxied)
	outer.response("GET")
	eventually(t, "the connections are parked", func() bool { return r.parked() == 2 })
	r.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if !c.closed() {
		t.Error("it goes on after Shutdown")
	}
	outer.ends("a connection to the proxy after Shutdown")
}
