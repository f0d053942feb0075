package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
)

// redirecting is a listener whose connections wanted to go to another address.
type redirecting struct {
	net.Listener
	to netip.AddrPort
}

type redirectedConn struct {
	net.Conn
	to netip.AddrPort
}

func (c redirectedConn) Original() netip.AddrPort { return c.to }

func (l redirecting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return redirectedConn{c, l.to}, nil
}

// redirect has the gateway take traffic that was meant for to, and returns the address where it takes it.
func (r *rig) redirect(to string) string {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	var ap netip.AddrPort
	if to != "" {
		ap = netip.MustParseAddrPort(to)
	}
	done := make(chan error, 1)
	go func() { done <- r.server.ServeTransparent(redirecting{l, ap}) }()
	r.t.Cleanup(func() {
		r.stop()
		if err := <-done; err != nil {
			r.t.Errorf("ServeTransparent: %v", err)
		}
	})
	return l.Addr().String()
}

// clientTo returns a client that knows nothing of the gateway: its connections are led to addr.
func (r *rig) clientTo(addr string, change ...func(*http.Transport)) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(r.ca.Certificate())
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DisableCompression: true,
	}
	for _, f := range change {
		f(tr)
	}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestRedirectedTraffic(t *testing.T) {
	r := newRig(t)
	plain, secure := r.origin(virusOrigin), r.tlsOrigin(virusOrigin)
	for _, c := range []struct {
		name, url, proto string
		client           *http.Client
	}{
		{"http", "http://site.example", "HTTP/1.1", r.clientTo(r.redirect(plain.Listener.Addr().String()))},
		{"https", "https://localhost", "HTTP/2.0", r.clientTo(r.redirect(secure.Listener.Addr().String()))},
		{"https, HTTP/1.1", "https://localhost", "HTTP/1.1", r.clientTo(r.redirect(secure.Listener.Addr().String()), noHTTP2)},
	} {
		_, port, _ := net.SplitHostPort(map[bool]string{true: secure.Listener.Addr().String(), false: plain.Listener.Addr().String()}[strings.HasPrefix(c.url, "https")])
		u := c.url + ":" + port
		if resp, body := get(t, c.client, u+"/clean"); resp.StatusCode != http.StatusOK || body != "harmless, by "+c.proto {
			t.Errorf("%s: %s %q", c.name, resp.Status, body)
		}
		resp, body := get(t, c.client, u+"/eicar.com")
		wantPage(t, resp, body, 403, notice.Infected)
		rec := r.audit.wait(t, c.name, func(x audit.Record) bool {
			return x.Verdict.Outcome == scan.Infected && strings.HasPrefix(x.Facts.URL, u)
		})
		if !rec.Facts.Client.IsLoopback() {
			t.Errorf("%+v", rec.Facts)
		}
	}
}

func TestRedirectedConnectionWithoutDestinationIsClosed(t *testing.T) {
	r := newRig(t)
	c, err := net.Dial("tcp", r.redirect(""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw := &rawConn{Conn: c, t: t, br: bufio.NewReader(c)}
	if !raw.closed() {
		t.Error("the connection goes on")
	}
	r.audit.wait(t, "it", func(x audit.Record) bool { return strings.Contains(x.Detail, "original destination") })
}

func TestRedirectedClientsMustBeAllowed(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.AllowClients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	c, err := net.Dial("tcp", r.redirect("127.0.0.1:9"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw := &rawConn{Conn: c, t: t, br: bufio.NewReader(c)}
	if !raw.closed() {
		t.Error("the connection goes on")
	}
	r.audit.wait(t, "it", func(x audit.Record) bool { return strings.Contains(x.Detail, "allow_clients") })
}
