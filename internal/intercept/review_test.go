package intercept

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"lazaret/internal/egress"

	"golang.org/x/crypto/ocsp"
)

func since(from, to time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
}

// TestExceptionForOneFaultHidesNoStranger has certificates that nobody trusts, with another fault besides, which an exception
// is for; and ones with that fault alone, which the exception is for indeed.
func TestExceptionForOneFaultHidesNoStranger(t *testing.T) {
	root := newRoot(t)
	stranger := newRoot(t, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "Stranger"} })
	past, future := since(-48*time.Hour, -24*time.Hour), since(24*time.Hour, 48*time.Hour)
	old, late := stranger.child(t, "Old", past), stranger.child(t, "Late", future)
	known, good := stranger.child(t, "Sub"), root.child(t, "Good, old", past)
	site := []string{"site.example"}
	weak := newRSAKey(t, 1024)
	for _, tc := range []struct {
		what   string
		cert   tls.Certificate
		fault  FaultKind
		passes bool
	}{
		{"a stranger's, old intermediate", old.leaf(site, []*authority{old}), FaultExpired, false},
		{"a stranger's, old intermediate and leaf", old.leaf(site, []*authority{old}, past), FaultExpired, false},
		{"a stranger's, intermediate of the future", late.leaf(site, []*authority{late}), FaultNotYetValid, false},
		{"a stranger's, weak key", known.leafFor(weak, site, []*authority{known}), FaultWeak, false},
		{"a stranger's, SHA-1", known.leaf(site, []*authority{known}, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }), FaultWeak, false},
		{"old leaf", root.leaf(site, nil, past), FaultExpired, true},
		{"old intermediate", good.leaf(site, []*authority{good}), FaultExpired, true},
		{"weak key", root.leafFor(weak, site, nil), FaultWeak, true},
	} {
		t.Run(tc.what, func(t *testing.T) {
			i := gatewayOf(t, root, func(c *Config) {
				c.Exceptions = []Exception{{Host: "site.example", Faults: []FaultKind{tc.fault}, Expires: time.Now().Add(time.Hour)}}
			})
			if f := openFault(t, i, tc.cert); (f == nil) != tc.passes {
				t.Errorf("fault %v, want that it passes: %v", f, tc.passes)
			}
		})
	}
}

func TestOCSPAnswersAreOfThoseWhoMayGiveThem(t *testing.T) {
	root := newRoot(t)
	inter := root.child(t, "Intermediate")
	feature := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidTLSFeature, Value: []byte{0x30, 3, 2, 1, statusRequest}}}
	}
	responder := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }
	now := time.Now()
	fresh := ocsp.Response{ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}
	for _, tc := range []struct {
		what   string
		edit   []func(*x509.Certificate)
		answer ocsp.Response
		good   bool
	}{
		{"a responder", []func(*x509.Certificate){responder}, fresh, true},
		{"a responder that does not say until when", []func(*x509.Certificate){responder}, ocsp.Response{ThisUpdate: now.Add(-time.Hour)}, true},
		{"a server's certificate", nil, fresh, false},
		{"a responder of the past", []func(*x509.Certificate){responder, since(-99*time.Hour, -98*time.Hour)}, fresh, false},
		{"an answer of five years ago", []func(*x509.Certificate){responder}, ocsp.Response{ThisUpdate: now.AddDate(-5, 0, 0)}, false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			cert := inter.leaf([]string{"site.example"}, []*authority{inter}, feature)
			key := newKey(t)
			by := parsed(t, inter.leafFor(key, []string{"responder.example"}, nil, tc.edit...))
			answer := tc.answer
			answer.Status, answer.SerialNumber, answer.Certificate = ocsp.Good, parsed(t, cert).SerialNumber, by
			var err error
			if cert.OCSPStaple, err = ocsp.CreateResponse(inter.cert, by, answer, key); err != nil {
				t.Fatal(err)
			}
			if f := openFault(t, gatewayOf(t, root), cert); (f == nil) != tc.good {
				t.Errorf("fault %v, want a good answer: %v", f, tc.good)
			}
		})
	}
}

// TestCirclesOfCertificatesCostLittle counts the signatures that are looked at, where two certificates sign each other and
// there are many more of their names.
func TestCirclesOfCertificatesCostLittle(t *testing.T) {
	ka, kb := newKey(t), newKey(t)
	byA := &authority{t: t, cert: &x509.Certificate{Subject: pkix.Name{CommonName: "A"}}, key: ka}
	byB := &authority{t: t, cert: &x509.Certificate{Subject: pkix.Name{CommonName: "B"}}, key: kb}
	a, b := byB.childFor(ka, t, "A"), byA.childFor(kb, t, "B")
	var have []*x509.Certificate
	for range 40 {
		have = append(have, byB.childFor(newKey(t), t, "A").cert, byA.childFor(newKey(t), t, "B").cert)
	}
	have = append(have, a.cert, b.cert)
	checks := aiaChecks
	seen, tip := 0, parsed(t, a.leaf([]string{"site.example"}, nil))
	for left := have; tip != nil; seen++ {
		tip = issuerOf(tip, left, &checks)
	}
	if seen < 2 || checks > 0 {
		t.Errorf("%d certificates in a row, %d signatures left: nothing was tested", seen, checks)
	}
	f := newIssuers(newFetcher(&egress.Dialer{}), time.Now)
	if more, err := f.complete(t.Context(), parsed(t, a.leaf([]string{"site.example"}, nil)), have); err != nil || len(more) > 0 {
		t.Errorf("%d certificates, %v", len(more), err)
	}
}

func TestLearnedHostsAreTunnelledOnlyWherePolicySaysSo(t *testing.T) {
	for policy, want := range map[string]Mode{certsTunnel: Tunnel, certsRefuse: Inspect, certsAnonymous: Inspect} {
		i := gatewayOf(t, newRoot(t), func(c *Config) { c.ClientCertificates = policy })
		target := Target{Host: "site.example", Port: 443}
		i.learned.add(Learned{Host: learnedKey(target.Host, target), Reason: "x", Until: time.Now().Add(time.Hour)})
		if d := i.Decide(t.Context(), target); d.Mode != want {
			t.Errorf("client_certificates = %q: %v (%s)", policy, d.Mode, d.Reason)
		}
	}
}

// TestManyFetchesWaitForEachOther fetches more at once than there are places, and from one place when all are taken.
func TestManyFetchesWaitForEachOther(t *testing.T) {
	hold := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, _ *http.Request) { <-hold }))
	defer s.Close()
	d, err := egress.New(egress.Default(), egress.Options{AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	f := newFetcher(d)
	const many = fetchAtOnce * 2
	errs := make(chan error, many)
	for range many {
		go func() {
			_, err := f.fetch(t.Context(), s.URL, 1)
			errs <- err
		}()
	}
	for len(f.queue) < many || len(f.places) < fetchAtOnce {
		time.Sleep(time.Millisecond)
	}
	close(hold)
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for range fetchAtOnce {
		f.places <- struct{}{}
	}
	issuers := newIssuers(f, time.Now)
	ctx := t.Context()
	if _, err := issuers.get(ctx, s.URL); !errors.Is(err, errCrowded) {
		t.Fatalf("error %v, want that too many are fetched", err)
	}
	if _, known := issuers.cache.get(s.URL); known {
		t.Error("that all places were taken is remembered as a fault of this one")
	}
}
