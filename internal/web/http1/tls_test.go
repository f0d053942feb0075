package http1

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// corked collects what is written until it is let go.
type corked struct {
	net.Conn
	mu   sync.Mutex
	held bytes.Buffer
	open bool
}

func (c *corked) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open {
		return c.Conn.Write(p)
	}
	return c.held.Write(p)
}

func (c *corked) set(open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open = open; open {
		_, _ = c.held.WriteTo(c.Conn)
	}
}

// overTLS returns a connection over TLS, and its other side.
func overTLS(t *testing.T) (*Conn, *tls.Conn, *corked) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"site.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	near, far := pair(t)
	cork := &corked{Conn: far, open: true}
	server := tls.Server(cork, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	client := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "site.test"})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return New(client, near, watcher(t), 4<<10), server, cork
}

func TestAnUnaskedAnswerThatTLSHasReadAlready(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, answers := range []int{1, 2} {
		c, server, cork := overTLS(t)
		for range 3 {
			go func() {
				_, _ = server.Read(make([]byte, 4<<10))
				cork.set(false)
				for range answers { // each in a record of its own, and all in one piece on the wire
					_, _ = io.WriteString(server, ok)
				}
				cork.set(true)
			}()
			if got, err := fetch(c, request(t, "GET", "/", "")); err != nil || got != "200 ok" {
				t.Fatalf("%q, %v", got, err)
			}
			if err := c.Look(); (err != nil) != (answers > 1) {
				t.Fatalf("after %d answers: %v", answers, err)
			}
			if answers > 1 {
				break
			}
		}
	}
}
