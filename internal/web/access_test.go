package web

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"lazaret/internal/notice"
)

func TestOnlyAllowedClients(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.AllowClients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	for _, request := range []string{
		"GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://lazaret.internal/ HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		resp, body := r.dial().send(request).response("GET")
		wantPage(t, resp, body, 403, notice.ForbiddenClient)
	}
	cfg := Default()
	if err := r.server.Use(cfg); err != nil {
		t.Fatal(err)
	}
	if resp, _ := r.dial().send("GET http://lazaret.internal/ HTTP/1.1\r\nHost: x\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK {
		t.Errorf("after a reload: %s", resp.Status)
	}
	cfg.AllowClients = nil
	if err := r.server.Use(cfg); err == nil {
		t.Error("settings that cannot be used were taken")
	}
}

func TestPrivateDestinationsAndPorts(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.ConnectPorts = PortRanges{Port(443)} })
	for _, c := range []struct {
		request string
		kind    notice.Kind
	}{
		{"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n", notice.ForbiddenTarget},
		{"GET https://127.0.0.1:8443/ HTTP/1.1\r\nHost: x\r\n\r\n", notice.ForbiddenTarget},
		{"GET http://127.0.0.1:25/ HTTP/1.1\r\nHost: x\r\n\r\n", notice.ForbiddenTarget},
		{"CONNECT example.com:99999 HTTP/1.1\r\nHost: x\r\n\r\n", notice.BadRequest},
		{"CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: x\r\n\r\n", notice.BadRequest},
		{"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", notice.BadRequest},
	} {
		resp, body := r.dial().send(c.request).response("GET")
		if resp.StatusCode < 400 || resp.Header.Get("X-Lazaret-Kind") != string(c.kind) {
			t.Errorf("%q: %s %q %q", c.request, resp.Status, resp.Header.Get("X-Lazaret-Kind"), body)
		}
	}
}

func TestUnreadableRequestsGetOurPage(t *testing.T) {
	r := newRig(t)
	o := r.tlsOrigin(virusOrigin)
	hostport := o.Listener.Addr().String()
	for _, c := range []struct {
		name, request string
		status        int
		kind          notice.Kind
	}{
		{"garbage", "hello\r\n\r\n", 400, notice.BadRequest},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400, notice.BadRequest},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, notice.BadRequest},
		{"bad header", "GET / HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n", 400, notice.BadRequest},
		{"two lengths", "POST http://x/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, notice.BadRequest},
		{"large head", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 80<<10) + "\r\n\r\n", 431, notice.HeaderTooLarge},
		{"many headers", "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 20<<10) + "\r\n", 431, notice.HeaderTooLarge},
		{"unknown coding", "POST http://x/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 0, notice.NotSupported},
		{"malformed path", "GET /100% HTTP/1.1\r\nHost: x\r\n\r\n", 400, notice.BadRequest},
		{"TLS where HTTP is spoken", "\x16\x03\x01\x00\x05hello\r\n\r\n", 400, notice.BadRequest},
	} {
		for where, conn := range map[string]func() *rawConn{"outside": r.dial, "inside": func() *rawConn { return r.connect(hostport) }} {
			before := len(r.audit.list())
			cn := conn()
			// The answer may come, and the connection end, before everything is sent.
			_, _ = io.WriteString(cn.Conn, c.request)
			resp, err := http.ReadResponse(cn.br, nil)
			if err != nil {
				t.Errorf("%s, %s: %v", c.name, where, err)
				continue
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || c.status != 0 && resp.StatusCode != c.status || resp.Header.Get("X-Lazaret-Kind") != string(c.kind) {
				t.Errorf("%s, %s: %s %v %q %v", c.name, where, resp.Status, resp.Header, body, err)
			}
			if n := len(r.audit.list()); n != before+1 {
				t.Errorf("%s, %s: %d records", c.name, where, n-before)
			}
		}
	}
	// The gateway goes on.
	if resp, _ := get(t, r.client(), o.URL+"/clean"); resp.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %s", resp.Status)
	}
}
