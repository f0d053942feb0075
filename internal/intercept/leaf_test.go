package intercept

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func newTestLeaves(t testing.TB, size int, now func() time.Time, minted func()) *leaves {
	t.Helper()
	ca, err := (CAStore{Dir: filepath.Join(t.TempDir(), "ca")}).Init()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLeaves(ca, size, now, minted)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLeafFollowsTheOriginWithinWhatBrowsersAccept(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	l := newTestLeaves(t, 100, func() time.Time { return now }, nil)
	root := newRoot(t)
	day := 24 * time.Hour
	long := strings.Repeat("a", 60) + ".example"
	for _, tc := range []struct {
		what     string
		name     string
		origin   *x509.Certificate // nil: a page of ours
		names    []string
		from, to time.Time
	}{
		{"like the origin's", "www.example", originCert(t, root, now.Add(-2*time.Hour), now.Add(30*day), "www.example", "*.www.example"), []string{"www.example", "*.www.example"}, now.Add(-2 * time.Hour), now.Add(30 * day)},
		{"of an origin of ten years", "www.example", originCert(t, root, now.Add(-900*day), now.Add(3000*day), "www.example"), []string{"www.example"}, now.Add(-leafBackdate), now.Add(leafLifetime)},
		{"of an expired origin", "www.example", originCert(t, root, now.Add(-900*day), now.Add(-day), "www.example"), []string{"www.example"}, now.Add(-leafBackdate), now.Add(leafFaulty)},
		{"of an origin for other names", "www.example", originCert(t, root, now.Add(-9*day), now.Add(day), "other.example"), []string{"other.example", "www.example"}, now.Add(-leafBackdate), now.Add(day)},
		{"under a wildcard", "a.example.org", originCert(t, root, now.Add(-9*day), now.Add(day), "*.example.org"), []string{"*.example.org"}, now.Add(-leafBackdate), now.Add(day)},
		{"for an address", "192.0.2.1", originCert(t, root, now.Add(-9*day), now.Add(day), "192.0.2.1"), []string{"192.0.2.1"}, now.Add(-leafBackdate), now.Add(day)},
		{"for a page", "www.example", nil, []string{"www.example"}, now.Add(-leafBackdate), now.Add(leafFaulty)},
		{"for a page at an address", "2001:db8::1", nil, []string{"2001:db8::1"}, now.Add(-leafBackdate), now.Add(leafFaulty)},
		{"for a long name", long, nil, []string{long}, now.Add(-leafBackdate), now.Add(leafFaulty)},
	} {
		t.Run(tc.what, func(t *testing.T) {
			c, err := l.get(t.Context(), tc.name, tc.origin, ecdsaLeaf)
			if err != nil {
				t.Fatal(err)
			}
			got := c.Leaf.DNSNames
			for _, ip := range c.Leaf.IPAddresses {
				got = append(got, ip.String())
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.names) {
				t.Errorf("names %v, want %v", got, tc.names)
			}
			if !c.Leaf.NotBefore.Equal(later(tc.from, l.ca.cert.NotBefore)) || !c.Leaf.NotAfter.Equal(tc.to) {
				t.Errorf("valid from %v to %v, want %v to %v", c.Leaf.NotBefore, c.Leaf.NotAfter, tc.from, tc.to)
			}
			if c.Leaf.NotAfter.Sub(c.Leaf.NotBefore) > 397*day {
				t.Errorf("valid for %v", c.Leaf.NotAfter.Sub(c.Leaf.NotBefore))
			}
			pool := l.ca.pool()
			if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: tc.name, CurrentTime: now}); err != nil {
				t.Error(err)
			}
			if bits := c.Leaf.SerialNumber.BitLen(); bits < 64 || bits > 127 {
				t.Errorf("a serial number of %d bits", bits)
			}
			if c.Leaf.IsCA || len(c.Leaf.ExtKeyUsage) != 1 || c.Leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
				t.Error("the leaf is good for more than a server")
			}
			if bytes.Equal(c.Leaf.RawSubjectPublicKeyInfo, l.ca.cert.RawSubjectPublicKeyInfo) {
				t.Error("the leaf has the CA's key")
			}
		})
	}
}

// originCert returns an origin's certificate.
func originCert(t *testing.T, root *authority, from, to time.Time, names ...string) *x509.Certificate {
	t.Helper()
	return parsed(t, root.leaf(names, nil, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }))
}

