package intercept

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/egress"

	"golang.org/x/crypto/ocsp"
)

// open has the gateway open an origin with cert, as a door would, and returns the fault.
func openFault(t *testing.T, i *Interceptor, cert tls.Certificate) *Fault {
	t.Helper()
	c, err := i.Open(t.Context(), to("site.example", newOrigin(t, cert)))
	if err == nil {
		_ = c.Close()
		return nil
	}
	f, ok := err.(*Fault) //nolint:errorlint // that it is one itself is promised
	if !ok {
		t.Fatalf("error of type %T: %v", err, err)
	}
	return f
}

func TestStapledOCSPIsHonoured(t *testing.T) {
	root := newRoot(t)
	feature := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidTLSFeature, Value: []byte{0x30, 3, 2, 1, statusRequest}}}
	}
	other := root.leaf([]string{"site.example"}, nil)
	now := time.Now()
	for _, tc := range []struct {
		what   string
		staple ocsp.Response
		signer *authority
		must   bool
		want   FaultKind
	}{
		{"good", ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}, root, false, ""},
		{"good, demanded", ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}, root, true, ""},
		{"revoked", ocsp.Response{Status: ocsp.Revoked, ThisUpdate: now.Add(-time.Hour), RevokedAt: now.Add(-time.Hour)}, root, false, FaultRevoked},
		{"outdated, demanded", ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(-2 * time.Hour), NextUpdate: now.Add(-time.Hour)}, root, true, FaultRevoked},
		{"of the future, demanded", ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(time.Hour), NextUpdate: now.Add(2 * time.Hour)}, root, true, FaultRevoked},
		{"unknown, demanded", ocsp.Response{Status: ocsp.Unknown, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}, root, true, FaultRevoked},
		{"signed by a stranger, demanded", ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}, newRoot(t), true, FaultRevoked},
		{"another certificate's, demanded", ocsp.Response{
			Status: ocsp.Good, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour),
			SerialNumber: parsed(t, other).SerialNumber,
		}, root, true, FaultRevoked},
	} {
		t.Run(tc.what, func(t *testing.T) {
			var edits []func(*x509.Certificate)
			if tc.must {
				edits = append(edits, feature)
			}
			cert := root.leaf([]string{"site.example"}, nil, edits...)
			if tc.staple.SerialNumber == nil {
				tc.staple.SerialNumber = parsed(t, cert).SerialNumber
			}
			var err error
			if cert.OCSPStaple, err = ocsp.CreateResponse(tc.signer.cert, tc.signer.cert, tc.staple, tc.signer.key); err != nil {
				t.Fatal(err)
			}
			wantFault(t, openFault(t, gatewayOf(t, root), cert), tc.want)
		})
	}
}

func wantFault(t *testing.T, f *Fault, want FaultKind) {
	t.Helper()
	switch {
	case f == nil && want != "":
		t.Errorf("no fault, want %q", want)
	case f != nil && f.Kind != want:
		t.Errorf("fault %v, want %q", f, want)
	}
}

