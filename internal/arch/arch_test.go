// Package arch executes the import rules of docs/architecture.md.
package arch

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed says what each internal package may import of the module, besides units, which everybody may. A name that ends
// in "/*" covers the packages below it. The rules are a statement of policy: a change here is a change of the design, and
// goes into docs/architecture.md in the same commit.
var allowed = map[string][]string{
	"units":            {},
	"spool":            {},
	"listen":           {},
	"idle":             {},
	"relay":            {},
	"egress":           {},
	"sandbox":          {},
	"redirect":         {},
	"trust":            {},
	"intercept":        {"relay", "egress"},
	"media":            {},
	"envelope":         {},
	"eventstream":      {},
	"mixed":            {},
	"unpack":           {"spool"},
	"content":          {"spool", "unpack", "envelope"},
	"mail/message":     {"spool", "content"},
	"scan":             {"spool"},
	"scan/*":           {"scan", "spool", "scan/scantest"},
	"scan/clamd/*":     {"scan", "spool", "scan/clamd", "scan/scantest"},
	"filetype":         {},
	"policy":           {"scan", "filetype"},
	"notice":           {"policy", "scan"},
	"mail/header":      {},
	"mail/replacement": {"mail/header", "notice", "policy", "scan"},
	"mail/attachment":  {"mail/header", "mail/message", "content", "filetype", "spool"},
	"mail/submit":      {},
	"mail/report":      {"mail/header", "mail/submit"},
	"spam":             {"mail/header", "spool"},
	"audit":            {"policy", "scan"},
	"quarantine":       {"policy", "scan"},
	"p3scan":           {},
	"gate":             {"spool", "unpack", "content", "mail/message", "mail/attachment", "media", "eventstream", "scan", "filetype", "policy", "notice", "audit"},
	"web/http1":        {"idle"},
	"web/websocket":    {},
	"web":              {"idle", "web/http1", "web/websocket", "gate", "intercept", "relay", "egress", "listen", "spool", "unpack", "media", "envelope", "mixed", "filetype", "notice", "policy", "scan"},
	"mail/pop3":        {"idle", "mail/header", "gate", "intercept", "relay", "egress", "listen", "spool", "notice", "policy", "scan"},
	"admin":            {"audit", "notice", "policy", "scan"},
	"config":           {"*"},
	"daemon":           {"*"},
	"arch":             {},
}

// neverImported lists what even "*" leaves out: settings know the packages that have them, not those that wire them.
var neverImported = map[string][]string{
	"config": {"daemon"},
}

func rule(pkg string) ([]string, bool) {
	if r, ok := allowed[pkg]; ok {
		return r, true
	}
	best := ""
	for k := range allowed {
		if dir, ok := strings.CutSuffix(k, "*"); ok && strings.HasPrefix(pkg, dir) && len(k) > len(best) {
			best = k
		}
	}
	r, ok := allowed[best]
	return r, ok
}

func TestImportsFollowTheDesign(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}: {{join .Imports " "}}`, "lazaret/internal/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	checked := 0
	for line := range strings.Lines(string(out)) {
		path, imports, _ := strings.Cut(strings.TrimSpace(line), ":")
		pkg := strings.TrimPrefix(path, "lazaret/internal/")
		may, ok := rule(pkg)
		if !ok {
			t.Errorf("package %s has no rule: add one here and to docs/architecture.md", pkg)
			continue
		}
		for _, imp := range strings.Fields(imports) {
			dep, ours := strings.CutPrefix(imp, "lazaret/internal/")
			if !ours || dep == "units" {
				continue
			}
			checked++
			if slices.Contains(neverImported[pkg], dep) || (!slices.Contains(may, "*") && !slices.Contains(may, dep)) {
				t.Errorf("%s imports %s, which the design forbids (it may import %s)", pkg, dep, strings.Join(may, ", "))
			}
		}
	}
	if checked < 5 {
		t.Fatalf("only %d imports were looked at: the test sees nothing", checked)
	}
}
