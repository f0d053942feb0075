package web

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
)

// echoHead answers with the request as the origin saw it.
func echoHead(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "%s %s %s\nHost: %s\n", r.Method, r.RequestURI, r.Proto, r.Host)
	_ = r.Header.Write(w)
	b, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "\n%s", b)
}

func TestEveryMethod(t *testing.T) {
	r := newRig(t)
	for name, o := range map[string]string{"http": r.origin(echoHead).URL, "https": r.tlsOrigin(echoHead).URL} {
		c := r.client()
		for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "X-MADE-UP"} {
			resp, body := do(t, c, m, o+"/x?y=1", strings.NewReader("content"))
			if resp.StatusCode != http.StatusOK || !strings.HasPrefix(body, m+" /x?y=1 HTTP/") || !strings.HasSuffix(body, "\ncontent") {
				t.Errorf("%s %s: %s %q", name, m, resp.Status, body)
			}
		}
		if resp, body := do(t, c, "HEAD", o+"/x", nil); resp.StatusCode != http.StatusOK || body != "" || resp.ContentLength <= 0 {
			t.Errorf("%s HEAD: %s, length %d, %q", name, resp.Status, resp.ContentLength, body)
		}
	}
}

func TestPathsAreLeftAsTheyAre(t *testing.T) {
	r := newRig(t)
	plain, secure := r.origin(echoHead), r.tlsOrigin(echoHead)
	for _, path := range []string{
		"/", "/a%2Fb", "/a%2fb", "/%41", "/a//b", "//a", "/a/../b", "/a/./b", "/?", "/a?b=%zz&c", "/a;b", "/a|b", "/a[1]", `/a"b`, "/a'b",
		"/caf\xc3\xa9", "/a?q=caf\xe9", "/a#b", "/a%20b", "/:80", "/http://x/",
	} {
		c := r.dial().send("GET " + plain.URL + path + " HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp, body := c.response("GET"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(body, "GET "+path+" HTTP/1.1\n") {
			t.Errorf("http %q: %s %.60q", path, resp.Status, body)
		}
		hostport := secure.Listener.Addr().String()
		in := r.connect(hostport).send("GET " + path + " HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n")
		if resp, body := in.response("GET"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(body, "GET "+path+" HTTP/1.1\n") {
			t.Errorf("https %q: %s %.60q", path, resp.Status, body)
		}
	}
}

func TestAbsoluteFormOfHTTPS(t *testing.T) {
	r := newRig(t)
	o := r.tlsOrigin(virusOrigin)
	c := r.dial()
	for range 2 {
		c.send("GET " + o.URL + "/clean HTTP/1.1\r\nHost: wrong.example\r\n\r\n")
		if resp, body := c.response("GET"); resp.StatusCode != http.StatusOK || body != "harmless, by HTTP/1.1" {
			t.Errorf("clean: %s %q", resp.Status, body)
		}
	}
	c.send("GET " + o.URL + "/eicar.com HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, body := c.response("GET")
	wantPage(t, resp, body, 403, notice.Infected)
	r.audit.wait(t, "the virus", func(x audit.Record) bool {
		return x.Verdict.Outcome == scan.Infected && x.Facts.Protocol == "https"
	})
}

func TestAbsoluteFormOfHTTPSVerifiesTheOrigin(t *testing.T) {
	r := newRig(t)
	other := newRootAuthority(t)
	r.root = other
	o := r.tlsOrigin(virusOrigin)
	resp, body := r.dial().send("GET " + o.URL + "/clean HTTP/1.1\r\nHost: x\r\n\r\n").response("GET")
	wantPage(t, resp, body, 502, notice.OriginCert)
}

func TestUserinfoInURLsGoesNowhere(t *testing.T) {
	r := newRig(t)
	o := r.origin(echoHead)
	c := r.dial().send("GET http://user:secret@" + o.Listener.Addr().String() + "/x HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, body := c.response("GET")
	if resp.StatusCode != http.StatusBadRequest && (resp.StatusCode != http.StatusOK || strings.Contains(body, "secret")) {
		t.Errorf("%s %q", resp.Status, body)
	}
	for _, x := range r.audit.list() {
		if s := fmt.Sprintf("%+v", x); strings.Contains(s, "secret") {
			t.Errorf("the record has the password: %s", s)
		}
	}
	if len(r.audit.list()) == 0 {
		t.Error("there is no record")
	}
}

func TestPipelinedRequests(t *testing.T) {
	r := newRig(t)
	o := r.origin(echoHead)
	var b strings.Builder
	for i := range 10 {
		fmt.Fprintf(&b, "GET %s/%d HTTP/1.1\r\nHost: x\r\n\r\n", o.URL, i)
	}
	c := r.dial().send(b.String())
	for i := range 10 {
		if _, body := c.response("GET"); !strings.HasPrefix(body, fmt.Sprintf("GET /%d HTTP/1.1", i)) {
			t.Fatalf("answer %d is %q", i, body)
		}
	}
}

func TestHeadersUpAndDown(t *testing.T) {
	r := newRig(t)
	seen := make(chan http.Header, 1)
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		seen <- req.Header.Clone()
		h := w.Header()
		h["Connection"] = []string{"X-Hop"}
		h["X-Hop"] = []string{"1"}
		h["Alt-Svc"] = []string{`h3=":443"`}
		h["Proxy-Authenticate"] = []string{"Basic"}
		h["Set-Cookie"] = []string{"a=1", "b=2"}
		h["X-End"] = []string{"kept"}
		h["Content-Type"] = nil
		_, _ = io.WriteString(w, "<html>")
	})
	c := r.dial().send("GET " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nConnection: X-Gone\r\nX-Gone: 1\r\nProxy-Authorization: Basic eDp5\r\n" +
		"Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-Kept: 1\r\nCookie: a=b\r\nRange: bytes=0-1\r\n" +
		"Accept-Encoding: gzip, compress\r\n\r\n")
	resp, _ := c.response("GET")
	up := <-seen
	for _, name := range []string{"Connection", "X-Gone", "Proxy-Authorization", "Proxy-Connection", "Te", "Upgrade", "Http2-Settings", "Range", "X-Forwarded-For", "User-Agent"} {
		if v := up[name]; v != nil {
			t.Errorf("the origin got %s: %q", name, v)
		}
	}
	if up.Get("X-Kept") != "1" || up.Get("Cookie") != "a=b" || up.Get("Accept-Encoding") != "gzip" || up.Get("Via") != "1.1 "+r.server.pseudonym {
		t.Errorf("the origin got %v", up)
	}
	for _, name := range []string{"Connection", "X-Hop", "Alt-Svc", "Proxy-Authenticate", "Content-Type"} {
		if v := resp.Header[name]; v != nil {
			t.Errorf("the client got %s: %q", name, v)
		}
	}
	if resp.Header.Get("X-End") != "kept" || len(resp.Header["Set-Cookie"]) != 2 || resp.Header.Get("Via") != "1.1 "+r.server.pseudonym {
		t.Errorf("the client got %v", resp.Header)
	}
}

func TestLoopIsNoticed(t *testing.T) {
	r := newRig(t)
	o := r.tlsOrigin(virusOrigin)
	hostport := o.Listener.Addr().String()
	via := "Via: 1.0 x, 1.1 " + r.server.pseudonym + "\r\n\r\n"
	for name, c := range map[string]*rawConn{
		"plain":   r.dial().send("GET http://" + hostport + "/ HTTP/1.1\r\nHost: x\r\n" + via),
		"connect": r.dial().send("CONNECT " + hostport + " HTTP/1.1\r\nHost: x\r\n" + via),
		"inside":  r.connect(hostport).send("GET / HTTP/1.1\r\nHost: " + hostport + "\r\n" + via),
	} {
		resp, body := c.response("GET")
		if wantPage(t, resp, body, 508, notice.Loop); t.Failed() {
			t.Log(name)
		}
	}
}

func TestRequestsToTheGatewayItself(t *testing.T) {
	self := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "own "+r.URL.Path) })
	r := newRig(t, func(p *plan) { p.self = self })
	for _, c := range []struct{ request, want string }{
		{"GET http://lazaret.internal/ca.pem HTTP/1.1\r\nHost: lazaret.internal\r\n\r\n", "own /ca.pem"},
		{"GET http://" + r.addr + "/a HTTP/1.1\r\nHost: x\r\n\r\n", "own /a"},
		{"GET /b HTTP/1.1\r\nHost: " + r.addr + "\r\n\r\n", "own /b"},
		{"GET /c HTTP/1.1\r\nHost: localhost:" + strings.Split(r.addr, ":")[1] + "\r\n\r\n", "own /c"},
	} {
		if resp, body := r.dial().send(c.request).response("GET"); resp.StatusCode != http.StatusOK || body != c.want {
			t.Errorf("%q: %s %q", c.request, resp.Status, body)
		}
	}
	resp, body := r.dial().send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").response("GET")
	wantPage(t, resp, body, 400, notice.BadRequest)
	resp, body = r.dial().send("CONNECT lazaret.internal:443 HTTP/1.1\r\nHost: x\r\n\r\n").response("GET")
	wantPage(t, resp, body, 403, notice.ForbiddenTarget)
	if resp, _ := r.dial().send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").response("OPTIONS"); resp.StatusCode != http.StatusOK || resp.Header.Get("Allow") == "" {
		t.Errorf("OPTIONS *: %s %v", resp.Status, resp.Header)
	}
	without := newRig(t)
	if resp, body := without.dial().send("GET http://lazaret.internal/ HTTP/1.1\r\nHost: x\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK || !strings.Contains(body, "Lazaret") {
		t.Errorf("without a handler: %s %q", resp.Status, body)
	}
}

