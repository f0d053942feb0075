package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
	"lazaret/test/ports"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestFaultyOriginsGetAPageAndNoRequest(t *testing.T) {
	r := newRig(t)
	var requests atomic.Int32
	count := func(http.ResponseWriter, *http.Request) { requests.Add(1) }
	trusted := r.root
	faulty := func(root *rootAuthority, change ...func(*x509.Certificate)) *httptest.Server {
		r.root = root
		defer func() { r.root = trusted }()
		return r.tlsOrigin(count, change...)
	}
	for _, c := range []struct {
		name   string
		origin *httptest.Server
	}{
		{"untrusted", faulty(newRootAuthority(t))},
		{"expired", faulty(trusted, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })},
		{"wrong name", faulty(trusted, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} })},
	} {
		for _, change := range [][]func(*http.Transport){nil, {noHTTP2}} {
			resp, body := get(t, r.client(change...), c.origin.URL+"/secret", "Cookie", "a=b")
			if wantPage(t, resp, body, 502, notice.OriginCert); t.Failed() {
				t.Fatal(c.name)
			}
			resp, body = do(t, r.client(change...), "POST", c.origin.URL+"/secret", strings.NewReader("a password"))
			wantPage(t, resp, body, 502, notice.OriginCert)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests reached faulty origins", n)
	}
	// What is in order still works: the counter counts.
	get(t, r.client(), r.tlsOrigin(count).URL)
	if requests.Load() != 1 {
		t.Error("the counter sees nothing")
	}
}

func TestFaultIsJudgedAfresh(t *testing.T) {
	r := newRig(t)
	trusted := r.root
	r.root = newRootAuthority(t)
	bad := r.tlsOrigin(virusOrigin)
	r.root = trusted
	c := r.client()
	resp, body := get(t, c, bad.URL+"/clean")
	wantPage(t, resp, body, 502, notice.OriginCert)
	// The same address, with a certificate that is in order.
	addr := bad.Listener.Addr().String()
	bad.Close()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	good := httptest.NewUnstartedServer(http.HandlerFunc(virusOrigin))
	good.Listener = l
	good.TLS = &tls.Config{Certificates: []tls.Certificate{trusted.leaf(t)}}
	good.StartTLS()
	defer good.Close()
	if resp, body := get(t, c, "https://"+addr+"/clean"); resp.StatusCode != http.StatusOK {
		t.Errorf("%s %q", resp.Status, body)
	}
}

func TestDomainFrontingIsRefused(t *testing.T) {
	r := newRig(t)
	var requests atomic.Int32
	o := r.tlsOrigin(func(http.ResponseWriter, *http.Request) { requests.Add(1) })
	hostport := o.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(hostport)
	for _, c := range []struct{ name, request string }{
		{"another host", "GET / HTTP/1.1\r\nHost: hidden.example\r\n\r\n"},
		{"another port", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"},
		{"another host, absolute", "GET https://hidden.example/ HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n"},
		{"another scheme", "GET http://" + hostport + "/ HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n"},
		{"an alias", "GET / HTTP/1.1\r\nHost: localhost:" + port + "\r\n\r\n"},
		{"no such host", "GET / HTTP/1.1\r\nHost: 0x7f.1:" + port + "\r\n\r\n"},
	} {
		resp, body := r.connect(hostport).send(c.request).response("GET")
		if wantPage(t, resp, body, 421, notice.Mismatch); t.Failed() {
			t.Fatal(c.name)
		}
	}
	if requests.Load() != 0 {
		t.Error("a request reached the origin")
	}
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n",
		"GET https://" + hostport + "/ HTTP/1.1\r\nHost: whatever\r\n\r\n",
	} {
		if resp, body := r.connect(hostport).send(request).response("GET"); resp.StatusCode != http.StatusOK {
			t.Errorf("%q: %s %s", request, resp.Status, body)
		}
	}
	if requests.Load() != 2 {
		t.Error("the counter sees nothing")
	}
}

// h2Send sends one HTTP/2 request with exactly these fields, and returns what frames are read by.
func h2Send(c net.Conn, fields ...string) *http2.Framer { return h2SendAs(c, nil, fields...) }

// h2SendAs is h2Send of a client with settings of its own.
func h2SendAs(c net.Conn, settings []http2.Setting, fields ...string) *http2.Framer {
	_, _ = io.WriteString(c, http2.ClientPreface)
	fr := http2.NewFramer(c, c)
	_ = fr.WriteSettings(settings...)
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true})
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return fr
}

