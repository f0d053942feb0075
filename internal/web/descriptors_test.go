package web

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"lazaret/internal/notice"
)

// TestIdleConnectionsAreGivenUp has connections be idle in every way that there is, and one be busy.
func TestIdleConnectionsAreGivenUp(t *testing.T) {
	r := newRig(t)
	goOn := make(chan struct{})
	h := func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/busy" {
			_, _ = io.WriteString(w, "first ")
			<-goOn
		}
		_, _ = io.WriteString(w, "all")
	}
	plain, secure := r.origin(h), r.tlsOrigin(h)
	var idle []*rawConn
	for range 3 {
		idle = append(idle, r.dial()) // nothing was asked
		c := r.dial().send("GET " + plain.URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		c.response("GET")
		idle = append(idle, c)
		inside := r.connect(secure.Listener.Addr().String(), "http/1.1")
		inside.send("GET / HTTP/1.1\r\nHost: " + secure.Listener.Addr().String() + "\r\n\r\n").response("GET")
		idle = append(idle, inside)
	}
	eventually(t, "some are parked", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		return len(r.server.parked) >= 3
	})
	busy := r.dial().send("GET " + plain.URL + "/busy HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "one is busy", func() bool { return r.server.idle.count() == len(idle) })
	if n := r.server.GiveUpIdle(); n != len(idle) {
		t.Errorf("%d of %d were given up", n, len(idle))
	}
	for i, c := range idle {
		if !c.closed() {
			t.Errorf("connection %d is still open", i)
		}
	}
	close(goOn)
	if resp, body := busy.response("GET"); resp.StatusCode != http.StatusOK || body != "first all" {
		t.Errorf("the busy one: %s %q", resp.Status, body)
	}
	eventually(t, "places are given back", func() bool { return r.server.limits.count() == 1 })
}

// TestOriginConnectionsAreBoundedInAll has one client ask more origins than there may be connections to, and then use all of them.
func TestOriginConnectionsAreBoundedInAll(t *testing.T) {
	r := newRig(t)
	r.server.origins.most = 3
	goOn := make(chan struct{})
	asked := make(chan struct{}, 10)
	var origins []*httptest.Server
	for i := range 5 {
		origins = append(origins, r.origin(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/busy" {
				asked <- struct{}{}
				<-goOn
			}
			fmt.Fprint(w, i)
		}))
	}
	one, two := r.dial(), r.dial()
	for round := range 2 {
		for i, o := range origins {
			c := one
			if i%2 == 0 {
				c = two
			}
			if resp, body := c.send("GET " + o.URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK || body != fmt.Sprint(i) {
				t.Errorf("round %d, origin %d: %s %q", round, i, resp.Status, body)
			}
			if n := r.server.origins.count(); n > 3 {
				t.Errorf("%d connections", n)
			}
		}
	}
	var busy []*rawConn
	for _, o := range origins[:3] {
		busy = append(busy, r.dial().send("GET "+o.URL+"/busy HTTP/1.1\r\nHost: x\r\n\r\n"))
		<-asked
	}
	resp, body := r.dial().send("GET " + origins[4].URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n").response("GET")
	wantPage(t, resp, body, http.StatusServiceUnavailable, notice.Overload)
	close(goOn)
	for i, c := range busy {
		if resp, body := c.response("GET"); resp.StatusCode != http.StatusOK || body != fmt.Sprint(i) {
			t.Errorf("the busy one to %d: %s %q", i, resp.Status, body)
		}
	}
	if resp, _ := one.send("GET " + origins[4].URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %s", resp.Status)
	}
	for _, c := range append(busy, one, two) {
		c.Close()
	}
	eventually(t, "places are given back", func() bool { return r.server.origins.count() == 0 })
}
