package intercept

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"
)

func TestRememberedChainIsStillJudged(t *testing.T) {
	root := newRoot(t)
	mid := root.child(t, "Middle", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(5 * time.Minute) })
	now := time.Now()
	i := gatewayWith(t, root, Options{Now: func() time.Time { return now }})
	leaf := parsed(t, mid.leaf([]string{"site.example"}, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Minute) }))
	forged := parsed(t, newRoot(t).child(t, "Middle").leaf([]string{"site.example"}, nil))
	judge := func(name string, chain ...*x509.Certificate) (kinds []FaultKind) {
		t.Helper()
		_, faults := i.verifier.judge(presented{name: name, chain: chain})
		for _, f := range faults {
			kinds = append(kinds, f.Kind)
		}
		return kinds
	}
	want := func(what string, got []FaultKind, kinds ...FaultKind) {
		t.Helper()
		if !slices.Equal(got, kinds) {
			t.Errorf("%s: faults %v, want %v", what, got, kinds)
		}
	}
	want("the first time", judge("site.example", leaf, mid.cert))
	if i.verifier.chains.size() != 1 {
		t.Fatal("nothing is remembered: nothing can be tried")
	}
	want("again", judge("site.example", leaf, mid.cert))
	want("for another name", judge("other.example", leaf, mid.cert), FaultName)
	want("a leaf of a twin authority", judge("site.example", forged, mid.cert), FaultUntrusted)
	want("without the intermediate", judge("site.example", leaf), FaultUntrusted)
	changed := *leaf
	changed.Raw = append([]byte{}, leaf.Raw...)
	changed.Raw[len(changed.Raw)-1] ^= 1
	changed.Signature = append([]byte{}, leaf.Signature...)
	changed.Signature[len(changed.Signature)-1] ^= 1
	want("with another signature", judge("site.example", &changed, mid.cert), FaultUntrusted)

	roots := i.verifier.roots
	i.verifier.roots = x509.NewCertPool()
	want("with other roots", judge("site.example", leaf, mid.cert), FaultUntrusted)
	i.verifier.roots = roots
	now = now.Add(3 * time.Minute)
	want("with the leaf expired", judge("site.example", leaf, mid.cert), FaultExpired)
	now = now.Add(3 * time.Minute)
	if got := judge("site.example", leaf, mid.cert); !slices.Contains(got, FaultExpired) {
		t.Errorf("with the intermediate expired: faults %v", got)
	}
}
