package main

import (
	"net/url"
	"strings"
	"testing"

	"lazaret/internal/daemon"
	"lazaret/internal/intercept"
)

// TestWhyOfARefusalIsTheFault: where an origin's fault refuses, no rule is named that would have let it be scanned.
func TestWhyOfARefusalIsTheFault(t *testing.T) {
	fault := &intercept.Fault{Kind: intercept.FaultExpired, Detail: "the certificate of site.example expired on a Monday"}
	for _, tc := range []struct {
		decision           intercept.Decision
		fault              *intercept.Fault
		outcome, rule, why string
	}{
		{intercept.Decision{Mode: intercept.Inspect, Rule: intercept.RuleNone}, nil, "scanned", "none", "nothing says otherwise"},
		{intercept.Decision{Mode: intercept.Inspect, Rule: intercept.RuleNone}, fault, "refused", "", "expired on a Monday"},
		{intercept.Decision{Mode: intercept.Inspect, Rule: intercept.RuleUnproven, Reason: "unproven"}, fault, "refused", "", "expired on a Monday"},
		{intercept.Decision{Mode: intercept.Tunnel, Rule: intercept.RuleList, Reason: "on the list"}, fault, "tunnelled", "tunnel-list", "on the list"},
		{intercept.Decision{Mode: intercept.Refuse, Rule: intercept.RuleNotPermitted, Reason: "not permitted"}, fault, "refused", "not-permitted", "not permitted"},
	} {
		e := tellable(&daemon.Explanation{URL: &url.URL{Scheme: "https", Host: "site.example"}, TLS: &intercept.Explanation{Decision: tc.decision, Fault: tc.fault}})
		if e.Outcome != tc.outcome || e.Rule != tc.rule || !strings.Contains(e.Why, tc.why) {
			t.Errorf("%v with fault %v: outcome %q, rule %q, why %q", tc.decision, tc.fault, e.Outcome, e.Rule, e.Why)
		}
		var out strings.Builder
		if err := e.write(&out); err != nil {
			t.Fatal(err)
		}
		if said := strings.Contains(out.String(), "expired: the certificate"); said != (tc.fault != nil) {
			t.Errorf("written:\n%s", &out)
		}
		if e.Outcome == "refused" && strings.Contains(out.String(), "nothing says otherwise") {
			t.Errorf("written:\n%s", &out)
		}
	}
}