func TestLeafMirrorsABoundedNumberOfHostNamesOnly(t *testing.T) {
	l := newTestLeaves(t, 100, time.Now, nil)
	root := newRoot(t)
	many := make([]string, 1000)
	for n := range many {
		many[n] = fmt.Sprintf("n%d.example", n)
	}
	c, err := l.get(t.Context(), "n999.example", originCert(t, root, time.Now(), time.Now().Add(time.Hour), many...), ecdsaLeaf)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.Leaf.DNSNames); n != maxMirrored+1 || c.Leaf.VerifyHostname("n999.example") != nil {
		t.Errorf("%d names, the one asked for is there: %v", n, c.Leaf.VerifyHostname("n999.example") == nil)
	}
	odd := originCert(t, root, time.Now(), time.Now().Add(time.Hour), "www.example", "*", "*.", "a b", "x\x00y")
	if c, err = l.get(t.Context(), "www.example", odd, ecdsaLeaf); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.Leaf.DNSNames); got != "[www.example]" {
		t.Errorf("mirrored names %v", got)
	}
}

func TestOneLeafIsMintedAtATimeForAName(t *testing.T) {
	var minted atomic.Int64
	l := newTestLeaves(t, 100, time.Now, func() { minted.Add(1) })
	root := newRoot(t)
	one := originCert(t, root, time.Now().Add(-time.Hour), time.Now().Add(48*time.Hour), "*.example.org")
	var wg sync.WaitGroup
	for n := range 50 {
		wg.Go(func() {
			if _, err := l.get(context.Background(), fmt.Sprintf("h%d.example.org", n%5), one, ecdsaLeaf); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if minted.Load() != 1 {
		t.Errorf("%d leaves minted for five names of one certificate, want 1", minted.Load())
	}
	changed := originCert(t, root, time.Now().Add(-time.Hour), time.Now().Add(48*time.Hour), "*.example.org")
	if _, err := l.get(context.Background(), "h1.example.org", changed, ecdsaLeaf); err != nil {
		t.Fatal(err)
	}
	if minted.Load() != 2 {
		t.Error("a changed certificate of the origin did not get a new leaf")
	}
}

func TestLeafCacheIsBoundedAndRenewed(t *testing.T) {
	now := time.Now()
	var minted int
	l := newTestLeaves(t, 16, func() time.Time { return now }, func() { minted++ })
	for n := range 100 {
		if _, err := l.get(t.Context(), fmt.Sprintf("h%d.example", n), nil, ecdsaLeaf); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.cache.size(); got != 16 || minted != 100 {
		t.Errorf("%d leaves kept of %d", got, minted)
	}
	now = now.Add(leafFaulty - 30*time.Minute)
	c, err := l.get(t.Context(), "h99.example", nil, ecdsaLeaf)
	if err != nil {
		t.Fatal(err)
	}
	if minted != 101 || c.Leaf.NotAfter.Sub(now) < time.Hour {
		t.Errorf("a leaf in its last hour was given out: %v left", c.Leaf.NotAfter.Sub(now))
	}
}

func TestLeafKeysAreNewAtEachStart(t *testing.T) {
	a, b := newTestLeaves(t, 16, time.Now, nil), newTestLeaves(t, 16, time.Now, nil)
	if a.ecdsa.Equal(b.ecdsa) {
		t.Error("two gateways have one leaf key")
	}
}

// TestLeafDoesNotTellWhatOthersVisited: one that serves all names of a certificate names none that somebody asked for.
func TestLeafDoesNotTellWhatOthersVisited(t *testing.T) {
	root := newRoot(t)
	i := gatewayOf(t, root)
	long := strings.Repeat("a", 60) + ".example"
	for _, tc := range []struct {
		what   string
		names  []string // of the origin's certificate
		visits []string // in this order
		want   string   // the common name of each
	}{
		{"a wildcard", []string{"*.site.example"}, []string{"alice-secret.site.example", "bob.site.example"}, "*.site.example"},
		{"several names", []string{"a.example", "b.example"}, []string{"b.example", "a.example"}, "a.example"},
		{"a name too long", []string{long, "*.site.example"}, []string{"alice-secret.site.example", "bob.site.example"}, "*.site.example"},
		{"names too long only", []string{"*." + long}, []string{"alice." + long, "bob." + long}, ""},
		{"addresses", []string{"192.0.2.7", "192.0.2.8"}, []string{"192.0.2.8", "192.0.2.7"}, "address 192.0.2.7"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			origin := parsed(t, root.leaf(tc.names, nil))
			for _, name := range tc.visits {
				c, err := i.leaves.get(t.Context(), name, origin, ecdsaLeaf)
				if err != nil {
					t.Fatal(err)
				}
				if c.Leaf.Subject.CommonName != tc.want {
					t.Errorf("%s is given the common name %q, want %q", name, c.Leaf.Subject.CommonName, tc.want)
				}
				if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: i.ca.pool(), DNSName: name}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	// One of a name's own has that.
	origin := parsed(t, root.leaf([]string{"other.example"}, nil))
	if c, err := i.leaves.get(t.Context(), "site.example", origin, ecdsaLeaf); err != nil || c.Leaf.Subject.CommonName != "site.example" {
		t.Errorf("%v, %v", c, err)
	}
}
