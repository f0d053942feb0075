package web

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"lazaret/internal/audit"
)

// TestListedHostIsNoWayToItsNeighbours has a client ask for a tunnel to a listed host, and then for another one that lives there.
func TestListedHostIsNoWayToItsNeighbours(t *testing.T) {
	r := newRig(t, func(p *plan) { p.tls.Tunnel = []string{"localhost"} })
	came := make(chan int64, 1)
	addr := r.rawOrigin(func(_ net.Conn, br *bufio.Reader) {
		n, _ := io.Copy(io.Discard, br)
		came <- n
	})
	_, port, _ := net.SplitHostPort(addr)
	c := r.dial().send("CONNECT localhost:" + port + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(c.br, &http.Request{Method: http.MethodHead}); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	err := tls.Client(c.Conn, &tls.Config{ServerName: "neighbour.example"}).HandshakeContext(t.Context())
	if err == nil {
		t.Error("the handshake went on")
	}
	r.audit.wait(t, "what was refused", func(x audit.Record) bool {
		return x.Event == audit.Refuse && strings.Contains(x.Detail, "neighbour.example")
	})
	if n := <-came; n != 0 {
		t.Errorf("%d bytes reached the origin", n)
	}
	// Its own name passes, with the origin's own certificate.
	o := r.tlsOrigin(virusOrigin)
	_, port, _ = net.SplitHostPort(o.Listener.Addr().String())
	roots := x509.NewCertPool()
	roots.AddCert(r.root.cert)
	own := r.client(func(tr *http.Transport) { tr.TLSClientConfig.RootCAs = roots })
	if resp, body := get(t, own, "https://localhost:"+port+"/eicar.com"); resp.StatusCode != http.StatusOK || !eicarIn(body) {
		t.Errorf("%s %q", resp.Status, body)
	}
}
