package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
	"lazaret/internal/units"
)

func TestTooManyConnectionsOfOneClient(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.MaxConnectionsClient = 2 })
	o := r.origin(virusOrigin)
	request := "GET " + o.URL + "/clean HTTP/1.1\r\nHost: x\r\n\r\n"
	first, second := r.dial(), r.dial()
	for _, c := range []*rawConn{first, second} {
		if resp, _ := c.send(request).response("GET"); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
	resp, body := r.dial().response("GET")
	wantPage(t, resp, body, 503, notice.Overload)
	first.Close()
	eventually(t, "a place is free again", func() bool {
		c := r.dial()
		defer c.Close()
		_, _ = io.WriteString(c.Conn, request)
		resp, err := http.ReadResponse(c.br, nil)
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

func TestPlacesOfHijackedConnectionsComeBack(t *testing.T) {
	r := newRig(t, func(p *plan) { p.tls.Tunnel = []string{"localhost"} })
	o := r.tlsOrigin(virusOrigin)
	_, port, _ := net.SplitHostPort(o.Listener.Addr().String())
	hostport := "127.0.0.1:" + port
	held := func() int { return r.server.Stats().Connections }
	inside := r.connect(hostport)
	if resp, _ := inside.send("GET /clean HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	tunnel := r.dial().send("CONNECT localhost:" + port + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(tunnel.br, &http.Request{Method: http.MethodHead}); err != nil {
		t.Fatal(err)
	}
	silent := r.dial().send("CONNECT " + hostport + " HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "all three are counted", func() bool { return held() == 3 })
	for _, c := range []*rawConn{inside, tunnel, silent} {
		c.Close()
	}
	eventually(t, "every place comes back", func() bool { return held() == 0 })
}

func TestLimiter(t *testing.T) {
	l := newLimiter()
	l.set(3, 2)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	leave, ok := l.enter(a)
	if !ok {
		t.Fatal("no place for the first")
	}
	l.enter(a)
	if _, ok := l.enter(a); ok {
		t.Error("a third place for one client")
	}
	if _, ok := l.enter(b); !ok {
		t.Error("no place for another client")
	}
	if _, ok := l.enter(b); ok {
		t.Error("a fourth place in all")
	}
	leave()
	leave()
	if l.total != 2 || l.each[a] != 1 {
		t.Errorf("after leaving twice: %d, %v", l.total, l.each)
	}
}

func TestClientThatDoesNotFinishItsHead(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.HeaderTimeout = short })
	o := r.tlsOrigin(virusOrigin)
	for _, c := range []*rawConn{r.dial(), r.connect(o.Listener.Addr().String())} {
		if !c.send("GET / HTTP/1.1\r\nHost: ").closed() {
			t.Error("it may go on for ever")
		}
	}
}

func TestClientThatDoesNothing(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.HeaderTimeout, p.web.IdleTimeout, p.tls.HelloTimeout = short, short, short })
	o := r.tlsOrigin(virusOrigin)
	hostport := o.Listener.Addr().String()
	silent := r.dial().send("CONNECT " + hostport + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(silent.br, &http.Request{Method: http.MethodHead}); err != nil {
		t.Fatal(err)
	}
	idle := r.connect(hostport)
	if resp, _ := idle.send("GET /clean HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	for name, c := range map[string]*rawConn{
		"no request": r.dial(), "no ClientHello": silent, "no second request": idle, "no request inside": r.connect(hostport),
	} {
		if !c.closed() {
			t.Errorf("%s: it may stay for ever", name)
		}
	}
}

func TestUploadThatStalls(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.StallTimeout = short })
	var requests atomic.Int32
	h := func(http.ResponseWriter, *http.Request) { requests.Add(1) }
	plain, secure := r.origin(h), r.tlsOrigin(h)
	hostport := secure.Listener.Addr().String()
	for name, c := range map[string]*rawConn{
		"http":    r.dial().send("POST " + plain.URL + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"),
		"https":   r.connect(hostport).send("POST / HTTP/1.1\r\nHost: " + hostport + "\r\nContent-Length: 100\r\n\r\nhalf"),
		"chunked": r.dial().send("POST " + plain.URL + "/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
	} {
		resp, body := c.response("POST")
		if resp.StatusCode/100 != 4 || resp.Header.Get("X-Lazaret-Kind") != string(notice.BadRequest) {
			t.Errorf("%s: %s %q", name, resp.Status, body)
		}
	}
	// The same over HTTP/2.
	pr, pw := io.Pipe()
	go func() { _, _ = io.WriteString(pw, "half") }()
	defer pw.Close()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, secure.URL, pr)
	resp, err := r.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode/100 != 4 {
		t.Errorf("%s %s", resp.Proto, resp.Status)
	}
	if requests.Load() != 0 {
		t.Error("half an upload reached the origin")
	}
}

func TestSlowUploadIsTaken(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.StallTimeout, p.web.HeaderTimeout = 2*short, 2*short })
	o := r.origin(echoHead)
	c := r.dial().send("POST " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	for range 10 {
		time.Sleep(short.Std() / 2) // together longer than any timeout
		c.send("x")
	}
	if resp, body := c.response("POST"); resp.StatusCode != http.StatusOK || !strings.HasSuffix(body, "\nxxxxxxxxxx") {
		t.Errorf("%s %q", resp.Status, body)
	}
}

