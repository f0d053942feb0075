package main

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"lazaret/internal/scan"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// demoSite is the web site of the demonstration: over TLS with a CA of its own, without TLS, and over TLS with a
// certificate that nobody trusts.
type demoSite struct {
	secure, plain, untrusted *httptest.Server
	rootFile                 string
	requests                 atomic.Int64
	eicar, clean             []byte
}

func newDemoSite(dir string) (*demoSite, error) {
	s := &demoSite{
		eicar: scan.EICAR(), clean: bytes.Repeat([]byte("All is well aboard. "), 5000), rootFile: filepath.Join(dir, "site-ca.pem"),
	}
	cert, root, err := demoCertificate()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.rootFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), 0o600); err != nil {
		return nil, err
	}
	stranger, _, err := demoCertificate()
	if err != nil {
		return nil, err
	}
	s.secure, s.plain, s.untrusted = s.server(), s.server(), s.server()
	s.secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	s.untrusted.TLS = &tls.Config{Certificates: []tls.Certificate{stranger}, MinVersion: tls.VersionTLS12}
	s.secure.EnableHTTP2 = true
	s.secure.StartTLS()
	s.untrusted.StartTLS()
	s.plain.Start()
	return s, nil
}

func (s *demoSite) server() *httptest.Server {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Config.ReadHeaderTimeout = time.Minute
	return srv
}

func (s *demoSite) close() {
	for _, srv := range []*httptest.Server{s.secure, s.plain, s.untrusted} {
		srv.Close()
	}
}

// serve answers /clean and /eicar in the form that the rest of the path names.
func (s *demoSite) serve(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if r.Method != http.MethodGet {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "received %d bytes", n)
		return
	}
	var what, form string
	if _, err := fmt.Sscanf(r.URL.Path, "/%5s/%s", &what, &form); err != nil {
		http.NotFound(w, r)
		return
	}
	body := s.clean
	if what == "eicar" {
		body = s.eicar
	}
	switch form {
	case "plain":
	case "chunked":
		for _, c := range body[:min(len(body), 200)] {
			_, _ = w.Write([]byte{c}) // the gateway may have had enough
			_ = http.NewResponseController(w).Flush()
		}
		return
	case "zip", "zipzip":
		body = zipped("file", body)
		if form == "zipzip" {
			body = zipped("inner.zip", body)
		}
	case "page":
		body = []byte(`<a href="data:application/octet-stream;base64,` + base64.StdEncoding.EncodeToString(body) + `">a file</a>`)
	default:
		w.Header().Set("Content-Encoding", form)
		body = encoded(form, body)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(body) // the gateway may have had enough
}

func (s *demoSite) rows() []demoRow {
	get := func(what, expected, path string, base *httptest.Server) demoRow {
		return demoRow{
			what: what, expected: expected, method: http.MethodGet, base: base, path: path, want: s.clean,
			reached: func() int { return int(s.requests.Load()) },
		}
	}
	rows := []demoRow{
		get("a clean file, https", delivered, "/clean/plain", s.secure),
		get("a clean file, http", delivered, "/clean/plain", s.plain),
		get("EICAR, https", blocked, "/eicar/plain", s.secure),
		get("EICAR, http", blocked, "/eicar/plain", s.plain),
		get("EICAR in a zip", blocked, "/eicar/zip", s.secure),
		get("EICAR in a zip in a zip", blocked, "/eicar/zipzip", s.secure),
		get("EICAR in chunks of one byte", blocked, "/eicar/chunked", s.plain),
		get("EICAR in a page's data: URL", blocked, "/eicar/page", s.secure),
	}
	for _, coding := range []string{"gzip", "deflate", "br", "zstd"} {
		clean := get("a clean file, Content-Encoding "+coding, delivered, "/clean/"+coding, s.secure)
		eicar := get("EICAR, Content-Encoding "+coding, blocked, "/eicar/"+coding, s.secure)
		clean.header = http.Header{"Accept-Encoding": {coding}}
		eicar.header = clean.header
		rows = append(rows, clean, eicar)
	}
	h2 := []demoRow{get("a clean file, HTTP/2", delivered, "/clean/plain", s.secure), get("EICAR, HTTP/2", blocked, "/eicar/plain", s.secure)}
	for i := range h2 {
		h2[i].http2 = true
	}
	part := get("the end of EICAR alone (a range)", blocked, "/eicar/plain", s.secure)
	part.header = http.Header{"Range": {"bytes=30-"}}
	rows = append(append(rows, h2...), part)
	for _, up := range []struct {
		what, expected string
		body           []byte
		chunked        bool
	}{
		{"a clean upload", delivered, s.clean, false},
		{"EICAR uploaded", blocked, s.eicar, false},
		{"EICAR uploaded in chunks", blocked, s.eicar, true},
		{"EICAR uploaded in a zip", blocked, zipped("eicar.com", s.eicar), false},
	} {
		row := get(up.what, up.expected, "/", s.secure)
		row.method, row.body, row.chunked, row.want = http.MethodPost, up.body, up.chunked, fmt.Appendf(nil, "received %d bytes", len(up.body))
		rows = append(rows, row)
	}
	return append(rows, get("a site whose certificate nobody trusts", explained, "/clean/plain", s.untrusted))
}

// zipped returns an archive with one member. Writing to memory does not fail.
func zipped(name string, body []byte) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if w, err := z.Create(name); err == nil {
		_, _ = w.Write(body)
	}
	_ = z.Close()
	return b.Bytes()
}

// encoded returns body in a content coding. Writing to memory does not fail.
func encoded(coding string, body []byte) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "br":
		w = brotli.NewWriter(&b)
	default:
		z, err := zstd.NewWriter(&b)
		if err != nil {
			return nil
		}
		w = z
	}
	_, _ = w.Write(body)
	_ = w.Close()
	return b.Bytes()
}

// demoCertificate returns a certificate for 127.0.0.1, and that of the new CA that signed it.
func demoCertificate() (leaf tls.Certificate, root []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf, nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Lazaret demonstration site CA"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if root, err = x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key); err != nil {
		return leaf, nil, err
	}
	site := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(12 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	siteKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, site, ca, siteKey.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: siteKey}, root, err
}
