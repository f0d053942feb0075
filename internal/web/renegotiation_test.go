package web

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lazaret/internal/intercept"
	"lazaret/internal/notice"
)

// apache serves / to everybody and /private/ to those with a client certificate, which it asks for by a renegotiation of TLS 1.2 when
// it has the request. It returns its port, and the certificate to show.
func (r *rig) apache(more ...string) (port string, mine tls.Certificate) {
	r.t.Helper()
	program := "/usr/sbin/apache2"
	if _, err := os.Stat(program); err != nil {
		r.t.Skip("NOT TESTED: apache2 is not installed")
	}
	dir := r.t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	leaf := r.root.leaf(r.t)
	mine = r.root.leaf(r.t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	key, err := x509.MarshalECPrivateKey(leaf.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		r.t.Fatal(err)
	}
	put := func(name, content string) {
		r.t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	put("leaf.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}))+string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})))
	put("www/index.html", "for everybody")
	put("www/private/index.html", "for those with a certificate")
	put("apache.conf", fmt.Sprintf(`ServerRoot %[1]s
ServerName localhost
PidFile %[1]s/pid
ErrorLog %[1]s/error.log
Listen 127.0.0.1:%[2]s
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
Mutex file:%[1]s
DocumentRoot %[1]s/www
DirectoryIndex index.html
<Directory %[1]s/www>
  Require all granted
</Directory>
SSLEngine on
SSLProtocol TLSv1.2
SSLCertificateFile %[1]s/leaf.pem
SSLCACertificateFile %[3]s
<Location /private>
  SSLVerifyClient require
  SSLVerifyDepth 2
</Location>
%[4]s
`, dir, port, r.root.file, strings.Join(more, "\n")))
	cmd := exec.Command(program, "-f", filepath.Join(dir, "apache.conf"), "-D", "FOREGROUND")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if r.t.Failed() {
			b, err := os.ReadFile(filepath.Join(dir, "error.log"))
			r.t.Logf("apache: %s%s (%v)", said.String(), b, err)
		}
	})
	eventually(r.t, "apache listens", func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return port, mine
}

// TestClientCertificateByRenegotiation visits a site that asks for a client certificate when it knows the path: the first answer is a
// page that says so, and with the next connection the browser's own certificate is used.
func TestClientCertificateByRenegotiation(t *testing.T) {
	r := newRig(t)
	port, mine := r.apache()
	own := x509.NewCertPool()
	own.AddCert(r.ca.Certificate())
	own.AddCert(r.root.cert)
	c := r.client(func(tr *http.Transport) {
		tr.TLSClientConfig = &tls.Config{RootCAs: own, Certificates: []tls.Certificate{mine}, Renegotiation: tls.RenegotiateOnceAsClient, MaxVersion: tls.VersionTLS12}
		tr.ForceAttemptHTTP2 = false
	})
	base := "https://localhost:" + port
	if resp, body := get(t, c, base+"/"); resp.StatusCode != http.StatusOK || body != "for everybody" {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	resp, body := do(t, c, http.MethodPost, base+"/private/", strings.NewReader("a form"), "Accept", "text/html", "Accept-Language", "en")
	wantPage(t, resp, body, http.StatusBadGateway, notice.OriginTLS)
	if !strings.Contains(body, "asks for a certificate of your own") || !strings.Contains(body, "Load the page again") || strings.Contains(body, "Nothing of yours was sent") {
		t.Errorf("the page does not explain it:\n%s", body)
	}
	if !resp.Close {
		t.Error("the connection stays, on which nothing will be better")
	}
	if resp, body := get(t, c, base+"/private/"); resp.StatusCode != http.StatusOK || body != "for those with a certificate" || resp.TLS.PeerCertificates[0].Issuer.String() != r.root.cert.Subject.String() {
		t.Errorf("the next connection: %d %s", resp.StatusCode, body)
	}
	if d := r.decide("127.0.0.1", port); d.Rule != intercept.RuleLearned {
		t.Errorf("it was not learned: %+v", d)
	}
	// The rest of the site needs no certificate, and is scanned for everybody else.
	if d := r.decide("127.0.0.9", port); d.Mode != intercept.Inspect {
		t.Errorf("for another client: %+v", d)
	}
}

// decide says what would be done with a client's connection to localhost.
func (r *rig) decide(client, port string) intercept.Decision {
	return r.server.opt.Interceptor.Decide(context.Background(), intercept.Target{
		Host: "localhost", Port: portOf(r.t, port), Client: netip.AddrPortFrom(netip.MustParseAddr(client), 1),
	})
}

// TestPartOfAPageTurnsNoScanningOff has a page of anybody's name a path that asks for a client certificate.
func TestPartOfAPageTurnsNoScanningOff(t *testing.T) {
	r := newRig(t)
	port, _ := r.apache()
	url := "https://localhost:" + port + "/private/"
	for _, sent := range [][]string{
		{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"},
		{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"},
		{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"},
	} {
		resp, body := get(t, r.client(noHTTP2), url, sent...)
		wantPage(t, resp, body, http.StatusForbidden, notice.ForbiddenTarget)
		if d := r.decide("127.0.0.1", port); d.Mode != intercept.Inspect {
			t.Errorf("%v: %+v", sent, d)
		}
	}
	resp, body := get(t, r.client(noHTTP2), url, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	wantPage(t, resp, body, http.StatusBadGateway, notice.OriginTLS)
	if d := r.decide("127.0.0.1", port); d.Rule != intercept.RuleLearned {
		t.Errorf("a navigation taught nothing: %+v", d)
	}
}

// TestSiteThatWantsHTTP11ForAClientCertificate visits such a site by HTTP/2: Apache wants HTTP/1.1 for the path, the client is sent
// there, and then all is as without HTTP/2.
func TestSiteThatWantsHTTP11ForAClientCertificate(t *testing.T) {
	r := newRig(t)
	port, mine := r.apache("LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so", "Protocols h2 http/1.1", "H2ModernTLSOnly off")
	own := x509.NewCertPool()
	own.AddCert(r.ca.Certificate())
	own.AddCert(r.root.cert)
	base := "https://localhost:" + port
	c := r.client()
	if resp, body := get(t, c, base+"/"); resp.StatusCode != http.StatusOK || body != "for everybody" || resp.ProtoMajor != 2 {
		t.Fatalf("%s %s %s", resp.Proto, resp.Status, body)
	}
	// A client by HTTP/2 follows to HTTP/1.1, where Apache asks for the certificate.
	resp, _ := do(t, c, http.MethodPost, base+"/private/?q=1", strings.NewReader("a form"))
	if resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Location") != base+"/private/?q=1" {
		t.Fatalf("%s %s to %q", resp.Proto, resp.Status, resp.Header.Get("Location"))
	}
	resp, body := get(t, c, base+"/private/?q=1", "Accept", "text/html", "Accept-Language", "en")
	wantPage(t, resp, body, http.StatusBadGateway, notice.OriginTLS)
	if resp.ProtoMajor != 1 {
		t.Errorf("asked again by %s", resp.Proto)
	}
	if !strings.Contains(body, "asks for a certificate of your own") {
		t.Errorf("the page does not explain it:\n%s", body)
	}
	shows := r.client(func(tr *http.Transport) {
		tr.TLSClientConfig = &tls.Config{RootCAs: own, Certificates: []tls.Certificate{mine}, Renegotiation: tls.RenegotiateOnceAsClient, MaxVersion: tls.VersionTLS12}
		tr.ForceAttemptHTTP2 = false
	})
	if resp, body := get(t, shows, base+"/private/"); resp.StatusCode != http.StatusOK || body != "for those with a certificate" {
		t.Errorf("the next connection: %d %s", resp.StatusCode, body)
	}
}

// TestEveryRequestByHTTP2FallsBack asks for several such paths at the same time by one connection, and by one of another client's
// that was open before.
func TestEveryRequestByHTTP2FallsBack(t *testing.T) {
	r := newRig(t)
	port, _ := r.apache("LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so", "Protocols h2 http/1.1", "H2ModernTLSOnly off")
	base := "https://localhost:" + port
	clients := []*http.Client{r.client(), r.client()}
	for _, c := range clients {
		if resp, body := get(t, c, base+"/"); resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			t.Fatalf("%s %s %s", resp.Proto, resp.Status, body)
		}
	}
	if resp, _ := get(t, clients[0], base+"/private/"); resp.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("the first: %s %s", resp.Proto, resp.Status)
	}
	if resp, _ := get(t, clients[1], base+"/private/"); resp.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("another connection from before: %s %s", resp.Proto, resp.Status)
	}
}

// TestFallingBackStaysAtItsSite has the path begin like another host.
func TestFallingBackStaysAtItsSite(t *testing.T) {
	r := newRig(t, func(p *plan) { p.tls.ClientCertificates = "refuse" })
	port, _ := r.apache("LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so", "Protocols h2 http/1.1", "H2ModernTLSOnly off", "<Location /evil.example>", "SSLVerifyClient require", "</Location>")
	base := "https://localhost:" + port
	resp, _ := get(t, r.client(), base+"//evil.example/")
	if resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Location") != base+"//evil.example/" {
		t.Errorf("%s to %q", resp.Status, resp.Header.Get("Location"))
	}
	// From now on it is HTTP/1.1, whoever asks.
	if resp, body := get(t, r.client(), base+"/"); resp.ProtoMajor != 1 || body != "for everybody" {
		t.Errorf("%s %s %q", resp.Proto, resp.Status, body)
	}
}

func portOf(t testing.TB, s string) uint16 {
	t.Helper()
	var n uint16
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRenegotiationWherePolicyRefuses is told of, and nothing is learned.
func TestRenegotiationWherePolicyRefuses(t *testing.T) {
	for _, setting := range []string{"refuse", "anonymous"} {
		r := newRig(t, func(p *plan) { p.tls.ClientCertificates = setting })
		port, _ := r.apache()
		c := r.client()
		for range 2 {
			resp, body := get(t, c, "https://localhost:"+port+"/private/", "Accept", "text/html")
			wantPage(t, resp, body, http.StatusForbidden, notice.ForbiddenTarget)
		}
		resp, body := get(t, c, "https://localhost:"+port+"/")
		if resp.StatusCode != http.StatusOK || body != "for everybody" {
			t.Errorf("%s: what needs none: %d %s", setting, resp.StatusCode, body)
		}
	}
}
