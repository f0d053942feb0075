package admin

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // systems show it, and people compare it with what they see there
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"lazaret/internal/notice"
)

// caView is one certificate as the page shows it.
type caView struct {
	Name, SHA256, SHA1, From, Until string
	Path                            string // of its files, without the ending
	Next, Former                    bool   // neither: in use
}

// cas returns what clients are to trust, the certificate in use first; empty where that is not loaded.
func (s *Server) cas() []OtherCA {
	c := s.certificate()
	if c == nil {
		return nil
	}
	list := []OtherCA{{Certificate: c}}
	if s.src.OtherCAs != nil {
		list = append(list, s.src.OtherCAs()...)
	}
	return list
}

func (s *Server) caViews() []caView {
	var out []caView
	for n, o := range s.cas() {
		c := o.Certificate
		v := caView{
			Name: notice.Clean(certName(c), showText), SHA256: fingerprint(c), SHA1: colons(sha1Sum(c.Raw)),
			From: c.NotBefore.Format(time.DateOnly), Until: c.NotAfter.Format(time.DateOnly),
			Path: "/ca", Next: o.Next, Former: n > 0 && !o.Next,
		}
		if n > 0 {
			v.Path = "/ca/" + handle(c)
		}
		out = append(out, v)
	}
	return out
}

func sha1Sum(b []byte) []byte {
	sum := sha1.Sum(b) //nolint:gosec // for people to compare
	return sum[:]
}

// handle is what the files of a certificate are called.
func handle(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:8])
}

// colons writes a fingerprint as people compare it, "AB:CD:…".
func colons(sum []byte) string { return strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":") }

func inPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// caForms are the files of a certificate, by their endings.
var caForms = map[string]struct {
	contentType string
	encode      func(*x509.Certificate) []byte
}{
	"pem":          {"application/x-pem-file", inPEM},
	"der":          {"application/x-x509-ca-cert", func(c *x509.Certificate) []byte { return c.Raw }},
	"crt":          {"application/x-x509-ca-cert", func(c *x509.Certificate) []byte { return c.Raw }},
	"mobileconfig": {"application/x-apple-aspen-config", profile},
}

// oneCA serves a certificate that is to be trusted, by its handle.
func (s *Server) oneCA(w http.ResponseWriter, r *http.Request) {
	name, ending, _ := strings.Cut(r.PathValue("file"), ".")
	form, ok := caForms[ending]
	list := s.cas()
	n := slices.IndexFunc(list, func(o OtherCA) bool { return handle(o.Certificate) == name })
	if !ok || n < 0 {
		answer(w, r, http.StatusNotFound, plain, []byte("There is no such certificate, or it is not to be trusted any more.\n"))
		return
	}
	answer(w, r, http.StatusOK, form.contentType, form.encode(list[n].Certificate))
}

// allCAs serves every certificate that is to be trusted in one PEM file.
func (s *Server) allCAs(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	for _, o := range s.cas() {
		b.Write(inPEM(o.Certificate))
	}
	if b.Len() == 0 {
		answer(w, r, http.StatusServiceUnavailable, plain, []byte("The CA is not loaded: see the log.\n"))
		return
	}
	answer(w, r, http.StatusOK, caForms["pem"].contentType, b.Bytes())
}