func TestClientThatDoesNotTakeItsAnswer(t *testing.T) {
	// It holds for origins, too, which on a busy machine may well stand still for a while.
	r := newRig(t, func(p *plan) { p.web.StallTimeout = 20 * short })
	big := seq(8 << 20)
	h := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(big) }
	plain, secure := r.origin(h), r.tlsOrigin(h)
	hostport := secure.Listener.Addr().String()
	r.dial().send("GET " + plain.URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
	r.connect(hostport).send("GET / HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n")
	h2 := r.connect(hostport, "h2")
	_ = h2Start(h2.Conn, hostport)
	// Each is judged, and then its room is given back although nobody takes it.
	eventually(t, "what nobody takes is given up", func() bool {
		judged := 0
		for _, x := range r.audit.list() {
			if x.Event == audit.Object {
				judged++
			}
		}
		u := r.pool.Usage()
		return judged == 3 && u.Memory == 0 && u.Disk == 0
	})
}

func TestAnswerTakesAsLongAsItTakes(t *testing.T) {
	r := newRig(t, func(p *plan) {
		p.web.HeaderTimeout, p.web.IdleTimeout, p.web.StallTimeout = short, short, short
		p.engine = slowScanner{4 * short}
	})
	o := r.tlsOrigin(virusOrigin)
	for _, c := range []*http.Client{r.client(), r.client(noHTTP2)} {
		if resp, body := get(t, c, o.URL+"/clean"); resp.StatusCode != http.StatusOK {
			t.Errorf("%s %q", resp.Status, body)
		}
	}
}

// slowScanner takes its time.
type slowScanner struct{ takes units.Duration }

func (slowScanner) Name() string { return "slow" }
func (s slowScanner) Scan(ctx context.Context, _ *scan.Object) (scan.Verdict, error) {
	select {
	case <-time.After(s.takes.Std()):
		return scan.CleanVerdict(), nil
	case <-ctx.Done():
		return scan.Verdict{}, ctx.Err()
	}
}

func TestBigDownloadAndUploadStayOutOfMemory(t *testing.T) {
	r := newRig(t)
	const size = 16 << 20
	line := seq(1 << 20)
	o := r.tlsOrigin(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut {
			n, _ := io.Copy(io.Discard, req.Body)
			fmt.Fprint(w, n)
			return
		}
		for range size / len(line) {
			_, _ = w.Write(line)
		}
	})
	most := make(chan int64, 1)
	stop := make(chan struct{})
	go func() {
		var m int64
		for {
			select {
			case <-stop:
				most <- m
				return
			case <-time.After(time.Millisecond):
				m = max(m, r.pool.Usage().Memory)
			}
		}
	}()
	resp, err := r.client().Get(o.URL)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err != nil || n != size {
		t.Errorf("%d bytes of %d, %v", n, size, err)
	}
	if _, body := do(t, r.client(), "PUT", o.URL, io.LimitReader(&endlessReader{line}, size)); body != fmt.Sprint(size) {
		t.Errorf("the origin got %s bytes of %d", body, size)
	}
	close(stop)
	if m := <-most; m > 2<<20 {
		t.Errorf("the spool had up to %d bytes in memory", m)
	}
}

type endlessReader struct{ line []byte }

func (r *endlessReader) Read(p []byte) (int, error) { return copy(p, r.line), nil }

func TestFullSpoolIsSaid(t *testing.T) {
	r := newRig(t, func(p *plan) {
		p.spool.Memory, p.spool.TotalMemory = 1<<10, 1<<10
		p.spool.MaxObject, p.spool.TotalDisk, p.spool.Wait = 8<<20, 8<<20, short
	})
	first, release := make(chan struct{}), make(chan struct{})
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		_, _ = w.Write(seq(5 << 20))
		if req.URL.Path == "/first" {
			_ = http.NewResponseController(w).Flush()
			close(first)
			<-release
		}
	})
	done := make(chan int, 1)
	go func() {
		resp, _ := get(t, r.client(), o.URL+"/first")
		done <- resp.StatusCode
	}()
	<-first
	eventually(t, "the first is held", func() bool { return r.pool.Usage().Disk >= 5<<20 })
	resp, body := get(t, r.client(), o.URL+"/second")
	wantPage(t, resp, body, 503, notice.Unavailable)
	close(release)
	if got := <-done; got != http.StatusOK {
		t.Errorf("the first got %d", got)
	}
	if resp, _ := get(t, r.client(), o.URL+"/third"); resp.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %s", resp.Status)
	}
}

func TestReplyTimeoutDoesNotCountTheUpload(t *testing.T) {
	const pauses = 6
	const pause = 4 * short
	r := newRig(t, func(p *plan) { p.web.ReplyTimeout = (pauses - 1) * pause })
	addr := r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		buf := make([]byte, 4<<20)
		for n := 0; ; n++ {
			// Only while much more is to come than the sockets' buffers take: what is in them counts as sent.
			if n < pauses {
				time.Sleep(pause.Std())
			}
			if _, err := io.ReadFull(req.Body, buf); err != nil {
				break
			}
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	resp, body := do(t, r.client(), "PUT", "http://"+addr+"/", io.LimitReader(&endlessReader{seq(1 << 20)}, 48<<20))
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s %q", resp.Status, body)
	}
}