func TestOtherSchemesAreNotFetched(t *testing.T) {
	r := newRig(t)
	for _, u := range []string{"ftp://127.0.0.1/x", "file://localhost/etc/passwd", "ws://127.0.0.1/", "gopher://127.0.0.1:70/"} {
		resp, body := r.dial().send("GET " + u + " HTTP/1.1\r\nHost: x\r\n\r\n").response("GET")
		if resp.StatusCode < 400 || resp.Header.Get("X-Lazaret-Kind") != string(notice.NotSupported) {
			t.Errorf("%s: %s %q", u, resp.Status, body)
		}
	}
}

func TestTraceAndOptionsCountHops(t *testing.T) {
	r := newRig(t)
	o := r.origin(echoHead)
	resp, body := r.dial().send("TRACE " + o.URL + "/x HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nCookie: secret=1\r\nX-Y: z\r\n\r\n").response("TRACE")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "message/http" || !strings.Contains(body, "X-Y: z") || strings.Contains(body, "secret") {
		t.Errorf("TRACE that ends here: %s %v %q", resp.Status, resp.Header, body)
	}
	_, body = r.dial().send("TRACE " + o.URL + "/x HTTP/1.1\r\nHost: x\r\nMax-Forwards: 7\r\n\r\n").response("TRACE")
	if !strings.Contains(body, "Max-Forwards: 6") {
		t.Errorf("TRACE that goes on: %q", body)
	}
	resp, body = r.dial().send("OPTIONS " + o.URL + " HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n").response("OPTIONS")
	if resp.StatusCode != http.StatusOK || body != "" || resp.Header.Get("Allow") == "" {
		t.Errorf("OPTIONS that ends here: %s %q", resp.Status, body)
	}
	line := make(chan string, 1)
	raw := r.rawOrigin(func(_ net.Conn, br *bufio.Reader) {
		s, _ := br.ReadString('\n')
		line <- s
	})
	r.dial().send("OPTIONS http://" + raw + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := <-line; got != "OPTIONS * HTTP/1.1\r\n" {
		t.Errorf("OPTIONS of a whole server: %q", got)
	}
}

func TestContinueIsSaidAndNotPassedOn(t *testing.T) {
	r := newRig(t)
	o := r.origin(echoHead)
	c := r.dial().send("POST " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n")
	line, err := c.br.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("before the content: %q, %v", line, err)
	}
	_, _ = c.br.ReadString('\n')
	resp, body := c.send("content").response("POST")
	if resp.StatusCode != http.StatusOK || !strings.HasSuffix(body, "\ncontent") || strings.Contains(body, "Expect") {
		t.Errorf("%s %q", resp.Status, body)
	}
}

func TestEarlyHintsAreRelayed(t *testing.T) {
	r := newRig(t)
	h := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.Header().Set("Alt-Svc", "h3")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "page")
	}
	for name, u := range map[string]string{"http": r.origin(h).URL, "https": r.tlsOrigin(h).URL} {
		var mu sync.Mutex
		var hints []textproto.MIMEHeader
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			mu.Lock()
			defer mu.Unlock()
			if code == 103 {
				hints = append(hints, h)
			}
			return nil
		}})
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
		resp, err := r.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		mu.Lock()
		if len(hints) != 1 || hints[0].Get("Link") != "</style.css>; rel=preload" || hints[0].Get("Alt-Svc") != "" || string(b) != "page" || resp.Header.Get("Link") != "" {
			t.Errorf("%s: hints %v, then %v %q", name, hints, resp.Header, b)
		}
		mu.Unlock()
	}
}