// h2Start sends an ordinary request, whose answer nobody reads.
func h2Start(c net.Conn, hostport string) *http2.Framer {
	return h2Send(c, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", hostport)
}

// h2Request sends one HTTP/2 request with exactly these fields, and returns the status of the answer.
func h2Request(t *testing.T, c net.Conn, fields ...string) string {
	t.Helper()
	fr := h2Send(c, fields...)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return f.Header().Type.String()
		}
	}
}

func TestDomainFrontingOverHTTP2IsRefused(t *testing.T) {
	r := newRig(t)
	hostport := r.tlsOrigin(virusOrigin).Listener.Addr().String()
	for name, c := range map[string]struct {
		fields []string
		want   string
	}{
		"right":                   {[]string{":method", "GET", ":scheme", "https", ":path", "/clean", ":authority", hostport}, "200"},
		"another authority":       {[]string{":method", "GET", ":scheme", "https", ":path", "/clean", ":authority", "hidden.example"}, "421"},
		"another host besides":    {[]string{":method", "GET", ":scheme", "https", ":path", "/clean", ":authority", hostport, "host", "hidden.example"}, "421"},
		"the same host besides":   {[]string{":method", "GET", ":scheme", "https", ":path", "/clean", ":authority", hostport, "host", hostport}, "200"},
		"host instead":            {[]string{":method", "GET", ":scheme", "https", ":path", "/clean", "host", hostport}, "200"},
		"another host instead":    {[]string{":method", "GET", ":scheme", "https", ":path", "/clean", "host", "hidden.example"}, "421"},
		"an absolute path":        {[]string{":method", "GET", ":scheme", "https", ":path", "https://hidden.example/clean", ":authority", hostport}, "421"},
		"CONNECT inside":          {[]string{":method", "CONNECT", ":authority", hostport}, "501"},
		"CONNECT to another host": {[]string{":method", "CONNECT", ":authority", "hidden.example:443"}, "501"},
	} {
		got := h2Request(t, r.connect(hostport, "h2").Conn, c.fields...)
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestTunnelListPassesBytesThrough(t *testing.T) {
	r := newRig(t, func(p *plan) { p.tls.Tunnel = []string{"127.0.0.1"} })
	o := r.tlsOrigin(virusOrigin)
	roots := x509.NewCertPool()
	roots.AddCert(r.root.cert) // the origin's own certificate, and not one of the gateway's
	c := r.client(func(tr *http.Transport) { tr.TLSClientConfig.RootCAs = roots })
	if resp, body := get(t, c, o.URL+"/eicar.com"); resp.StatusCode != http.StatusOK || !eicarIn(body) {
		t.Errorf("%s %q", resp.Status, body)
	}
	rec := r.audit.wait(t, "the tunnel", func(x audit.Record) bool { return x.Event == audit.Exempt })
	if rec.Facts.Host != "127.0.0.1" || rec.Facts.Method != http.MethodConnect || !strings.Contains(rec.Detail, "tunnel") {
		t.Errorf("%+v", rec)
	}
}

func TestTunnelToNowhereIsSaidBeforeItIsGranted(t *testing.T) {
	r := newRig(t, func(p *plan) { p.tls.Tunnel = []string{"127.0.0.1"} })
	addr, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	resp, body := r.dial().send("CONNECT " + addr + " HTTP/1.1\r\nHost: x\r\n\r\n").response("GET")
	wantPage(t, resp, body, 502, notice.OriginRefused)
}

func TestPlainHTTPInsideConnect(t *testing.T) {
	r := newRig(t)
	o := r.origin(virusOrigin)
	hostport := o.Listener.Addr().String()
	c := r.dial().send("CONNECT " + hostport + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(c.br, &http.Request{Method: http.MethodHead}); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	for range 2 {
		c.send("GET /clean HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n")
		if resp, body := c.response("GET"); resp.StatusCode != http.StatusOK || body != "harmless, by HTTP/1.1" {
			t.Errorf("%s %q", resp.Status, body)
		}
	}
	resp, body := c.send("GET /eicar.com HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n").response("GET")
	wantPage(t, resp, body, 403, notice.Infected)
	resp, body = c.send("GET /eicar.com HTTP/1.1\r\nHost: hidden.example\r\n\r\n").response("GET")
	wantPage(t, resp, body, 421, notice.Mismatch)
}

func TestOtherProtocolsInsideConnectAreRefused(t *testing.T) {
	r := newRig(t)
	hostport := r.origin(virusOrigin).Listener.Addr().String()
	c := r.dial().send("CONNECT " + hostport + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(c.br, &http.Request{Method: http.MethodHead}); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	c.send("SSH-2.0-OpenSSH_9.9\r\n")
	if !c.closed() {
		t.Error("the connection goes on")
	}
	r.audit.wait(t, "what was refused", func(x audit.Record) bool { return x.Event == audit.Refuse && strings.Contains(x.Detail, "SSH") })
}

func TestClientHelloSentTogetherWithConnect(t *testing.T) {
	r := newRig(t)
	hostport := r.tlsOrigin(virusOrigin).Listener.Addr().String()
	c := r.dial()
	first := &onceConn{Conn: c.Conn, prefix: "CONNECT " + hostport + " HTTP/1.1\r\nHost: x\r\n\r\n", br: c.br}
	tc := tls.Client(first, &tls.Config{InsecureSkipVerify: true, ServerName: "127.0.0.1"})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	in := &rawConn{Conn: tc, t: t, br: bufio.NewReader(tc)}
	if resp, body := in.send("GET /clean HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK {
		t.Errorf("%s %q", resp.Status, body)
	}
}

// onceConn sends prefix together with the first write, and takes the answer to CONNECT out of what comes.
type onceConn struct {
	net.Conn
	prefix string
	br     *bufio.Reader
	read   bool
}

func (c *onceConn) Write(p []byte) (int, error) {
	if c.prefix != "" {
		_, err := c.Conn.Write(append([]byte(c.prefix), p...))
		c.prefix = ""
		return len(p), err
	}
	return c.Conn.Write(p)
}

func (c *onceConn) Read(p []byte) (int, error) {
	if !c.read {
		c.read = true
		if resp, err := http.ReadResponse(c.br, &http.Request{Method: http.MethodHead}); err != nil || resp.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("CONNECT: %v, %w", resp, err)
		}
	}
	return c.br.Read(p)
}

// closer is an origin that closes its connection after n answers without saying so, and counts its connections.
func (r *rig) closer(n int, conns, requests *atomic.Int32) string {
	cert := r.root.leaf(r.t)
	return r.rawOrigin(func(c net.Conn, _ *bufio.Reader) {
		tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		br := bufio.NewReader(tc)
		conns.Add(1)
		for range n {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			requests.Add(1)
			_, _ = io.WriteString(tc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
		if _, err := http.ReadRequest(br); err == nil {
			requests.Add(1)
		}
		_ = tc.Close()
	})
}

func TestIdempotentRequestIsSentAgainWhenTheOriginHadEnough(t *testing.T) {
	r := newRig(t)
	var conns, requests atomic.Int32
	addr := r.closer(1, &conns, &requests)
	c := r.connect(addr)
	for range 2 {
		resp, body := c.send("GET / HTTP/1.1\r\nHost: " + addr + "\r\n\r\n").response("GET")
		if resp.StatusCode != http.StatusOK || body != "ok" {
			t.Errorf("%s %q", resp.Status, body)
		}
	}
	if conns.Load() != 2 {
		t.Errorf("%d connections to the origin, want 2", conns.Load())
	}
}

func TestOtherRequestIsNotSentTwice(t *testing.T) {
	r := newRig(t)
	var conns, requests atomic.Int32
	addr := r.closer(1, &conns, &requests)
	c := r.connect(addr)
	post := "POST / HTTP/1.1\r\nHost: " + addr + "\r\nContent-Length: 3\r\n\r\npay"
	if resp, _ := c.send(post).response("POST"); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	c.send(post)
	if !c.closed() { // as the origin did it
		t.Error("there was an answer to what may or may not have happened")
	}
	if requests.Load() != 2 || conns.Load() != 1 {
		t.Errorf("%d requests over %d connections; want 2 over 1", requests.Load(), conns.Load())
	}
}

func TestFirstRequestThatIsNotAnsweredGetsAPage(t *testing.T) {
	r := newRig(t)
	var conns, requests atomic.Int32
	addr := r.closer(0, &conns, &requests)
	resp, body := r.connect(addr).send("GET / HTTP/1.1\r\nHost: " + addr + "\r\n\r\n").response("GET")
	wantPage(t, resp, body, 502, notice.OriginProtocol)
}

func TestIdleCloseIsMirrored(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			r := newRig(t)
			o := r.tlsOrigin(virusOrigin)
			hostport := o.Listener.Addr().String()
			c := r.connect(hostport, proto)
			if proto == "h2" {
				tr := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return c.Conn, nil }, ForceAttemptHTTP2: true}
				cc, err := tr.NewClientConn(t.Context(), "https", hostport)
				if err != nil {
					t.Fatal(err)
				}
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, o.URL+"/clean", nil)
				resp, err := cc.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				o.CloseClientConnections()
				eventually(t, "the browser's connection ends with the origin's", func() bool { return cc.Err() != nil })
				return
			}
			if resp, _ := c.send("GET /clean HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK {
				t.Fatal(resp.Status)
			}
			o.CloseClientConnections()
			if !c.closed() {
				t.Error("the browser's connection goes on")
			}
		})
	}
}