func parsed(t testing.TB, c tls.Certificate) *x509.Certificate {
	t.Helper()
	x, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestExceptionsHoldForTheirHostFaultAndTime(t *testing.T) {
	root := newRoot(t, func(c *x509.Certificate) { c.DNSNames = []string{"site.example"} })
	expired := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	}
	stranger := newRoot(t)
	old := root.leaf([]string{"site.example"}, nil, expired)
	oldSum := sha256.Sum256(old.Certificate[0])
	soon := time.Now().Add(time.Hour)
	named := func(c *x509.Certificate) { c.DNSNames = []string{"site.example"} }
	appliance := newRoot(t, named, func(c *x509.Certificate) { c.KeyUsage = 0 }) // as openssl req -x509 makes it
	strict := newRoot(t, named)
	server := func(a *authority) tls.Certificate {
		return tls.Certificate{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key}
	}
	mute := root.leaf([]string{"site.example"}, nil, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })
	for _, tc := range []struct {
		what string
		cert tls.Certificate
		exc  Exception
		want FaultKind
	}{
		{"the fault meant", old, Exception{Host: "Site.Example.", Faults: []FaultKind{FaultExpired}, Expires: soon}, ""},
		{"another fault", old, Exception{Host: "site.example", Faults: []FaultKind{FaultName}, Expires: soon}, FaultExpired},
		{"another host", old, Exception{Host: "other.example", Faults: []FaultKind{FaultExpired}, Expires: soon}, FaultExpired},
		{"over", old, Exception{Host: "site.example", Faults: []FaultKind{FaultExpired}, Expires: time.Now().Add(-time.Second)}, FaultExpired},
		{"the certificate meant", old, Exception{Host: "site.example", Faults: []FaultKind{FaultExpired}, Expires: soon, Fingerprint: hex.EncodeToString(oldSum[:])}, ""},
		{"another certificate", old, Exception{Host: "site.example", Faults: []FaultKind{FaultExpired}, Expires: soon, Fingerprint: strings.Repeat("ab", 32)}, FaultExpired},
		{
			"a second fault behind the first", root.leaf([]string{"other.example"}, nil, expired),
			Exception{Host: "site.example", Faults: []FaultKind{FaultExpired}, Expires: soon},
			FaultName,
		},
		{
			"a stranger's, expired", stranger.leaf([]string{"site.example"}, nil, expired),
			Exception{Host: "site.example", Faults: []FaultKind{FaultExpired}, Expires: soon},
			FaultUntrusted,
		},
		{"a key that may not sign", mute, Exception{Host: "site.example", Faults: []FaultKind{FaultUsage}, Expires: soon}, ""},
		{"a key that may not sign, another fault", mute, Exception{Host: "site.example", Faults: []FaultKind{FaultSelfSigned}, Expires: soon}, FaultUsage},
		{"an appliance that is its own authority", server(appliance), Exception{Host: "site.example", Faults: []FaultKind{FaultSelfSigned}, Expires: soon}, ""},
		{"one whose key may sign certificates only", server(strict), Exception{Host: "site.example", Faults: []FaultKind{FaultSelfSigned}, Expires: soon}, FaultUsage},
		{"the same, meant", server(strict), Exception{Host: "site.example", Faults: []FaultKind{FaultSelfSigned, FaultUsage}, Expires: soon}, ""},
		{"the same, among the roots", server(root), Exception{Host: "site.example", Faults: []FaultKind{FaultUsage}, Expires: soon}, ""},
		{"the same, among the roots, another fault", server(root), Exception{Host: "site.example", Faults: []FaultKind{FaultSelfSigned}, Expires: soon}, FaultUsage},
		{
			"a stranger's authority", stranger.leaf([]string{"site.example"}, nil, func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true }),
			Exception{Host: "site.example", Faults: []FaultKind{FaultUntrusted}, Expires: soon},
			FaultUsage,
		},
		{"a stranger's", stranger.leaf([]string{"site.example"}, nil), Exception{Host: "site.example", Faults: []FaultKind{FaultUntrusted}, Expires: soon}, ""},
	} {
		t.Run(tc.what, func(t *testing.T) {
			var log bytes.Buffer
			i := gatewayWith(t, root, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(c *Config) { c.Exceptions = []Exception{tc.exc} })
			wantFault(t, openFault(t, i, tc.cert), tc.want)
			if used := i.Stats().Exceptions > 0; used != strings.Contains(log.String(), "exception") {
				t.Errorf("used %v, but the log says %q", used, log.String())
			} else if tc.want == "" && !used {
				t.Error("let pass, but not by the exception")
			}
		})
	}
}

func TestExceptionsNamesAreNotVouchedFor(t *testing.T) {
	root, stranger := newRoot(t), newRoot(t)
	i := gatewayOf(t, root, func(c *Config) {
		c.Exceptions = []Exception{{Host: "site.example", Faults: []FaultKind{FaultUntrusted}, Expires: time.Now().Add(time.Hour)}}
	})
	d := openDoor(t, i, to("site.example", newOrigin(t, stranger.leaf([]string{"site.example", "bank.example"}, nil))))
	_, cs, err := fetch(t, d, i.ca.pool(), "site.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(cs.PeerCertificates[0].DNSNames, " "); got != "site.example" {
		t.Errorf("the leaf is for %q: it vouches for names that nobody proved", got)
	}
}

// aiaServer serves files, and counts what it was asked for.
func aiaServer(t *testing.T, files map[string][]byte) (base string, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if b, ok := files[r.URL.Path]; ok {
			_, _ = w.Write(b)
			return
		}
		if r.URL.Path == "/elsewhere" {
			http.Redirect(w, r, "/one", http.StatusFound)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, asked
}

func pkcs7Of(t *testing.T, certs ...*x509.Certificate) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, c := range certs {
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "certs.pem")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "crl2pkcs7", "-nocrl", "-certfile", path, "-outform", "DER").Output()
	if err != nil {
		t.Fatalf("openssl crl2pkcs7: %v", err)
	}
	return out
}

