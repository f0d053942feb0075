package web

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/units"
)

// lookedAt returns how many connections are read ahead of.
func (r *rig) lookedAt() int {
	n, _ := r.server.http1.Ahead()
	return n
}

// aheadOf returns how many bytes were read ahead of the requests under way.
func aheadOf(r *rig) int {
	_, n := r.server.http1.Ahead()
	return n
}

// slowly is an origin that answers with what it was sent when it is told to.
func slowly(goOn chan struct{}, left *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		select {
		case <-goOn:
			_, _ = io.WriteString(w, req.Method+" "+req.URL.Path+" "+string(body))
		case <-req.Context().Done():
			left.Add(1)
		}
	}
}

func TestAClientThatLeavesEndsItsRequest(t *testing.T) {
	r := newRig(t)
	var left atomic.Int32
	h := slowly(make(chan struct{}), &left)
	secure, plain := r.tlsOrigin(h).Listener.Addr().String(), r.origin(h).Listener.Addr().String()
	for i, c := range []struct {
		conn *rawConn
		head string
	}{
		{r.connect(secure), "GET / HTTP/1.1\r\nHost: " + secure + "\r\n\r\n"},
		{r.connect(secure), "POST / HTTP/1.1\r\nHost: " + secure + "\r\nContent-Length: 4\r\n\r\nbody"},
		{r.dial(), "GET http://" + plain + "/ HTTP/1.1\r\nHost: " + plain + "\r\n\r\n"},
	} {
		c.conn.send(c.head)
		eventually(t, "the client is looked after", func() bool { return r.lookedAt() == 1 })
		_ = c.conn.Close()
		eventually(t, "the origin is left, too", func() bool { return left.Load() == int32(i+1) })
	}
}

func TestWhatIsReadAheadIsNotLost(t *testing.T) {
	r := newRig(t)
	goOn := make(chan struct{})
	var left atomic.Int32
	h := slowly(goOn, &left)
	secure, plain := r.tlsOrigin(h).Listener.Addr().String(), r.origin(h).Listener.Addr().String()
	for _, c := range []struct {
		conn         *rawConn
		target, host string
	}{
		{r.connect(secure), "", secure},
		{r.dial(), "http://" + plain, plain},
	} {
		request := func(method, path, body string) string {
			length := ""
			if body != "" {
				length = "Content-Length: " + string(rune('0'+len(body))) + "\r\n"
			}
			return method + " " + c.target + path + " HTTP/1.1\r\nHost: " + c.host + "\r\n" + length + "\r\n" + body
		}
		// In turn: a slow request, one that comes meanwhile, and one with content that comes in two pieces.
		for range 2 {
			c.conn.send(request("POST", "/1", "abc"))
			eventually(t, "the client is looked after", func() bool { return r.lookedAt() == 1 })
			second := request("PUT", "/2", "defg")
			c.conn.send(second[:1])
			eventually(t, "something was read ahead", func() bool { return aheadOf(r) == 1 })
			goOn <- struct{}{}
			if resp, body := c.conn.response("POST"); resp.StatusCode != http.StatusOK || body != "POST /1 abc" {
				t.Fatalf("%s, %q", resp.Status, body)
			}
			c.conn.send(second[1 : len(second)-2])
			eventually(t, "the second is answered", func() bool { return aheadOf(r) == 0 })
			c.conn.send(second[len(second)-2:])
			goOn <- struct{}{}
			if resp, body := c.conn.response("PUT"); resp.StatusCode != http.StatusOK || body != "PUT /2 defg" {
				t.Fatalf("%s, %q", resp.Status, body)
			}
		}
	}
	if left.Load() != 0 {
		t.Errorf("%d requests were broken off", left.Load())
	}
}

func TestWhatIsReadAheadOfAnUpgradeIsNotLost(t *testing.T) {
	r := newRig(t)
	goOn := make(chan struct{})
	addr := r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
		for line := ""; line != "\r\n"; {
			line, _ = br.ReadString('\n')
		}
		<-goOn
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, br)
	})
	c := r.dial().send("GET http://" + addr + "/ HTTP/1.1\r\nHost: " + addr + "\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	eventually(t, "the client is looked after", func() bool { return r.lookedAt() == 1 })
	c.send("early")
	eventually(t, "something was read ahead", func() bool { return aheadOf(r) == 1 })
	close(goOn)
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	c.send(" and late")
	b := make([]byte, len("early and late"))
	if _, err := io.ReadFull(c.br, b); err != nil || string(b) != "early and late" {
		t.Errorf("%q, %v", b, err)
	}
}

// Trailers that fill a buffer but for one byte make a read of one byte.
func TestTrailersAsLargeAsABuffer(t *testing.T) {
	r := newRig(t)
	plain := r.origin(func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		_, _ = io.WriteString(w, string(b)+req.Trailer.Get("X-End"))
	}).Listener.Addr().String()
	for _, size := range []int{4000, 4095, 4096} {
		c := r.dial().send("POST http://" + plain + "/ HTTP/1.1\r\nHost: " + plain + "\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n3\r\nabc\r\n0\r\n")
		value := strings.Repeat("y", size-len("X-End: \r\n\r\n"))
		trailers := "X-End: " + value + "\r\n\r\n"
		time.Sleep(20 * time.Millisecond) // each piece is a read of its own
		c.send(trailers[:size-1])
		time.Sleep(20 * time.Millisecond)
		c.send(trailers[size-1:])
		if resp, body := c.response("POST"); resp.StatusCode != http.StatusOK || body != "abc"+value {
			t.Errorf("%d bytes: %s, %.40q", size, resp.Status, body)
		}
	}
}

func TestAByteReadAheadDoesNotBuyTime(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.HeaderTimeout = units.Duration(time.Second) })
	goOn := make(chan struct{})
	var left atomic.Int32
	secure := r.tlsOrigin(slowly(goOn, &left)).Listener.Addr().String()
	c := r.connect(secure).send("GET / HTTP/1.1\r\nHost: " + secure + "\r\n\r\n")
	eventually(t, "the client is looked after", func() bool { return r.lookedAt() == 1 })
	c.send("GET ")
	eventually(t, "something was read ahead", func() bool { return aheadOf(r) == 1 })
	close(goOn)
	if resp, _ := c.response("GET"); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	c.ends("a head that does not come to its end")
}

// A byte that was read ahead in the middle of a head is a part of it.
func TestAByteReadAheadOfAHeadThatHasBegun(t *testing.T) {
	r := newRig(t)
	goOn := make(chan struct{})
	var left atomic.Int32
	plain := r.origin(slowly(goOn, &left)).Listener.Addr().String()
	head := "GET http://" + plain + "/1 HTTP/1.1\r\nHost: " + plain + "\r\n\r\n"
	cut := strings.Index(head, "Host") + 2
	c := r.dial().send(head + head[:cut])
	eventually(t, "the client is looked after", func() bool { return r.lookedAt() == 1 })
	c.send(head[cut:])
	eventually(t, "something was read ahead", func() bool { return aheadOf(r) == 1 })
	for range 2 {
		select {
		case goOn <- struct{}{}:
		case <-time.After(patience):
			t.Fatal("the origin is not asked")
		}
		if resp, body := c.response("GET"); resp.StatusCode != http.StatusOK || body != "GET /1 " {
			t.Fatalf("%s, %q", resp.Status, body)
		}
	}
}