func TestOriginConnectionEndsWithTheBrowsers(t *testing.T) {
	r := newRig(t)
	for _, proto := range []string{"http/1.1", "h2"} {
		ended := make(chan struct{})
		cert := r.root.leaf(t)
		addr := r.rawOrigin(func(c net.Conn, _ *bufio.Reader) {
			tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{proto}})
			_, _ = io.Copy(io.Discard, tc)
			close(ended)
		})
		c := r.connect(addr, proto)
		c.Close()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("%s: the origin's connection goes on", proto)
		}
	}
}

func TestCloseOfOriginIsToldToTheBrowser(t *testing.T) {
	r := newRig(t)
	o := r.tlsOrigin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "last")
	})
	hostport := o.Listener.Addr().String()
	c := r.connect(hostport)
	resp, body := c.send("GET / HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n").response("GET")
	if body != "last" || !resp.Close || !c.closed() {
		t.Errorf("%q, close %v", body, resp.Close)
	}
}

func TestPanicCostsOneRequest(t *testing.T) {
	r := newRig(t)
	r.server.opt.Self = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") })
	if c := r.dial().send("GET http://lazaret.internal/ HTTP/1.1\r\nHost: x\r\n\r\n"); !c.closed() {
		t.Error("half an answer passes for one")
	}
	r.audit.wait(t, "the panic", func(x audit.Record) bool { return strings.Contains(x.Detail, "oops") })
	pages := r.server.opt.Dialer
	r.server.opt.Dialer = nil
	resp, body := r.dial().send("GET http://127.0.0.1:9999/ HTTP/1.1\r\nHost: x\r\n\r\n").response("GET")
	wantPage(t, resp, body, 500, notice.Internal)
	if strings.Contains(body, "nil pointer") {
		t.Error("the page tells what went wrong inside")
	}
	r.server.opt.Dialer = pages
	if resp, _ := get(t, r.client(), r.origin(virusOrigin).URL+"/clean"); resp.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %s", resp.Status)
	}
}

