package intercept

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestKnownRevocationOutlivesMemory: a list that is in a file is looked at before the first answer, where nothing is waited for, too.
func TestKnownRevocationOutlivesMemory(t *testing.T) {
	s := newCRLServer(t)
	root := crlRoot(t)
	s.set("/root.crl", root.crl(t, nil, big.NewInt(800)))
	s.set("/other.crl", root.crl(t, nil))
	dir := t.TempDir()
	path := []*x509.Certificate{parsed(t, root.leaf([]string{"site.example"}, nil, withCRL(s.url+"/root.crl", 800))), root.cert}
	var skew atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	gateway := func() *Interceptor {
		return gatewayWith(t, root, Options{StateDir: dir, Now: now}, func(c *Config) { c.Revocation = revocationPass })
	}
	first := gateway()
	until(t, "the list is known", func() bool { return first.crls.check(t.Context(), path, true, false) != nil })
	wantRevoked := func(what string, i *Interceptor) {
		t.Helper()
		if f := i.crls.check(t.Context(), path, true, false); f == nil || !strings.Contains(f.Detail, "revoked on") {
			t.Errorf("%s: fault %v", what, f)
		}
	}
	restarted := gateway()
	wantRevoked("after a restart", restarted)
	for n := range crlLists + 1 {
		restarted.crls.put(fmt.Sprint(n), &crl{until: now().Add(time.Hour)})
	}
	if restarted.crls.get(crlKey(s.url+"/root.crl", root.cert), now()) != nil {
		t.Fatal("the list is still in memory")
	}
	wantRevoked("after it had to make room in memory", restarted)
	if n := s.count("/root.crl"); n != 1 {
		t.Errorf("fetched %d times, want once", n)
	}
	// One that is old holds while a newer one is fetched.
	skew.Store(int64(crlMaxRefresh))
	s.set("/root.crl", nil)
	wantRevoked("of an old list", gateway())
}

// TestExceptionDoesNotHideARevocation: whether a certificate is revoked is asked for where another fault of its chain is let pass.
func TestExceptionDoesNotHideARevocation(t *testing.T) {
	s := newCRLServer(t)
	root := crlRoot(t)
	mayList := func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }
	expired := root.child(t, "Expired", mayList, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	weak := root.childFor(newRSAKey(t, 1024), t, "Weak", mayList)
	staples := pkix.Extension{Id: oidTLSFeature, Value: []byte{0x30, 3, 2, 1, statusRequest}}
	for _, by := range []*authority{expired, weak} {
		name := by.cert.Subject.CommonName
		s.set("/"+name, by.crl(t, nil, big.NewInt(801)))
		for _, tc := range []struct {
			what string
			edit []func(*x509.Certificate)
			want FaultKind
		}{
			{"good", []func(*x509.Certificate){withCRL(s.url+"/"+name, 800)}, ""},
			{"revoked", []func(*x509.Certificate){withCRL(s.url+"/"+name, 801)}, FaultRevoked},
			{"not to be checked", []func(*x509.Certificate){withCRL(s.url+"/none.crl", 800)}, FaultRevoked},
			{"must-staple without a staple", []func(*x509.Certificate){func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{staples} }}, FaultRevoked},
		} {
			t.Run(name+" "+tc.what, func(t *testing.T) {
				i := gatewayOf(t, root, func(c *Config) {
					c.Revocation = revocationRefuse
					c.Exceptions = []Exception{{Host: "site.example", Faults: []FaultKind{FaultExpired, FaultWeak}, Expires: time.Now().Add(time.Hour)}}
				})
				org := newOrigin(t, by.leaf([]string{"site.example"}, []*authority{by}, tc.edit...))
				x := i.Explain(t.Context(), to("site.example", org), true)
				got := FaultKind("")
				if x.Fault != nil {
					got = x.Fault.Kind
				}
				if got != tc.want || len(x.Excused) != 1 {
					t.Errorf("fault %v, excused %v; want fault %q, and one excused", x.Fault, x.Excused, tc.want)
				}
			})
		}
	}
}
