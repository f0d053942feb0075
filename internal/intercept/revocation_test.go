package intercept

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/egress"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// crlRoot returns an authority that may sign lists.
func crlRoot(t testing.TB) *authority {
	return newRoot(t, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign })
}

// crl returns a revocation list in DER with these serial numbers.
func (a *authority) crl(t testing.TB, edit func(*x509.RevocationList), serials ...*big.Int) []byte {
	t.Helper()
	tpl := &x509.RevocationList{Number: nextSerial(), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(24 * time.Hour)}
	for _, n := range serials {
		tpl.RevokedCertificateEntries = append(tpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: time.Now().Add(-time.Minute)})
	}
	if edit != nil {
		edit(tpl)
	}
	der, err := x509.CreateRevocationList(rand.Reader, tpl, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// distributionPoint returns an issuingDistributionPoint with this URL (empty: none) and these flags set.
func distributionPoint(t *testing.T, url string, flags ...uint8) pkix.Extension {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if url != "" {
			outer := cbasn1.Tag(0).ContextSpecific().Constructed()
			b.AddASN1(outer, func(b *cryptobyte.Builder) {
				b.AddASN1(outer, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
				})
			})
		}
		for _, f := range flags {
			b.AddASN1(cbasn1.Tag(f).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte{0xff}) })
		}
	})
	v, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: v}
}

func TestRevocationListsThatCannotBeUsed(t *testing.T) {
	root, other := crlRoot(t), newRoot(t, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign; c.Subject.CommonName = "Other" })
	twin := crlRoot(t) // of the same name
	mute := newRoot(t)
	ext := func(e pkix.Extension) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) { l.ExtraExtensions = append(l.ExtraExtensions, e) }
	}
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}
	delta := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}
	good := root.crl(t, nil, big.NewInt(7))
	broken := append([]byte{}, good...)
	broken[len(broken)-1] ^= 1
	for _, tc := range []struct {
		what string
		der  []byte
		by   *authority
		want string // "" is good
	}{
		{"good", good, root, ""},
		{"empty", root.crl(t, nil), root, ""},
		{"no list", []byte("<html>"), root, "not a certificate revocation list"},
		{"bad signature", broken, root, "signature"},
		{"another authority's", other.crl(t, nil), root, "another authority"},
		{"another authority's of the same name", twin.crl(t, nil), root, "signature"},
		{"by an authority that may not sign lists", crlBy(t, mute), mute, "signature"},
		{"outdated", root.crl(t, func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(-time.Minute) }), root, "outdated"},
		{"of tomorrow", root.crl(t, func(l *x509.RevocationList) {
			l.ThisUpdate, l.NextUpdate = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
		}), root, "holds from"},
		{"a critical extension", root.crl(t, ext(critical)), root, "critical extension"},
		{"a delta", root.crl(t, ext(delta)), root, "critical extension"},
		{"a critical extension of an entry", root.crl(t, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: time.Now(), ExtraExtensions: []pkix.Extension{critical}}}
		}), root, "an entry has"},
		{"indirect", root.crl(t, ext(distributionPoint(t, "", 4))), root, "indirect"},
		{"some reasons only", root.crl(t, ext(distributionPoint(t, "", 3))), root, "some reasons"},
		{"attribute certificates", root.crl(t, ext(distributionPoint(t, "", 5))), root, "not for these"},
		{"one part of several", root.crl(t, ext(distributionPoint(t, "http://ca.example/1.crl"))), root, ""},
		{"a broken distribution point", root.crl(t, ext(pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: []byte{4, 0}})), root, "malformed"},
	} {
		_, err := parseCRL(tc.der, tc.by.cert, time.Now())
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.what, err, tc.want)
		}
	}
}

// crlBy returns a list by an authority whose certificate does not allow it to sign lists.
func crlBy(t *testing.T, a *authority) []byte {
	t.Helper()
	may := *a.cert
	may.KeyUsage |= x509.KeyUsageCRLSign
	return (&authority{t: t, cert: &may, key: a.key}).crl(t, nil)
}