func TestManyStreamsOfOneConnection(t *testing.T) {
	r := newRig(t)
	o := r.tlsOrigin(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/virus" {
			_, _ = w.Write(scan.EICAR())
			return
		}
		fmt.Fprintf(w, "%s %s", req.URL.Path, req.RemoteAddr)
	})
	c := r.client()
	get(t, c, o.URL+"/first") // one connection for all that follow
	type answer struct{ path, body string }
	answers := make(chan answer, 100)
	for i := range cap(answers) {
		path := fmt.Sprint("/", i)
		if i%10 == 0 {
			path = "/virus"
		}
		go func() {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, o.URL+path, nil)
			resp, err := c.Do(req)
			if err != nil {
				answers <- answer{path, err.Error()}
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			answers <- answer{path, fmt.Sprint(resp.StatusCode, " ", string(b))}
		}()
	}
	peers := map[string]int{}
	for range cap(answers) {
		a := <-answers
		if a.path == "/virus" {
			if !strings.HasPrefix(a.body, "403") {
				t.Errorf("%+v", a)
			}
			continue
		}
		f := strings.Fields(a.body)
		if len(f) != 3 || f[0] != "200" || f[1] != a.path {
			t.Fatalf("%+v", a)
		}
		peers[f[2]]++
	}
	if len(peers) != 1 {
		t.Errorf("the origin saw the connections %v", peers)
	}
}
