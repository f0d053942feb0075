package intercept

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestConstrainedCAIsGoodForWhatItPermits mints leaves of constrained CAs, and asks OpenSSL and Go whether they take them: permits
// must say the same.
func TestConstrainedCAIsGoodForWhatItPermits(t *testing.T) {
	names := []string{
		"school.example", "www.school.example", "a.b.school.example", "WWW.School.Example", "notschool.example", "school.example.evil.example",
		"example", "other.example", "kindergarten.example", "192.0.2.1", "192.0.3.1", "2001:db8::1", "127.0.0.1",
	}
	for _, tc := range []struct {
		what   string
		permit Permit
		want   string // of the names
	}{
		{"everything", Permit{}, strings.Join(names, " ")},
		{"domains", Permit{Domains: []string{"school.example", "Kindergarten.example."}}, "school.example www.school.example a.b.school.example WWW.School.Example kindergarten.example"},
		{"domains and networks", Permit{Domains: []string{"school.example"}, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}, "school.example www.school.example a.b.school.example WWW.School.Example 192.0.2.1"},
		{"networks", Permit{Networks: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}}, "2001:db8::1"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			store := CAStore{Dir: filepath.Join(t.TempDir(), "ca"), Permit: tc.permit}
			ca, err := store.Init()
			if err != nil {
				t.Fatal(err)
			}
			l, err := newLeaves(ca, 16, time.Now, nil)
			if err != nil {
				t.Fatal(err)
			}
			var taken []string
			for _, n := range names {
				leaf, err := l.mint(n, nil, ecdsaLeaf)
				if err != nil {
					t.Fatal(err)
				}
				_, goErr := leaf.Leaf.Verify(x509.VerifyOptions{Roots: ca.pool(), DNSName: n})
				file := filepath.Join(t.TempDir(), "leaf.pem")
				writeFile(t, file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}))
				out, sslErr := exec.Command("openssl", "verify", "-CAfile", store.certPath(), file).CombinedOutput()
				if got := ca.permits(n); got != (goErr == nil) || got != (sslErr == nil) {
					t.Errorf("%s: permits says %v, Go %v, OpenSSL %v: %s", n, got, goErr, sslErr, out)
				}
				if sslErr == nil {
					taken = append(taken, n)
				}
			}
			if got := strings.Join(taken, " "); got != tc.want {
				t.Errorf("taken are %s; want %s", got, tc.want)
			}
			// A rotation keeps it to the same names, and so does one of that.
			for range 2 {
				if ca, err = (CAStore{Dir: store.Dir}).Rotate(0); err != nil {
					t.Fatal(err)
				}
				for _, n := range names {
					if got := ca.permits(n); got != strings.Contains(" "+tc.want+" ", " "+n+" ") {
						t.Errorf("after a rotation %s is permitted: %v", n, got)
					}
				}
			}
		})
	}
	for _, bad := range []string{"", ".", "*.school.example", ".school.example", "school example", "192.0.2.1", "school.example/", "http://school.example"} {
		dir := filepath.Join(t.TempDir(), "ca")
		if _, err := (CAStore{Dir: dir, Permit: Permit{Domains: []string{"good.example", bad}}}).Init(); err == nil {
			t.Errorf("%q is taken for a domain", bad)
		}
		if _, err := os.Stat(filepath.Join(dir, caKeyFile)); err == nil {
			t.Errorf("%q: half a CA was made", bad)
		}
		c := Default()
		c.PermitDomains = []string{bad}
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), "permit_domains: ") {
			t.Errorf("%q in the settings: %v", bad, err)
		}
	}
}

