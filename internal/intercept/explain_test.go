package intercept

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lazaret/test/ports"
)

func TestExplain(t *testing.T) {
	root := newRoot(t)
	good := newOrigin(t, root.leaf([]string{"site.example", "excused.example", "bank.example"}, nil))
	late := newOrigin(t, root.leaf([]string{"late.example", "excused.example"}, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))
	asks := newOrigin(t, root.leaf([]string{"eid.example"}, nil), func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert })
	addr, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	nobody := netip.MustParseAddrPort(addr)
	settings := func(c *Config) {
		c.Tunnel = []string{"bank.example"}
		c.Exceptions = []Exception{{Host: "excused.example", Faults: []FaultKind{FaultExpired}, Expires: time.Now().Add(time.Hour)}}
	}
	for _, tc := range []struct {
		what   string
		target Target
		dial   bool
		edit   func(*Config)
		mode   Mode
		rule   Rule
		fault  FaultKind
		check  func(x Explanation) bool
	}{
		{"inspected", to("site.example", good), true, nil, Inspect, RuleNone, "", func(x Explanation) bool {
			return x.Dialled && x.Proto == "h2" && x.Version == tls.VersionTLS13 && len(x.Chain) == 1 && x.Address == good
		}},
		{"without a look", to("site.example", good), false, nil, Inspect, RuleNone, "", func(x Explanation) bool { return !x.Dialled && x.Name == "site.example" }},
		{"listed", to("bank.example", good), true, nil, Tunnel, RuleList, "", func(x Explanation) bool { return x.Chain != nil }},
		{"by the address that it leads to", to("site.example", good), true, func(c *Config) { c.Tunnel = []string{"127.0.0.0/8"} }, Tunnel, RuleList, "", nil},
		{"expired", to("late.example", late), true, nil, Inspect, RuleNone, FaultExpired, func(x Explanation) bool { return len(x.Chain) == 1 && len(x.Excused) == 0 }},
		{"excused", to("excused.example", late), true, nil, Inspect, RuleNone, "", func(x Explanation) bool { return len(x.Excused) == 1 && x.Excused[0].Kind == FaultExpired }},
		{"wrong name", to("other.example", good), true, nil, Inspect, RuleNone, FaultName, nil},
		{"nobody there", to("site.example", nobody), true, nil, Inspect, RuleNone, FaultUnreachable, nil},
		{"client certificate", to("eid.example", asks), true, nil, Tunnel, RuleClientCertificate, "", func(x Explanation) bool { return x.ClientCertificate }},
		{"client certificate, refused", to("eid.example", asks), true, func(c *Config) { c.ClientCertificates = certsRefuse }, Inspect, RuleNone, FaultNotAllowed, nil},
		{"no name", Target{Host: "a b", Port: 443}, true, nil, Refuse, RuleTarget, "", func(x Explanation) bool { return !x.Dialled }},
		{"an address alone", Target{Addr: good}, true, nil, Inspect, RuleNone, FaultName, func(x Explanation) bool { return x.Name == "127.0.0.1" }},
	} {
		t.Run(tc.what, func(t *testing.T) {
			edit := func(c *Config) { settings(c) }
			if tc.edit != nil {
				edit = func(c *Config) { settings(c); tc.edit(c) }
			}
			i := gatewayOf(t, root, edit)
			x := i.Explain(t.Context(), tc.target, tc.dial)
			kind := FaultKind("")
			if x.Fault != nil {
				kind = x.Fault.Kind
			}
			if x.Decision.Mode != tc.mode || x.Decision.Rule != tc.rule || strings.TrimSpace(x.Decision.Reason) == "" || kind != tc.fault {
				t.Errorf("%v by %s (%s), fault %v", x.Decision.Mode, x.Decision.Rule, x.Decision.Reason, x.Fault)
			}
			if tc.check != nil && !tc.check(x) {
				t.Errorf("%+v", x)
			}
			// It was a dry run.
			st := i.Stats()
			for _, d := range st.Decisions {
				if d.Count != 0 {
					t.Errorf("%v by %s was counted", d.Mode, d.Rule)
				}
			}
			if st.Minted+st.Exceptions != 0 || st.Learned != 0 || st.Sessions != 0 {
				t.Errorf("it left its marks: %+v", st)
			}
		})
	}
}
