package tls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/test/harness"

	"github.com/chromedp/chromedp"
)

// TestChromiumWithTheCA has Chromium, with the gateway's CA in its NSS store, visit a host that demands HTTPS for ever (HSTS): there it
// lets nobody click a certificate's fault away. What the gateway has to say comes as a page under a valid leaf: about a virus,
// and about the origin's certificate when that has become bad.
func TestChromiumWithTheCA(t *testing.T) {
	ca := harness.NewCA(t)
	good := ca.Leaf(t, nil, "hsts.example")
	expired := ca.Leaf(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	}, "hsts.example")
	var bad atomic.Bool
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if bad.Load() {
			return &expired, nil
		}
		return &good, nil
	}, SessionTicketsDisabled: true}) // each visit verifies the origin anew
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		w.Header().Set("Connection", "close")
		w.Header().Set("Content-Type", "text/html")
		if r.URL.Path == "/virus" {
			_, _ = w.Write(scan.EICAR())
			return
		}
		fmt.Fprint(w, "<!doctype html><title>Welcome</title>hello")
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	// Chromium keeps to HSTS for neither addresses nor localhost. A parent proxy leads every name to the origin.
	g := harness.Start(t, harness.Settings{"egress": "parent = \"http://" + leadTo(t, l.Addr().String()) + "\"\n"}, ca.File)
	ctx := g.Browser(t)
	visit := func(url string) (protocol, title, text string) {
		t.Helper()
		if err := chromedp.Do(ctx, chromedp.Navigate(url), chromedp.WaitReady(chromedp.CSS("body"))); err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		seen, err := chromedp.Run(ctx, chromedp.Evaluate[[]string]("[location.protocol, document.title, document.body.innerText]"))
		if err != nil || len(seen) != 3 {
			t.Fatalf("%s: %v, %v", url, seen, err)
		}
		protocol, title, text = seen[0], seen[1], seen[2]
		t.Logf("%s: %s %q %.200q", url, protocol, title, text)
		return protocol, title, text
	}
	if _, title, text := visit("https://hsts.example/"); title != "Welcome" || text != "hello" {
		t.Fatal("the site does not come through")
	}
	// It has taken note: what is asked for without TLS is asked for with it.
	if protocol, title, _ := visit("http://hsts.example/"); protocol != "https:" || title != "Welcome" {
		t.Error("Chromium does not keep to HSTS here, and so this test says nothing about it")
	}
	if protocol, _, text := visit("https://hsts.example/virus"); protocol != "https:" || !strings.Contains(text, "Lazaret") || strings.Contains(text, "ERR_") {
		t.Error("the page about the virus has not come")
	}
	bad.Store(true)
	// Chromium opens connections ahead of their use, and theirs to the origin were verified when its certificate was good: a visit
	// uses each of them up.
	for range 10 {
		protocol, title, text := visit("https://hsts.example/again")
		if protocol == "https:" && title == "Welcome" {
			continue
		}
		if protocol != "https:" || !strings.Contains(text, "Lazaret") || strings.Contains(text, "ERR_") {
			t.Error("what has come is not the page about the certificate")
		}
		return
	}
	t.Error("the page about the certificate has not come")
}

// leadTo runs a proxy whose CONNECT leads to one address, whatever was asked for, and returns where it listens.
func leadTo(t *testing.T, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "hsts.example:443" {
			http.Error(w, "for hsts.example alone", http.StatusBadGateway)
			return
		}
		out, err := net.Dial("tcp", addr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer out.Close()
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer in.Close()
		if _, err := io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(out, in)
			_ = out.Close()
		}()
		_, _ = io.Copy(in, out)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}