// loopbackIssuers fetches from the tests' own servers, which no gateway does.
func loopbackIssuers(t *testing.T) *issuers {
	t.Helper()
	d, err := egress.New(egress.Default(), egress.Options{AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	return newIssuers(newFetcher(d), time.Now)
}

func TestMissingIntermediatesAreFetched(t *testing.T) {
	root := newRoot(t)
	files := map[string][]byte{}
	base, asked := aiaServer(t, files)
	from := func(path string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.IssuingCertificateURL = []string{base + path} }
	}
	one := root.child(t, "One")
	two := one.child(t, "Two", from("/one"))
	three := two.child(t, "Three", from("/two"))
	four := three.child(t, "Four", from("/three"))
	files["/one"], files["/two"], files["/three"], files["/four"] = one.cert.Raw, two.cert.Raw, three.cert.Raw, four.cert.Raw
	files["/one.p7c"] = pkcs7Of(t, one.cert)
	files["/both.p7c"] = pkcs7Of(t, two.cert, one.cert)
	files["/one.pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.cert.Raw})
	files["/garbage"] = []byte("nothing of use")
	files["/large"] = bytes.Repeat([]byte{0x30}, aiaSize+1)
	files["/stranger"] = newRoot(t).child(t, "One").cert.Raw
	site := []string{"site.example"}
	for _, tc := range []struct {
		what string
		cert tls.Certificate
		want FaultKind
	}{
		{"DER", one.leaf(site, nil, from("/one")), ""},
		{"PKCS#7", one.leaf(site, nil, from("/one.p7c")), ""},
		{"PKCS#7 with more than one", two.leaf(site, nil, from("/both.p7c")), ""},
		{"PEM", one.leaf(site, nil, from("/one.pem")), ""},
		{"one of two sent", two.leaf(site, []*authority{two}), ""},
		{"three in a row", three.leaf(site, nil, from("/three")), ""},
		{"too many in a row", four.leaf(site, nil, from("/four")), FaultUntrusted},
		{"not there", one.leaf(site, nil, from("/none")), FaultUntrusted},
		{"redirected", one.leaf(site, nil, from("/elsewhere")), FaultUntrusted},
		{"garbage", one.leaf(site, nil, from("/garbage")), FaultUntrusted},
		{"too large", one.leaf(site, nil, from("/large")), FaultUntrusted},
		{"a stranger's of the same name", one.leaf(site, nil, from("/stranger")), FaultUntrusted},
		{"by https", one.leaf(site, nil, func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"https://127.0.0.1/one"} }), FaultUntrusted},
		{"by ldap", one.leaf(site, nil, func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"ldap://127.0.0.1/one"} }), FaultUntrusted},
		{"from another service's port", one.leaf(site, nil, func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://127.0.0.1:25/one"} }), FaultUntrusted},
		{"second place good", one.leaf(site, nil, func(c *x509.Certificate) { c.IssuingCertificateURL = []string{base + "/none", base + "/one"} }), ""},
	} {
		t.Run(tc.what, func(t *testing.T) {
			i := gatewayOf(t, root)
			i.issuers = loopbackIssuers(t)
			wantFault(t, openFault(t, i, tc.cert), tc.want)
			before := asked.Load()
			wantFault(t, openFault(t, i, tc.cert), tc.want)
			if asked.Load() != before {
				t.Error("it was asked for again")
			}
		})
	}
	t.Run("switched off", func(t *testing.T) {
		i := gatewayOf(t, root, func(c *Config) { c.FetchIntermediates = false })
		before := asked.Load()
		wantFault(t, openFault(t, i, one.leaf(site, nil, from("/one"))), FaultUntrusted)
		if asked.Load() != before {
			t.Error("it was asked for")
		}
	})
}

func TestIntermediatesAreNotFetchedFromPrivateAddresses(t *testing.T) {
	root := newRoot(t)
	one := root.child(t, "One")
	base, asked := aiaServer(t, map[string][]byte{"/one": one.cert.Raw})
	// Where users may visit private addresses, too: whoever shows the certificate is no user.
	i := gatewayOf(t, root)
	if _, err := i.issuers.get(t.Context(), base+"/one"); egress.KindOf(err) != egress.Forbidden {
		t.Errorf("error %v, want that the address is forbidden", err)
	}
	from := func(c *x509.Certificate) { c.IssuingCertificateURL = []string{base + "/one"} }
	wantFault(t, openFault(t, i, one.leaf([]string{"site.example"}, nil, from)), FaultUntrusted)
	if asked.Load() != 0 {
		t.Error("it was asked for")
	}
}

func TestIntermediatesAreFetchedThroughTheParentProxy(t *testing.T) {
	root := newRoot(t)
	one := root.child(t, "One")
	var got atomic.Value
	parent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.RequestURI + " " + r.Header.Get("Proxy-Authorization"))
		_, _ = w.Write(one.cert.Raw)
	}))
	defer parent.Close()
	cfg := egress.Default()
	cfg.Parent = strings.Replace(parent.URL, "http://", "http://me:pw@", 1)
	d, err := egress.New(cfg, egress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	certs, err := newIssuers(newFetcher(d), time.Now).get(t.Context(), "http://ca.example/one")
	if err != nil || len(certs) != 1 {
		t.Fatalf("%d certificates, error %v", len(certs), err)
	}
	if got.Load() != "http://ca.example/one Basic bWU6cHc=" {
		t.Errorf("the parent was asked %q", got.Load())
	}
}

func FuzzParseIssuers(f *testing.F) {
	root := (*authority)(nil).child(f, "Seed")
	f.Add(root.cert.Raw)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw}))
	f.Add([]byte{0x30, 0x80, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2})
	p7 := append([]byte{0x30, 0x82, 0, 0, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2}, root.cert.Raw...)
	f.Add(p7)
	f.Fuzz(func(t *testing.T, b []byte) {
		certs, err := parseIssuers(b)
		if (err == nil) != (len(certs) > 0) {
			t.Errorf("%d certificates and error %v", len(certs), err)
		}
	})
}
