package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"lazaret/internal/notice"

	"golang.org/x/net/http2"
)

// ends waits for the other side to end the connection, and returns what it said before.
func (c *rawConn) ends(what string) string {
	c.t.Helper()
	rest, err := io.ReadAll(c.br)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("%s: the connection may stay for ever", what)
	}
	return string(rest)
}

// A request that is answered before its content was read does not keep its connection by not sending it, and a client that waits
// for the answer first gets it.
func TestAnswerThatDoesNotWaitForContent(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.AuthFile = htpasswd(t, "anna", "geheim") })
	r.server.http1.Linger = short.Std()
	hostport := r.tlsOrigin(virusOrigin).Listener.Addr().String()
	const auth = "Proxy-Authorization: Basic YW5uYTpnZWhlaW0=\r\n"
	lengths := []string{"Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 1000000\r\n", "Content-Length: 10\r\nExpect: 100-continue\r\n"}
	for _, c := range []struct {
		name, head string
		status     int
	}{
		{"for the gateway", "POST http://lazaret.internal/ HTTP/1.1\r\nHost: x\r\n", 405},
		{"not for a proxy", "POST / HTTP/1.1\r\nHost: foo\r\n", 400},
		{"CONNECT with content", "CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: x\r\n" + auth, 400},
		{"a scheme that is not known", "POST ftp://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n", 501},
		{"no password", "POST http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n", 407},
		{"no such page", "POST http://127.0.0.1:9999/.well-known/lazaret/x HTTP/1.1\r\nHost: 127.0.0.1:9999\r\n" + auth, 501},
		{"a loop", "POST http://127.0.0.1:9999/ HTTP/1.1\r\nHost: x\r\nVia: 1.1 " + r.server.pseudonym + "\r\n", 508},
		{"an expectation that is not known", "POST http://127.0.0.1:9999/ HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n", 417},
		{"another host", "inside POST / HTTP/1.1\r\nHost: other.example\r\n", 421},
	} {
		for _, length := range lengths {
			t.Run(c.name+", "+strings.ReplaceAll(strings.TrimSpace(length), "\r\n", ", "), func(t *testing.T) {
				t.Parallel() // a connection is lingered over
				head, inside := strings.CutPrefix(c.head, "inside ")
				conn := r.dial()
				if inside {
					conn = r.secure(r.connectOver(conn, hostport, auth), hostport)
				}
				conn.t = t
				resp, body := conn.send(head + length + "\r\n").response("POST")
				if resp.StatusCode != c.status || !resp.Close {
					t.Errorf("%s, close %v: %s", resp.Status, resp.Close, body)
				}
				if rest := conn.ends(c.name); rest != "" {
					t.Errorf("then %q", rest)
				}
			})
		}
	}
}

func TestConnectionGoesOnAfterSmallRefusedUpload(t *testing.T) {
	r := newRig(t)
	u := r.origin(virusOrigin).URL
	next := "GET " + u + "/clean HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, upload := range []string{"Content-Length: 10\r\n\r\n0123456789", "Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"} {
		c := r.dial().send("POST / HTTP/1.1\r\nHost: foo\r\n" + upload + next + next)
		if resp, body := c.response("POST"); resp.StatusCode != http.StatusBadRequest || resp.Close {
			t.Errorf("%s, close %v: %s", resp.Status, resp.Close, body)
		}
		for range 2 {
			if resp, body := c.response("GET"); resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %s", resp.Status, body)
			}
		}
	}
}

