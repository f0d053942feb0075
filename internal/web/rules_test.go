package web

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
)

// TestRuleIsNamedOnItsPage: a harmless file that a rule does not want has a page of its own, which names the rule.
func TestRuleIsNamedOnItsPage(t *testing.T) {
	r := newRig(t, func(p *plan) {
		p.policy.Rules = []policy.Rule{
			{Name: "vendor", Hosts: []string{"localhost"}, Outcome: []string{"clean"}, Action: policy.Pass},
			{Name: "no-programs", FileTypes: []string{"executable"}},
		}
	})
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		_, _ = io.WriteString(w, "\x7fELF\x02\x01\x01")
	})
	resp, body := get(t, r.client(), o.URL+"/picture.png", "Accept", "application/json")
	wantPage(t, resp, body, 403, notice.NotAllowed)
	if !strings.Contains(body, `"policy.rule.no-programs"`) || !strings.Contains(body, `"clean"`) {
		t.Error(body)
	}
	r.audit.wait(t, "the rule", func(x audit.Record) bool {
		return x.Decision.Rule == "policy.rule.no-programs" && x.Facts.Host == "127.0.0.1"
	})
	resp, body = get(t, r.client(), strings.Replace(o.URL, "127.0.0.1", "localhost", 1)+"/picture.png")
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(body, "\x7fELF") {
		t.Errorf("%s %q", resp.Status, body)
	}
	resp, body = do(t, r.client(), "POST", o.URL+"/upload", strings.NewReader("\x7fELF\x02"))
	wantPage(t, resp, body, 403, notice.NotAllowed)
}