func TestRevocationListCoversOnlyItsOwn(t *testing.T) {
	root := crlRoot(t)
	leaf := &x509.Certificate{CRLDistributionPoints: []string{"http://ca.example/1.crl"}, SerialNumber: big.NewInt(7)}
	authority := &x509.Certificate{CRLDistributionPoints: []string{"http://ca.example/1.crl"}, SerialNumber: big.NewInt(7), IsCA: true}
	for _, tc := range []struct {
		url         string
		flags       []uint8
		leaf, above bool
	}{
		{"", nil, true, true},
		{"http://ca.example/1.crl", nil, true, true},
		{"http://ca.example/2.crl", nil, false, false},
		{"http://ca.example/1.crl", []uint8{1}, true, false},
		{"http://ca.example/1.crl", []uint8{2}, false, true},
	} {
		der := root.crl(t, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{distributionPoint(t, tc.url, tc.flags...)}
		})
		c, err := parseCRL(der, root.cert, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if a, b := c.covers(leaf), c.covers(authority); a != tc.leaf || b != tc.above {
			t.Errorf("%q %v covers a leaf: %v, an authority: %v", tc.url, tc.flags, a, b)
		}
	}
}

// crlServer serves lists by path, and counts.
type crlServer struct {
	url string

	mu    sync.Mutex
	lists map[string][]byte // nil: 404
	asked map[string]int
}

func newCRLServer(t *testing.T) *crlServer {
	s := &crlServer{lists: map[string][]byte{}, asked: map[string]int{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked[r.URL.Path]++
		if s.lists[r.URL.Path] == nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(s.lists[r.URL.Path])
	}))
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *crlServer) set(path string, der []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists[path] = der
}

func (s *crlServer) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[path]
}

func withCRL(url string, serial int64) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.CRLDistributionPoints, c.SerialNumber = []string{url}, big.NewInt(serial) }
}

// until waits for something that happens in the background.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to that: " + what)
		}
	}
}

func TestRevokedCertificates(t *testing.T) {
	s := newCRLServer(t)
	root := crlRoot(t)
	mid := root.child(t, "Middle", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, withCRL(s.url+"/root.crl", 501))
	gone := root.child(t, "Gone", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, withCRL(s.url+"/root.crl", 502))
	s.set("/root.crl", root.crl(t, nil, big.NewInt(502), big.NewInt(9)))
	s.set("/mid.crl", mid.crl(t, nil, big.NewInt(601)))
	s.set("/gone.crl", gone.crl(t, nil))
	s.set("/wrong.crl", root.crl(t, nil))
	for _, policy := range []string{revocationPass, revocationRefuse, revocationOff} {
		for _, tc := range []struct {
			what    string
			by      *authority
			place   string
			serial  int64
			known   bool
			revoked bool
		}{
			{"good", mid, "/mid.crl", 600, true, false},
			{"revoked", mid, "/mid.crl", 601, true, true},
			{"by a revoked authority", gone, "/gone.crl", 600, true, true},
			{"no list there", mid, "/none.crl", 600, false, false},
			{"another authority's list there", mid, "/wrong.crl", 600, false, false},
		} {
			t.Run(policy+" "+tc.what, func(t *testing.T) {
				org := newOrigin(t, tc.by.leaf([]string{"site.example"}, []*authority{tc.by}, withCRL(s.url+tc.place, tc.serial)))
				i := gatewayOf(t, root, func(c *Config) { c.Revocation = policy })
				open := func() *Fault {
					return i.Explain(t.Context(), to("site.example", org), true).Fault
				}
				f := open()
				if policy == revocationPass { // what is known shows once the lists are there
					until(t, "lists fetched", func() bool { return i.Stats().Revocation.Fetched+i.Stats().Revocation.Failed >= 2 })
					before := i.Stats().Revocation.Unchecked
					until(t, "the lists stored", func() bool { f = open(); return f != nil || !tc.known || i.Stats().Revocation.Unchecked == before })
				}
				want := policy != revocationOff && tc.revoked || policy == revocationRefuse && !tc.known
				if (f != nil) != want || f != nil && f.Kind != FaultRevoked {
					t.Errorf("fault %v, want one: %v", f, want)
				}
				if f != nil && strings.Contains(f.Detail, "could not be checked") == tc.known {
					t.Errorf("fault %v", f)
				}
				if st := i.Stats().Revocation; policy == revocationOff && st != (RevocationStats{}) {
					t.Errorf("it is off, and did something: %+v", st)
				}
			})
		}
	}
}