func TestWildcardsOfConstrainedCAs(t *testing.T) {
	ca := &CA{cert: &x509.Certificate{PermittedDNSDomains: []string{"school.example", ".only-below.example"}, ExcludedDNSDomains: []string{"staff.school.example"}}}
	for name, want := range map[string]bool{
		"*.school.example":   false, // it would cover staff.school.example
		"*.a.school.example": true, "*.staff.school.example": false, "staff.school.example": false, "a.staff.school.example": false,
		"school.example": true, "only-below.example": false, "x.only-below.example": true, "*.example": false,
	} {
		if got := ca.permits(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	// What an issuer in the CA's file is kept to counts, too.
	sub := &CA{cert: &x509.Certificate{}, issuers: []*x509.Certificate{{PermittedDNSDomains: []string{"school.example"}}}}
	if sub.permits("other.example") || !sub.permits("a.school.example") {
		t.Error("the issuer's constraints do not count")
	}
}

// TestHostsOutsideTheConstraintsAreNotGivenALeaf: a client would refuse it. They are refused or passed through, with the reason; and
// what is inside gets a leaf without the origin's names that are outside.
func TestHostsOutsideTheConstraintsAreNotGivenALeaf(t *testing.T) {
	root := newRoot(t)
	addr := newOrigin(t, root.leaf([]string{"www.school.example", "www.other.example", "127.0.0.1"}, nil))
	for _, setting := range []string{notPermittedRefuse, notPermittedTunnel} {
		i := gatewayOf(t, root, func(c *Config) { c.PermitDomains, c.NotPermitted = []string{"school.example"}, setting })
		want := Refuse
		if setting == notPermittedTunnel {
			want = Tunnel
		}
		visit := func(target Target, sni string, pool *x509.CertPool) (*Session, error) {
			t.Helper()
			target.Addr = addr
			d := openDoor(t, i, target)
			c, err := (&tls.Dialer{Config: &tls.Config{ServerName: sni, RootCAs: pool}}).DialContext(context.Background(), "tcp", d.addr.String())
			s := d.session(t)
			t.Cleanup(func() { _ = s.Close() })
			if err == nil {
				leaf := c.(*tls.Conn).ConnectionState().PeerCertificates[0]
				if s.Mode == Inspect && (len(leaf.DNSNames) != 1 || len(leaf.IPAddresses) != 0) {
					t.Errorf("the leaf is for %v %v", leaf.DNSNames, leaf.IPAddresses)
				}
				_ = c.Close()
			}
			return s, err
		}
		if s, err := visit(Target{Host: "www.school.example", Port: 443}, "www.school.example", i.ca.pool()); err != nil || s.Mode != Inspect || s.Fault != nil {
			t.Errorf("%s: inside: %v, %+v", setting, err, s.Decision)
		}
		for _, target := range []Target{{Host: "www.other.example", Port: 8443}, {}, {Host: "127.0.0.1", Port: 443}} {
			s, _ := visit(target, "www.other.example", root.pool())
			if s.Mode != want || s.Rule != RuleNotPermitted || !strings.Contains(s.Reason, "name constraints") || s.Client != nil {
				t.Errorf("%s: %v outside: %+v", setting, target, s.Decision)
			}
			if (s.RawOrigin != nil) != (want == Tunnel) {
				t.Errorf("%s: connected to the origin: %v", setting, s.RawOrigin != nil)
			}
		}
		// Under a name that the origin does not prove, nothing is passed through.
		if s, _ := visit(Target{}, "unproven.example", root.pool()); s.Mode != Refuse || s.Rule != RuleNotPermitted {
			t.Errorf("%s: an unproven name: %+v", setting, s.Decision)
		}
		ask := func(host string, port uint16) Decision {
			return i.Decide(context.Background(), Target{Host: host, Port: port})
		}
		if d := ask("www.other.example", 443); (d.Mode == Refuse) != (want == Refuse) {
			t.Errorf("%s: CONNECT to 443: %+v", setting, d)
		}
		// It may become HTTP without TLS, or have a name yet.
		for _, d := range []Decision{ask("www.other.example", 80), ask("127.0.0.1", 443), ask("www.school.example", 443)} {
			if d.Mode != Inspect {
				t.Errorf("%s: CONNECT: %+v", setting, d)
			}
		}
		for _, host := range []string{"www.other.example", "127.0.0.1"} {
			if x := i.Explain(context.Background(), Target{Host: host, Port: 443}, false); x.Decision.Mode != want || x.Decision.Rule != RuleNotPermitted {
				t.Errorf("%s: explain %s: %+v", setting, host, x.Decision)
			}
		}
		if x := i.Explain(context.Background(), Target{Host: "www.school.example", Port: 443}, false); x.Decision.Mode != Inspect {
			t.Errorf("%s: explain: %+v", setting, x.Decision)
		}
	}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}
