package intercept

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Netflix/bettertls/test-suites/certutil"
	"github.com/Netflix/bettertls/test-suites/nameconstraints"
	"github.com/Netflix/bettertls/test-suites/pathbuilding"
	testcase "github.com/Netflix/bettertls/test-suites/test-case"
)

// TestBetterTLS runs the cases of Netflix's BetterTLS (name constraints and path building) through the verifier of origins. What it
// asks for and what it recommends ("soft") must be what happens.
func TestBetterTLS(t *testing.T) {
	rootCert, rootKey, err := certutil.GenerateSelfSignedCert("bettertls_trust_root")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(rootCert)
	ca, err := (CAStore{Dir: t.TempDir() + "/ca"}).Init()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []testcase.TestCaseProvider{nameconstraints.NewTestCaseProvider(), pathbuilding.NewTestCaseProvider()} {
		count, err := p.GetTestCaseCount()
		if err != nil || count < 50 {
			t.Fatalf("%s has %d cases: there is nothing to look at (%v)", p.Name(), count, err)
		}
		step := uint(1)
		if count > 1000 {
			step = 11 // of tables with 2 to 4 columns: every combination of two is among them
		}
		table, ran := map[string]int{}, 0
		for n := uint(0); n < count; n += step {
			c, err := p.GetTestCase(n)
			if err != nil {
				t.Fatal(err)
			}
			certs, err := c.GetCertificates(rootCert, rootKey)
			if err != nil {
				t.Fatalf("%s %d: %v", p.Name(), n, err)
			}
			accepted, faults := judgeBetterTLS(roots, ca, certs.Certificate, c.GetHostname())
			ran++
			expected := []string{"must fail", "must pass", "should fail", "should pass"}[c.ExpectedResult()]
			table[fmt.Sprintf("%-12s accepted %v", expected, accepted)]++
			if accepted != strings.HasSuffix(expected, "pass") {
				t.Errorf("%s %d (%+v) %s; accepted %v, %v", p.Name(), n, c, expected, accepted, faults)
			}
		}
		t.Logf("BetterTLS, %s: %d of %d cases", p.Name(), ran, count)
		var lines []string
		for k, n := range table {
			lines = append(lines, fmt.Sprintf("%-28s %5d", k, n))
		}
		slices.Sort(lines)
		for _, l := range lines {
			t.Log(l)
		}
	}
}

// judgeBetterTLS has the verifier judge a chain as it was sent. One that cannot be parsed is not accepted.
func judgeBetterTLS(roots *x509.CertPool, ca *CA, ders [][]byte, host string) (bool, []*Fault) {
	var sent []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return false, []*Fault{{Kind: FaultMalformed, Detail: err.Error()}}
		}
		sent = append(sent, c)
	}
	v := &verifier{roots: roots, ca: ca, now: time.Now, chains: newLRU[[32]byte, chain](16, time.Now)}
	_, faults := v.judge(presented{name: host, chain: sent})
	return len(faults) == 0, faults
}