func TestRevocationIsNoticedAtTheNextResumption(t *testing.T) {
	s := newCRLServer(t)
	root := crlRoot(t)
	s.set("/root.crl", root.crl(t, nil))
	org := newCountingOrigin(t, root.leaf([]string{"site.example"}, nil, withCRL(s.url+"/root.crl", 700)))
	var mu sync.Mutex
	now := time.Now()
	i := gatewayWith(t, root, Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }}, func(c *Config) { c.Revocation = revocationRefuse })
	d := openDoor(t, i, to("site.example", org.addr))
	b := newBrowser(i)
	b.visit(t, d, "site.example")
	if !b.visit(t, d, "site.example") {
		t.Error("no resumption: nothing can be tried")
	}
	s.set("/root.crl", root.crl(t, func(l *x509.RevocationList) { l.ThisUpdate = time.Now() }, big.NewInt(700)))
	mu.Lock()
	now = now.Add(crlMaxRefresh)
	mu.Unlock()
	var f *Fault
	until(t, "the new list was fetched", func() bool {
		f = i.Explain(t.Context(), to("site.example", org.addr), true).Fault
		return f != nil
	})
	body, _, err := fetch(t, d, i.ca.pool(), "site.example", nil)
	if err != nil || !strings.Contains(body, "fault: revoked") {
		t.Errorf("%q, %v; %v", body, err, f)
	}
	if n := s.count("/root.crl"); n != 2 {
		t.Errorf("the list was fetched %d times, want 2", n)
	}
}

