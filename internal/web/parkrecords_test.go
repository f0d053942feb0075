package web

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// cutting holds back what is written until it is let go in two parts.
type cutting struct {
	net.Conn
	hold bool
	held []byte
}

func (c *cutting) Write(p []byte) (int, error) {
	if c.hold {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// A parked connection is woken by half a TLS record, is parked again, and then gets the other half.
func TestHalfARecordIsNotLostToParking(t *testing.T) {
	r := parkingRig(t)
	hostport := r.tlsOrigin(virusOrigin).Listener.Addr().String()
	request := "GET /clean HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n"
	below := &cutting{Conn: r.connectOver(r.dial(), hostport).Conn}
	pool := x509.NewCertPool()
	pool.AddCert(r.ca.Certificate())
	tc := tls.Client(below, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(tc)
	for cut := 1; cut < 60; cut += 9 {
		below.hold, below.held = true, nil
		_, _ = io.WriteString(tc, request)
		below.hold = false
		for _, part := range [][]byte{below.held[:cut], below.held[cut : cut+1], below.held[cut+1:]} {
			eventually(t, "it is parked", func() bool { return r.parked() == 1 })
			_, _ = below.Conn.Write(part)
			time.Sleep(2 * r.server.parkAfter)
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
}

// A parked connection outlasts the write deadline of its last answer, and the read deadline that it was parked by.
func TestNoDeadlineIsLeftOnAParkedConnection(t *testing.T) {
	r := parkingRig(t, func(p *plan) { p.web.StallTimeout = short })
	secure, plain := r.tlsOrigin(virusOrigin), r.origin(virusOrigin)
	hostport := secure.Listener.Addr().String()
	for request, c := range map[string]*rawConn{
		"GET /clean HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n":   r.connect(hostport),
		"GET " + plain.URL + "/clean HTTP/1.1\r\nHost: x\r\n\r\n": r.dial(),
	} {
		for range 3 {
			if resp, body := c.send(request).response("GET"); resp.StatusCode != http.StatusOK {
				t.Fatal(resp.Status, body)
			}
			time.Sleep(2 * short.Std())
		}
	}
}
