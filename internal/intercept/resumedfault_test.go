package intercept

import (
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// changing is an origin whose certificate can be replaced.
type changing struct {
	*countingOrigin
	cert    atomic.Pointer[tls.Certificate]
	offered atomic.Int64 // handshakes begun
}

func newChanging(t *testing.T, cert tls.Certificate, version uint16) *changing {
	o := &changing{}
	o.cert.Store(&cert)
	o.countingOrigin = newCountingOrigin(t, cert, func(c *tls.Config) {
		c.Certificates, c.MaxVersion = nil, version
		c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.cert.Load(), nil }
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { o.offered.Add(1); return nil, nil }
	})
	return o
}

// revocable is a gateway that a browser has a session through, with an origin whose certificate can be revoked and replaced.
type revocable struct {
	org            *changing
	d              *door
	b              *browser
	first          *Session
	revoke, change func()
}

func newRevocable(t *testing.T, version uint16) *revocable {
	t.Helper()
	s := newCRLServer(t)
	root := crlRoot(t)
	s.set("/root.crl", root.crl(t, nil))
	place := s.url + "/root.crl"
	fresh := root.leaf([]string{"site.example"}, nil, withCRL(place, 901))
	revoked, err := parseCRL(root.crl(t, nil, big.NewInt(900)), root.cert, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	revoked.refresh = time.Now().Add(time.Hour)
	i := gatewayOf(t, root, func(c *Config) { c.Revocation = revocationRefuse })
	r := &revocable{org: newChanging(t, root.leaf([]string{"site.example"}, nil, withCRL(place, 900)), version), b: newBrowser(i)}
	r.d = openDoor(t, i, to("site.example", r.org.addr))
	r.revoke = func() { i.crls.put(crlKey(place, root.cert), revoked) }
	r.change = func() { r.org.cert.Store(&fresh) }
	r.b.visit(t, r.d, "site.example")
	r.first = r.d.session(t)
	return r
}

// TestFaultOfAResumedSessionIsAskedAboutOnceMore: an origin that has replaced the certificate which a session began with is reached at
// once, without a page about the old one; one that has not is not.
func TestFaultOfAResumedSessionIsAskedAboutOnceMore(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version)+" replaced", func(t *testing.T) {
			r := newRevocable(t, version)
			r.revoke()
			r.change()
			if r.b.visit(t, r.d, "site.example") {
				t.Error("the old session goes on at the browser's side")
			}
			if !r.b.visit(t, r.d, "site.example") {
				t.Error("the new one is not resumed")
			}
			r.org.want(t, 2, 1)
		})
		t.Run(tls.VersionName(version)+" replaced, for a further connection", func(t *testing.T) {
			r := newRevocable(t, version)
			r.revoke()
			r.change()
			c, err := r.first.Redial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c.ConnectionState().DidResume {
				t.Error("the old session goes on")
			}
			_ = c.Close()
		})
		t.Run(tls.VersionName(version)+" not replaced", func(t *testing.T) {
			r := newRevocable(t, version)
			r.revoke()
			before := r.org.offered.Load()
			c, err := tls.Dial("tcp", r.d.addr.String(), &tls.Config{RootCAs: r.b.roots, ServerName: "site.example", NextProtos: []string{"h2"}, ClientSessionCache: r.b})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			if f := r.d.session(t).Fault; f == nil || f.Kind != FaultRevoked {
				t.Errorf("fault %v", f)
			}
			if n := r.org.offered.Load() - before; n != 2 {
				t.Errorf("%d handshakes with the origin, want the resumed one and a full one", n)
			}
		})
	}
}

// TestStapleThatRanOutIsAskedForAnew where a session is resumed that began with it.
func TestStapleThatRanOutIsAskedForAnew(t *testing.T) {
	root := newRoot(t)
	leaf := root.leaf([]string{"site.example"}, nil, func(c *x509.Certificate) { c.OCSPServer = []string{"http://ocsp.example/"} })
	serial := parsed(t, leaf).SerialNumber
	stapledFor := func(from, to time.Duration) tls.Certificate {
		c := leaf
		var err error
		if c.OCSPStaple, err = ocsp.CreateResponse(root.cert, root.cert, ocsp.Response{
			Status: ocsp.Good, SerialNumber: serial, ThisUpdate: time.Now().Add(from), NextUpdate: time.Now().Add(to),
		}, root.key); err != nil {
			t.Fatal(err)
		}
		return c
	}
	var skew atomic.Int64
	org := newChanging(t, stapledFor(-time.Hour, 2*time.Hour), tls.VersionTLS13)
	i := gatewayWith(t, root, Options{Now: func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }}, func(c *Config) { c.Revocation = revocationRefuse })
	d := openDoor(t, i, to("site.example", org.addr))
	b := newBrowser(i)
	b.visit(t, d, "site.example")
	next := stapledFor(2*time.Hour, 9*time.Hour)
	org.cert.Store(&next)
	skew.Store(int64(3 * time.Hour))
	if b.visit(t, d, "site.example") {
		t.Error("the session goes on with an answer that ran out")
	}
	org.want(t, 2, 0)
}