func TestRevocationListsAreKeptInFiles(t *testing.T) {
	s := newCRLServer(t)
	root := crlRoot(t)
	s.set("/root.crl", root.crl(t, nil, big.NewInt(800)))
	dir := t.TempDir()
	leaf := root.leaf([]string{"site.example"}, nil, withCRL(s.url+"/root.crl", 800))
	path := []*x509.Certificate{parsed(t, leaf), root.cert}
	now := time.Now()
	gateway := func() *Interceptor {
		return gatewayWith(t, root, Options{StateDir: dir, Now: func() time.Time { return now }}, func(c *Config) { c.Revocation = revocationRefuse })
	}
	for range 2 { // the second one finds the file
		if f := gateway().crls.check(t.Context(), path, true, false); f == nil || !strings.Contains(f.Detail, "revoked on") {
			t.Fatalf("fault %v", f)
		}
	}
	if n := s.count("/root.crl"); n != 1 {
		t.Errorf("fetched %d times, want once", n)
	}
	file := filepath.Join(dir, crlDir, crlKey(s.url+"/root.crl", root.cert)+".crl")
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	// A replayed older list does not take the place of a newer one.
	now = now.Add(crlMaxRefresh)
	s.set("/root.crl", root.crl(t, func(l *x509.RevocationList) { l.ThisUpdate = l.ThisUpdate.Add(-time.Hour) }))
	if f := gateway().crls.check(t.Context(), path, true, false); f == nil || !strings.Contains(f.Detail, "revoked on") {
		t.Errorf("after an older list: fault %v", f)
	}
	// A server that is gone leaves what is there, which is not asked for at each connection.
	s.set("/root.crl", nil)
	i, before := gateway(), s.count("/root.crl")
	for range 5 {
		if f := i.crls.check(t.Context(), path, true, false); f == nil || !strings.Contains(f.Detail, "revoked on") {
			t.Errorf("after the server was gone: fault %v", f)
		}
	}
	if n := s.count("/root.crl") - before; n != 1 {
		t.Errorf("asked for %d times, want once", n)
	}
	// At its end it is worth nothing, and a file of somebody else's making never was.
	now = now.Add(24 * time.Hour)
	if f := gateway().crls.check(t.Context(), path, true, false); f == nil || !strings.Contains(f.Detail, "could not be checked") {
		t.Errorf("after its end: fault %v", f)
	}
	now = time.Now()
	if err := os.WriteFile(file, crlRoot(t).crl(t, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if f := gateway().crls.check(t.Context(), path, true, false); f == nil || !strings.Contains(f.Detail, "could not be checked") {
		t.Errorf("by a forged file: fault %v", f)
	}
}

func TestRevocationListsAreBounded(t *testing.T) {
	i := gatewayWith(t, newRoot(t), Options{StateDir: t.TempDir()})
	r := i.crls
	for n := range crlLists + 10 {
		r.put(fmt.Sprint(n), &crl{revoked: make([]revokedCert, 10), until: time.Now().Add(time.Hour)})
	}
	if st := r.stats(); st.Lists != crlLists || st.Entries != 10*crlLists {
		t.Errorf("%+v", st)
	}
	r.put("large", &crl{revoked: make([]revokedCert, crlEntries-5), until: time.Now().Add(time.Hour)})
	if st := r.stats(); st.Lists != 1 || r.get("large", time.Now()) == nil {
		t.Errorf("%+v", st)
	}
	now := time.Now()
	r.now = func() time.Time { now = now.Add(time.Second); return now }
	name := func(n int) string { return hex.EncodeToString([]byte{byte(n >> 8), byte(n)}) }
	for n := range crlFiles + 3 {
		if err := r.write(name(n), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "*.crl"))
	if err != nil || len(files) != crlFiles {
		t.Errorf("%d files, %v", len(files), err)
	}
	if _, err := os.Stat(filepath.Join(r.dir, name(0)+".crl")); err == nil {
		t.Error("the oldest is still there")
	}
}

func TestRevocationListsAreNotFetchedFromPrivateAddresses(t *testing.T) {
	s := newCRLServer(t)
	root := crlRoot(t)
	s.set("/root.crl", root.crl(t, nil))
	path := []*x509.Certificate{parsed(t, root.leaf([]string{"site.example"}, nil, withCRL(s.url+"/root.crl", 900))), root.cert}
	i := gatewayOf(t, root, func(c *Config) { c.Revocation = revocationRefuse })
	if f := i.crls.check(t.Context(), path, i.verifier.operators(path), false); f != nil {
		t.Fatalf("below a root of the settings, where private addresses are allowed: %v", f)
	}
	// A list from a public authority's certificate, whatever the setting is; and nothing that one of the settings' has left behind.
	i = gatewayOf(t, newRoot(t), func(c *Config) { c.Revocation = revocationRefuse })
	i.verifier.roots.AddCert(root.cert)
	if f := i.crls.check(t.Context(), path, i.verifier.operators(path), false); f == nil || egress.KindOf(f.Err) != egress.Forbidden || s.count("/root.crl") != 1 {
		t.Errorf("below another root: fault %v, and the list was asked for %d times", f, s.count("/root.crl"))
	}
	if f := i.crls.check(t.Context(), path, true, false); f != nil {
		t.Errorf("that it was not to be had there is remembered for here: %v", f)
	}
	d, err := egress.New(egress.Default(), egress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	i.crls = newCRLs(revocationRefuse, newFetcher(d), newFetcher(d), "", i.log, i.now)
	if f := i.crls.check(t.Context(), path, true, false); f == nil || f.Err == nil || s.count("/root.crl") != 2 {
		t.Errorf("fault %v, and the list was asked for %d times", f, s.count("/root.crl"))
	}
}

func TestCertificatesWithoutAList(t *testing.T) {
	root := newRoot(t)
	i := gatewayOf(t, root, func(c *Config) { c.Revocation = revocationRefuse })
	responder := func(c *x509.Certificate) { c.OCSPServer = []string{"http://ocsp.example/"} }
	for _, tc := range []struct {
		what   string
		edit   []func(*x509.Certificate)
		proven bool
		fault  bool
	}{
		{"names nothing", nil, false, false},
		{"an OCSP responder, and nothing stapled", []func(*x509.Certificate){responder}, false, true},
		{"an OCSP responder, and its answer stapled", []func(*x509.Certificate){responder}, true, false},
		{"says that there is none", []func(*x509.Certificate){responder, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidNoRevocationAvailable, Value: []byte{5, 0}}}
		}}, false, false},
		{"a list by LDAP", []func(*x509.Certificate){withCRL("ldap://ca.example/cn=crl", 1)}, false, true},
		{"a list by LDAP, but a stapled answer", []func(*x509.Certificate){withCRL("ldap://ca.example/cn=crl", 1)}, true, false},
	} {
		path := []*x509.Certificate{parsed(t, root.leaf([]string{"site.example"}, nil, tc.edit...)), root.cert}
		if f := i.crls.check(t.Context(), path, true, tc.proven); (f != nil) != tc.fault {
			t.Errorf("%s: fault %v", tc.what, f)
		}
	}
}

func FuzzRevocationList(f *testing.F) {
	root := crlRoot(f)
	f.Add(root.crl(f, nil, big.NewInt(7)))
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseCRL(b, root.cert, time.Now()); err == nil && c.until.IsZero() {
			t.Error("a list without an end")
		}
		var c crl
		if c.distributionPoint(b) == nil && len(c.places) > len(b) {
			t.Error("more places than bytes")
		}
	})
}