// What comes after an answer that came first is content, whatever it looks like.
func TestLateContentIsNoRequest(t *testing.T) {
	r := newRig(t)
	r.server.http1.Linger = short.Std()
	asked := make(chan string, 10)
	o := r.origin(func(_ http.ResponseWriter, req *http.Request) { asked <- req.URL.Path })
	smuggled := "GET " + o.URL + "/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, c := range []struct{ head, content string }{
		{"Content-Length: " + fmt.Sprint(len(smuggled)), smuggled},
		{"Content-Length: " + fmt.Sprint(len(smuggled)+1), smuggled},
		{"Content-Length: " + fmt.Sprint(len(smuggled)) + "\r\nExpect: 100-continue", smuggled},
		{"Transfer-Encoding: chunked", "zz\r\n" + smuggled},
		{"Transfer-Encoding: chunked", smuggled},
	} {
		conn := r.dial().send("POST / HTTP/1.1\r\nHost: foo\r\n" + c.head + "\r\n\r\n")
		if resp, body := conn.response("POST"); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", resp.Status, body)
		}
		_, _ = io.WriteString(conn.Conn, c.content) // it may fail: nobody need read it
		if rest := conn.ends(c.head); rest != "" {
			t.Errorf("%s: %q", c.head, rest)
		}
	}
	select {
	case path := <-asked:
		t.Errorf("%s was asked for", path)
	default:
	}
}

func TestClientWithoutPermissionTakesNoPlace(t *testing.T) {
	r := newRig(t, func(p *plan) {
		p.web.AllowClients = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		p.web.MaxConnections, p.web.MaxConnectionsClient = 1, 1
	})
	u := r.origin(virusOrigin).URL
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	var others []*rawConn
	for range maxLeaving + 20 {
		nc, err := dialer.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(patience))
		c := &rawConn{Conn: nc, t: t, br: bufio.NewReader(nc)}
		others = append(others, c)
		_, _ = io.WriteString(nc, "POST "+u+"/clean HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n") // some are closed at once
	}
	if resp, body := r.dial().send("GET " + u + "/clean HTTP/1.1\r\nHost: x\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK {
		t.Errorf("the others have taken the place: %s, %s", resp.Status, body)
	}
	for i, c := range others {
		if resp, err := http.ReadResponse(c.br, nil); i < maxLeaving/2 {
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			wantPage(t, resp, string(body), http.StatusForbidden, notice.ForbiddenClient)
		}
		c.ends("a client without permission")
	}
	eventually(t, "nobody is being turned away any more", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		return r.server.leaving == 0
	})
}

// Answers that are so small that they are sent when the exchange is over must be taken, too.
func TestPipelinedAnswersThatNobodyTakes(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.StallTimeout = 4 * short })
	link := "</" + strings.Repeat("x", 50_000) + ">; rel=preload"
	for name, h := range map[string]http.HandlerFunc{
		"small answers": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(seq(1900)) },
		"hints": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", link)
			for range 10 {
				w.WriteHeader(http.StatusEarlyHints)
			}
			w.Header().Del("Link")
		},
		"nothing but heads": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Much", strings.Repeat("x", 3000)) },
	} {
		hostport := r.tlsOrigin(h).Listener.Addr().String()
		plain := r.origin(h)
		for _, c := range []struct {
			conn *rawConn
			next string
		}{
			{r.dialNarrow(), "GET " + plain.URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n"},
			{r.secure(r.connectOver(r.dialNarrow(), hostport), hostport), "GET / HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n"},
		} {
			many := strings.Repeat(c.next, 20)
			var err error
			for err == nil {
				_, err = io.WriteString(c.conn.Conn, many)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection may stay for ever", name)
			}
		}
	}
}

// dialNarrow is dial for a client whose socket takes little.
func (r *rig) dialNarrow() *rawConn {
	r.t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096), syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4096))
		}), err)
	}}
	c, err := d.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience / 2))
	r.t.Cleanup(func() { _ = c.Close() })
	return &rawConn{Conn: c, t: r.t, br: bufio.NewReader(c)}
}

func TestSmallAnswerWithoutAWindowForIt(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.StallTimeout = short })
	hostport := r.tlsOrigin(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(seq(11)) }).Listener.Addr().String()
	c := r.connect(hostport, "h2")
	fr := h2SendAs(c.Conn, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", hostport)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatalf("the stream was not ended: %v", err)
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			t.Fatalf("%d bytes came", f.Length)
		case *http2.RSTStreamFrame:
			return
		}
	}
}
