package origin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"lazaret/internal/scan"
)

// Paths of the site. Path gives the full one.
const (
	repeat = "/repeat/" // + size: always the same bytes
	unique = "/unique/" // + size: other bytes each time
	eicar  = "/eicar/"  // + size: a body of that size, and the EICAR test file behind it
)

// Repeat returns the path of a body of size bytes that is always the same.
func Repeat(size int64) string { return repeat + strconv.FormatInt(size, 10) }

// Unique returns the path of a body of size bytes that is different each time.
func Unique(size int64) string { return unique + strconv.FormatInt(size, 10) }

// EICAR returns the path of the EICAR test file, with before random bytes before it.
func EICAR(before int64) string { return eicar + strconv.FormatInt(before, 10) }

// Paced returns the path of what is at path, coming as fast as a line of rate bytes a second brings it.
func Paced(path string, rate int64) string { return path + "?" + strconv.FormatInt(rate, 10) }

// site answers requests and has a certificate for every loopback address that it is reached by.
type site struct {
	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey
	key    *ecdsa.PrivateKey
	mu     sync.Mutex
	certs  map[string]*tls.Certificate // by address
	bodies map[int64][]byte            // by size
}

// Serve runs the site on a free port of all loopback addresses (127.0.0.0/8) until ctx ends. It writes its CA's certificate
// to caFile and then its port and a newline to ready.
func Serve(ctx context.Context, caFile string, ready io.Writer) error {
	s := &site{certs: make(map[string]*tls.Certificate), bodies: make(map[int64][]byte)}
	if err := s.makeCA(caFile); err != nil {
		return err
	}
	// One socket for all of 127.0.0.0/8 is bound to the wildcard address; bound to the device lo, it is nobody else's.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = syscall.BindToDevice(int(fd), "lo") }); e != nil {
			return e
		}
		return err
	}}
	l, err := lc.Listen(ctx, "tcp4", "0.0.0.0:0")
	if err != nil {
		return fmt.Errorf("listening on loopback: %w", err)
	}
	srv := &http.Server{
		Handler:           s,
		TLSConfig:         &tls.Config{GetCertificate: s.certificate, MinVersion: tls.VersionTLS12},
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 alone
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       10 * time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // clients that go away at the end of a measurement
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if _, err := fmt.Fprintln(ready, l.Addr().(*net.TCPAddr).Port); err != nil {
		return err
	}
	if err := srv.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *site) makeCA(file string) (err error) {
	if s.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Benchmark origin CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &s.caKey.PublicKey, s.caKey)
	if err != nil {
		return err
	}
	if s.ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// certificate returns the certificate for the address that the client has connected to.
func (s *site) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	addr, ok := h.Conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("unexpected address %v", h.Conn.LocalAddr())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.certs[addr.IP.String()]; c != nil {
		return c, nil
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: addr.IP.String()}, IPAddresses: []net.IP{addr.IP},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, s.ca, &s.key.PublicKey, s.caKey)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s.key}
	s.certs[addr.IP.String()] = c
	return c, nil
}

// ServeHTTP implements http.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, arg, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	size, err := strconv.ParseInt(arg, 10, 64)
	kind = "/" + kind + "/"
	if err != nil || size < 0 || (size < int64(MinSize) && (kind != eicar || size > 0)) || size > 1<<40 {
		http.Error(w, "no such size", http.StatusNotFound)
		return
	}
	length := size
	switch kind {
	case repeat, unique:
	case eicar:
		length += int64(len(scan.EICAR()))
	default:
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	h.Set("Cache-Control", "no-store") // what is measured is the way through, not somebody's cache of pages
	if r.URL.RawQuery == "" {
		s.send(w, kind, size)
	} else if rate, err := strconv.ParseInt(r.URL.RawQuery, 10, 64); err == nil && rate > 0 {
		s.send(&pacer{ResponseWriter: w, rate: float64(rate), began: time.Now()}, kind, size)
	}
}

// send writes the body. A client that goes away misses it.
func (s *site) send(w io.Writer, kind string, size int64) {
	switch kind {
	case repeat:
		_, _ = w.Write(s.body(size))
	case unique:
		_ = WriteBody(w, size)
	case eicar:
		if size > 0 && WriteBody(w, size) != nil {
			return
		}
		_, _ = w.Write(scan.EICAR())
	}
}

// body returns the body of a size that is always the same.
func (s *site) body(size int64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bodies[size]
	if b == nil {
		b = Body(size)
		s.bodies[size] = b
	}
	return b
}

// pacer writes in small pieces and at a rate, as a line does.
type pacer struct {
	http.ResponseWriter
	rate  float64 // bytes a second
	began time.Time
	sent  int64
}

// Write implements io.Writer.
func (p *pacer) Write(b []byte) (int, error) {
	const piece = 16 << 10
	done := 0
	for done < len(b) {
		n, err := p.ResponseWriter.Write(b[done:min(done+piece, len(b))])
		done += n
		p.sent += int64(n)
		if err != nil {
			return done, err
		}
		if err := http.NewResponseController(p.ResponseWriter).Flush(); err != nil {
			return done, err
		}
		due := time.Duration(float64(p.sent) / p.rate * float64(time.Second))
		time.Sleep(due - time.Since(p.began))
	}
	return done, nil
}
