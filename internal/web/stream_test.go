package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
)

func exempted(why string) func(audit.Record) bool {
	return func(x audit.Record) bool { return x.Event == audit.Exempt && strings.Contains(x.Detail, why) }
}

func TestEventsArriveAsTheyAreSent(t *testing.T) {
	for _, typ := range []string{"text/event-stream", "text/event-stream; charset=utf-8"} {
		r := newRig(t)
		next := make(chan string)
		h := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", typ)
			_ = http.NewResponseController(w).Flush()
			for s := range next {
				_, _ = io.WriteString(w, s)
				_ = http.NewResponseController(w).Flush()
			}
		}
		for _, u := range []string{r.origin(h).URL, r.tlsOrigin(h).URL} {
			next = make(chan string)
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
			resp, err := r.client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			br := bufio.NewReader(resp.Body)
			for i := range 5 {
				event := fmt.Sprintf("data: %d\n", i)
				next <- event // the next one is sent only when this one has arrived
				if got, err := br.ReadString('\n'); err != nil || got != event {
					t.Fatalf("%s: event %d is %q, %v", typ, i, got, err)
				}
			}
			close(next)
			if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
				t.Errorf("the end: %q, %v", rest, err)
			}
			resp.Body.Close()
		}
		if x := r.audit.wait(t, "the stream", exempted("event stream")); x.Decision.Rule != "policy.streamed" {
			t.Errorf("the record is %+v", x)
		}
	}
}

func TestStreamThatHasAnEndIsHeld(t *testing.T) {
	r := newRig(t)
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		if req.URL.Path == "/attachment" {
			w.Header().Set("Content-Disposition", "attachment; filename=x.com")
			_ = http.NewResponseController(w).Flush()
		}
		virusOrigin(w, &http.Request{URL: mustPath("/eicar.com")})
	})
	for _, path := range []string{"/known-length", "/attachment"} {
		resp, body := get(t, r.client(), o.URL+path)
		wantPage(t, resp, body, 403, notice.Infected)
	}
}

func TestStreamThatIsCutOffDoesNotEndProperly(t *testing.T) {
	r := newRig(t)
	addr := r.canned("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ndata: 1\n\r\n")
	c := r.dial().send("GET http://" + addr + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err == nil || string(b) != "data: 1\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestPolicyCanRefuseStreams before anything of them flows, but for those that a rule lets pass.
func TestPolicyCanRefuseStreams(t *testing.T) {
	r := newRig(t, func(p *plan) {
		p.policy.Streamed = policy.Block
		p.policy.Rules = []policy.Rule{{Name: "ours", Hosts: []string{"localhost"}, Outcome: []string{"streamed"}, Action: policy.Pass}}
	})
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
		case "/pictures":
			w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=b")
			_, _ = io.WriteString(w, "--b\r\n\r\none\r\n--b--\r\n")
		case "/radio":
			w.Header().Set("Content-Type", "audio/mpeg")
			_, _ = w.Write(airtime(200, nil))
		}
		_ = http.NewResponseController(w).Flush()
		if req.URL.Query().Has("on") {
			<-req.Context().Done()
		}
	})
	for _, path := range []string{"/events", "/pictures", "/radio"} {
		resp, body := get(t, r.client(), o.URL+path+"?on", "Accept", "application/json")
		wantPage(t, resp, body, 403, notice.NotScanned)
		if !strings.Contains(body, `"streamed"`) || !strings.Contains(body, `"policy.streamed"`) {
			t.Errorf("%s: %s", path, body)
		}
		resp, body = get(t, r.client(), strings.Replace(o.URL, "127.0.0.1", "localhost", 1)+path)
		if resp.StatusCode != http.StatusOK || body == "" {
			t.Errorf("%s, which a rule lets pass: %s %q", path, resp.Status, body)
		}
	}
	r.audit.wait(t, "the rule", func(x audit.Record) bool { return x.Event == audit.Exempt && x.Decision.Rule == "policy.rule.ours" })
}