func TestTrailersBothWays(t *testing.T) {
	r := newRig(t)
	h := func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%s, with %s", b, req.Trailer.Get("X-Up"))
		w.Header().Set("X-Sum", "42")
	}
	for name, u := range map[string]string{"http": r.origin(h).URL, "https": r.tlsOrigin(h).URL} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, u, io.MultiReader(strings.NewReader("content")))
		req.ContentLength = -1
		req.Trailer = http.Header{"X-Up": {"7"}}
		resp, err := r.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != "content, with 7" || resp.Trailer.Get("X-Sum") != "42" {
			t.Errorf("%s: %q, trailers %v", name, b, resp.Trailer)
		}
	}
}

func TestChunkedWithoutLength(t *testing.T) {
	r := newRig(t)
	big := seq(300 << 10)
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		for part := range slices.Chunk(b, 1000) {
			_, _ = w.Write(part)
			_ = http.NewResponseController(w).Flush()
		}
	})
	resp, body := do(t, r.client(), "POST", o.URL, io.MultiReader(bytes.NewReader(big)))
	if body != string(big) || resp.ContentLength != int64(len(big)) {
		t.Errorf("%d bytes of %d came back, length %d", len(body), len(big), resp.ContentLength)
	}
}

func TestOldClients(t *testing.T) {
	r := newRig(t)
	o := r.origin(virusOrigin)
	c := r.dial().send("GET " + o.URL + "/clean HTTP/1.0\r\n\r\n")
	resp, body := c.response("GET")
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(body, "harmless") || !c.closed() {
		t.Errorf("%s %q", resp.Status, body)
	}
}

func TestConnectionsToOriginsAreNotShared(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	peers := map[string]string{} // client → remote address that the origin saw
	var conns atomic.Int32
	o := r.origin(func(_ http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		who := req.Header.Get("X-Client")
		if old, ok := peers[who]; ok && old != req.RemoteAddr {
			t.Errorf("client %s came over %s and over %s", who, old, req.RemoteAddr)
		} else if !ok {
			conns.Add(1)
		}
		peers[who] = req.RemoteAddr
	})
	var all []*rawConn
	for i := range 3 {
		c := r.dial()
		all = append(all, c)
		for range 3 {
			c.send(fmt.Sprintf("GET %s/ HTTP/1.1\r\nHost: x\r\nX-Client: %d\r\n\r\n", o.URL, i)).response("GET")
		}
	}
	mu.Lock()
	seen := map[string]bool{}
	for _, p := range peers {
		seen[p] = true
	}
	mu.Unlock()
	if len(all) != 3 || len(seen) != 3 {
		t.Errorf("3 clients came over %d connections", len(seen))
	}
}

func TestOneClientOfManyOriginsKeepsFewConnections(t *testing.T) {
	r := newRig(t)
	var open atomic.Int32
	c := r.dial()
	for range maxOrigins * 2 {
		addr := r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
			open.Add(1)
			defer open.Add(-1)
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		})
		if resp, _ := c.send("GET http://" + addr + "/ HTTP/1.1\r\nHost: x\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
	eventually(t, "only a few connections are kept", func() bool { return open.Load() == maxOrigins })
	c.Close()
	eventually(t, "they end with the client's", func() bool { return open.Load() == 0 })
}

func TestParentProxy(t *testing.T) {
	requests := make(chan string, 10)
	var r *rig
	var parent string
	first := newRig(t)
	parent = first.rawOrigin(func(c net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		requests <- req.Method + " " + req.RequestURI + " " + req.Host + " " + req.Header.Get("Proxy-Authorization")
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nthru")
	})
	r = newRig(t, func(p *plan) { p.egress.Parent = "http://me:secret@" + parent })
	resp, body := r.dial().send("GET http://example.com/a?b HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic bWluZTptaW5l\r\n\r\n").response("GET")
	if resp.StatusCode != http.StatusOK || body != "thru" {
		t.Errorf("%s %q", resp.Status, body)
	}
	if got, want := <-requests, "GET http://example.com/a?b example.com Basic bWU6c2VjcmV0"; got != want {
		t.Errorf("the parent got %q, want %q", got, want)
	}
}

func TestClientGoesAwayDuringTheFetch(t *testing.T) {
	r := newRig(t)
	started, ended := make(chan struct{}), make(chan struct{})
	o := r.origin(func(_ http.ResponseWriter, req *http.Request) {
		close(started)
		<-req.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, o.URL, nil)
	go func() { <-started; cancel() }()
	if resp, err := r.client().Do(req); err == nil {
		resp.Body.Close()
		t.Error("there was an answer")
	}
	<-ended // the origin's request ends with the client's
}