// TestStoppedStreamIsRemembered: who asks again is told why, at once.
func TestStoppedStreamIsRemembered(t *testing.T) {
	for typ, form := range map[string]string{
		"text/event-stream": "data: %s\n\n", "multipart/x-mixed-replace; boundary=b": "--b\r\nContent-Type: text/plain\r\n\r\n%s\r\n--b--\r\n",
	} {
		r := newRig(t)
		o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", typ)
			_ = http.NewResponseController(w).Flush()
			fmt.Fprintf(w, form, eicarText())
		})
		resp, err := r.client().Get(o.URL)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err == nil || eicarIn(string(b)) {
			t.Errorf("%s: %q, %v", typ, b, err)
		}
		_ = resp.Body.Close()
		resp, body := get(t, r.client(), o.URL)
		wantPage(t, resp, body, 403, notice.Infected)
	}
}

// echoOrigin switches to a protocol that nobody knows, and echoes bytes.
func echoOrigin(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "echo/1" || !strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") {
		http.Error(w, "not an upgrade", http.StatusUpgradeRequired)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\nX-Greeting: hi\r\n\r\nhello")
	_, _ = io.Copy(c, rw)
}

func TestOtherUpgradesAreCarried(t *testing.T) {
	r := newRig(t)
	plain, secure := r.origin(echoOrigin), r.tlsOrigin(echoOrigin)
	hostport := secure.Listener.Addr().String()
	head := "Connection: keep-alive, Upgrade\r\nUpgrade: Echo/1\r\n\r\n"
	for name, c := range map[string]*rawConn{
		"http":  r.dial().send("GET " + plain.URL + "/x HTTP/1.1\r\nHost: x\r\n" + head + "early "),
		"https": r.connect(hostport).send("GET /x HTTP/1.1\r\nHost: " + hostport + "\r\n" + head + "early "),
	} {
		resp, err := http.ReadResponse(c.br, &http.Request{Method: http.MethodGet})
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != "echo/1" ||
			resp.Header.Get("X-Greeting") != "hi" {
			t.Fatalf("%s: %+v, %v", name, resp, err)
		}
		c.send("late")
		want := "helloearly late"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c.br, got); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		c.Close()
	}
	for _, proto := range []string{"http", "https"} {
		r.audit.wait(t, "the upgrade", func(x audit.Record) bool { return exempted("upgrade to echo/1")(x) && x.Facts.Protocol == proto })
	}
}

func TestUpgradesThatAreWaysAroundAreNotAskedFor(t *testing.T) {
	r := newRig(t)
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		fmt.Fprintf(w, "upgrade=%q", req.Header.Get("Upgrade"))
	})
	for _, protocol := range []string{"h2c", "HTTP/2.0", "TLS/1.2, HTTP/1.1", "websocket, h2c", "H2C"} {
		c := r.dial().send("GET " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + "\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
		if resp, body := c.response("GET"); resp.StatusCode != http.StatusOK || body != `upgrade=""` {
			t.Errorf("%s: %s %q", protocol, resp.Status, body)
		}
	}
}

func TestRefusedUpgradeIsAnOrdinaryAnswer(t *testing.T) {
	r := newRig(t)
	addr := r.canned("HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: foo/2\r\nContent-Length: 2\r\n\r\nno")
	c := r.dial().send("GET http://" + addr + "/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo/1\r\n\r\n")
	if resp, body := c.response("GET"); resp.StatusCode != http.StatusUpgradeRequired || body != "no" || resp.Header.Get("Upgrade") != "foo/2" {
		t.Errorf("%s %v %q", resp.Status, resp.Header, body)
	}
	other := r.canned("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
	resp, body := r.dial().send("GET http://" + other + "/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo/1\r\n\r\n").response("GET")
	wantPage(t, resp, body, 502, notice.OriginProtocol)
}

func TestSilentStreamsEnd(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.StreamTimeout = short })
	addr := r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if req.URL.Path == "/ws" {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		} else {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
		}
		_, _ = io.Copy(io.Discard, br)
	})
	for _, request := range []string{
		"GET http://" + addr + "/events HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://" + addr + "/ws HTTP/1.1\r\nHost: x\r\n" + wsHead,
	} {
		c := r.dial().send(request)
		if _, err := http.ReadResponse(c.br, nil); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c.br); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q goes on", request)
		}
	}
}
