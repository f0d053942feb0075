package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"lazaret/internal/filetype"
	"lazaret/internal/scan"
	"lazaret/internal/units"
)

var (
	exe  = filetype.Info{Name: "pe", Groups: []string{filetype.Executable}}
	arch = filetype.Info{Name: "zip", Groups: []string{filetype.Archive}}
)

func client(s string) Facts {
	return Facts{
		Protocol: "https", Direction: Download, Client: netip.MustParseAddr(s), User: "ann", Host: "www.example.org",
		Type: "application/zip",
	}
}

func TestEachConditionCounts(t *testing.T) {
	f := client("10.1.2.3")
	c := Content{Size: 5000, Type: "application/x-msdownload", Files: []filetype.Info{arch, exe}}
	nets := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	for name, k := range map[string]struct{ yes, no Rule }{
		"host":         {Rule{Hosts: []string{"WWW.example.org."}}, Rule{Hosts: []string{"example.org"}}},
		"domain":       {Rule{Hosts: []string{"x", ".example.org"}}, Rule{Hosts: []string{".ample.org", ".www.example.or"}}},
		"client":       {Rule{Clients: nets("10.0.0.0/8")}, Rule{Clients: nets("11.0.0.0/8")}},
		"user":         {Rule{Users: []string{"ann"}}, Rule{Users: []string{"bob"}}},
		"protocol":     {Rule{Protocols: []string{"http", "https"}}, Rule{Protocols: []string{"pop3"}}},
		"direction":    {Rule{Direction: Download}, Rule{Direction: Upload}},
		"declared":     {Rule{DeclaredTypes: []string{"application/*"}}, Rule{DeclaredTypes: []string{"image/*", "zip/*"}}},
		"content":      {Rule{ContentTypes: []string{"Application/X-MSDownload"}}, Rule{ContentTypes: []string{"application/zip"}}},
		"file type":    {Rule{FileTypes: []string{"pe"}}, Rule{FileTypes: []string{"elf", "script"}}},
		"file group":   {Rule{FileTypes: []string{"script", "executable"}}, Rule{FileTypes: []string{"disk-image"}}},
		"outcome":      {Rule{Outcome: []string{"clean"}}, Rule{Outcome: []string{"encrypted"}}},
		"larger than":  {Rule{LargerThan: 4999}, Rule{LargerThan: 5000}},
		"smaller than": {Rule{SmallerThan: 5001}, Rule{SmallerThan: 5000}},
	} {
		for want, r := range map[bool]Rule{true: k.yes, false: k.no} {
			r.Name, r.Quarantine = "r", true
			conf := Default()
			conf.Rules = []Rule{r}
			d := conf.Judge(f, c, scan.CleanVerdict())
			if got := d == (Decision{Action: Block, Quarantine: true, Rule: "policy.rule.r"}); got != want {
				t.Errorf("%s: %+v gave %+v, want %v", name, r, d, want)
			}
		}
	}
}

func TestFirstRuleThatMatchesDecides(t *testing.T) {
	c := Default()
	c.Rules = []Rule{
		{Name: "ours", Hosts: []string{".example.org"}, FileTypes: []string{"executable"}, Outcome: []string{"clean", "too_deep"}, Action: Pass},
		{Name: "later", FileTypes: []string{"executable"}, Action: Defer},
		{Name: "last", FileTypes: []string{"pe"}},
	}
	with := Content{Files: []filetype.Info{exe}}
	for _, k := range []struct {
		host string
		v    scan.Verdict
		c    Content
		want Decision
	}{
		{"a.example.org", scan.CleanVerdict(), with, Decision{Action: Pass, Rule: "policy.rule.ours"}},
		{"a.example.org", scan.IncompleteVerdict(scan.TooDeep, ""), with, Decision{Action: Pass, Rule: "policy.rule.ours"}},
		{"a.example.org", scan.IncompleteVerdict(scan.Bomb, ""), with, Decision{Action: Defer, Rule: "policy.rule.later"}},
		{"other.example", scan.CleanVerdict(), with, Decision{Action: Defer, Rule: "policy.rule.later"}},
		{"other.example", scan.CleanVerdict(), Content{}, Decision{Action: Pass, Rule: "clean"}},
		{"other.example", scan.InfectedVerdict("e", "s", ""), Content{}, Decision{Action: Block, Rule: "policy.infected"}},
	} {
		if d := c.Judge(Facts{Host: k.host}, k.c, k.v); d != k.want {
			t.Errorf("%s, %v: %+v, want %+v", k.host, k.v, d, k.want)
		}
	}
}

// TestArchiveAroundAnAllowedFileIsNotAllowed: a rule that passes looks at the object itself.
func TestArchiveAroundAnAllowedFileIsNotAllowed(t *testing.T) {
	c := Default()
	c.Rules = []Rule{
		{Name: "programs", FileTypes: []string{"executable"}, Outcome: []string{"clean"}, Action: Pass},
		{Name: "rest", FileTypes: []string{"executable", "archive"}},
	}
	if d := c.Judge(Facts{}, Content{Files: []filetype.Info{arch, exe}}, scan.CleanVerdict()); d.Action != Block {
		t.Errorf("%+v", d)
	}
	if d := c.Judge(Facts{}, Content{Files: []filetype.Info{exe, arch}}, scan.CleanVerdict()); d.Action != Pass {
		t.Errorf("%+v", d)
	}
}

// TestNoRulePassesWhatNobodyKnows, nor the infected without being told to.
func TestNoRulePassesWhatNobodyKnows(t *testing.T) {
	c := Default()
	c.Rules = []Rule{{Name: "all", Outcome: append([]string{"clean"}, outcomes...), Action: Pass}}
	for _, v := range []scan.Verdict{{}, {Outcome: scan.Incomplete, Reason: "new"}, {Outcome: 99}, scan.InfectedVerdict("e", "s", "")} {
		if d := c.Judge(Facts{}, Content{}, v); d.Action != Block {
			t.Errorf("%+v: %+v", v, d)
		}
	}
	c.Rules[0].AllowInfected = true
	if d := c.Judge(Facts{}, Content{}, scan.InfectedVerdict("e", "s", "")); d.Action != Pass || d.Rule != "policy.rule.all" {
		t.Errorf("%+v", d)
	}
}

func TestClientsOfBothFamilies(t *testing.T) {
	r := Rule{Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	for addr, want := range map[string]bool{"10.1.1.1": true, "::ffff:10.1.1.1": true, "fd00::1": true, "fe80::1": false, "192.0.2.1": false} {
		if got := r.concerns(Facts{Client: netip.MustParseAddr(addr)}); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if r.concerns(Facts{}) {
		t.Error("an unknown client is in a network")
	}
}

func TestRulesThatCannotBeUsed(t *testing.T) {
	for want, r := range map[string]Rule{
		`rule[1].name: "" is no name`:                    {Hosts: []string{"a"}},
		`rule[1].name: "a b" is no name`:                 {Name: "a b", Hosts: []string{"a"}},
		`rule[1].name: the rule has no condition`:        {Name: "r"},
		`rule[1].hosts: "*.example.org"`:                 {Name: "r", Hosts: []string{"*.example.org"}},
		`rule[1].hosts: "http://x/"`:                     {Name: "r", Hosts: []string{"http://x/"}},
		`rule[1].clients: entry 1`:                       {Name: "r", Clients: []netip.Prefix{{}}},
		`rule[1].direction: "both"`:                      {Name: "r", Direction: "both"},
		`rule[1].declared_types: "pdf"`:                  {Name: "r", DeclaredTypes: []string{"pdf"}},
		`rule[1].content_types: "a/b; c=d"`:              {Name: "r", ContentTypes: []string{"a/b; c=d"}},
		`rule[1].file_types: "exe" is no file type`:      {Name: "r", FileTypes: []string{"exe"}},
		`rule[1].outcome: "virus"`:                       {Name: "r", Outcome: []string{"virus"}},
		`rule[1].smaller_than: nothing is larger`:        {Name: "r", LargerThan: units.KiB, SmallerThan: units.KiB},
		`rule[1].outcome: a rule that passes`:            {Name: "r", Action: Pass, Hosts: []string{"a"}},
		`rule[1].action: the rule would let through`:     {Name: "r", Action: Pass, Outcome: []string{"infected"}},
		`rule[1].allow_infected: is of no use`:           {Name: "r", AllowInfected: true, Hosts: []string{"a"}},
		`rule[1].action: replace is no action of a rule`: {Name: "r", Action: Replace, Hosts: []string{"a"}},
	} {
		c := Default()
		c.Rules = []Rule{r}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", r, err, want)
		}
	}
	c := Default()
	c.Rules = []Rule{{Name: "r", Hosts: []string{"a"}}, {Name: "r", Hosts: []string{"[::1]", "::1", ".b"}}}
	if err := c.Validate(); err == nil || err.Error() != `rule[2].name: "r" is the name of rule 1, too: records could not tell them apart` {
		t.Error(err)
	}
}

func TestWarningsOfRulesThatAreNeverReached(t *testing.T) {
	nets := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	for name, k := range map[string]struct {
		a, b    Rule
		shadows bool
	}{
		"same":                {Rule{Hosts: []string{"a"}}, Rule{Hosts: []string{"a"}}, true},
		"domain":              {Rule{Hosts: []string{".a.org"}}, Rule{Hosts: []string{"x.a.org", ".y.a.org", "a.org"}}, true},
		"host before domain":  {Rule{Hosts: []string{"a.org"}}, Rule{Hosts: []string{".a.org"}}, false},
		"any host":            {Rule{Direction: Upload}, Rule{Direction: Upload, Hosts: []string{"a"}}, true},
		"other direction":     {Rule{Direction: Upload}, Rule{Direction: Download}, false},
		"network":             {Rule{Clients: nets("10.0.0.0/8")}, Rule{Clients: nets("10.1.0.0/16")}, true},
		"larger network":      {Rule{Clients: nets("10.0.0.0/8")}, Rule{Clients: nets("0.0.0.0/0")}, false},
		"type":                {Rule{DeclaredTypes: []string{"image/*"}}, Rule{DeclaredTypes: []string{"image/png"}}, true},
		"size":                {Rule{LargerThan: 10}, Rule{LargerThan: 20, SmallerThan: 30}, true},
		"open size":           {Rule{SmallerThan: 10}, Rule{LargerThan: 5}, false},
		"block covers a pass": {Rule{Hosts: []string{"a"}}, Rule{Hosts: []string{"a"}, Outcome: []string{"clean"}, Action: Pass}, true},
		"pass of clean only":  {Rule{Hosts: []string{"a"}, Outcome: []string{"clean"}, Action: Pass}, Rule{Hosts: []string{"a"}}, false},
		"pass looks at less":  {Rule{FileTypes: []string{"pe"}, Outcome: []string{"clean"}, Action: Pass}, Rule{FileTypes: []string{"pe"}, Outcome: []string{"clean"}}, false},
	} {
		c := Default()
		k.a.Name, k.b.Name = "a", "b"
		c.Rules = []Rule{k.a, k.b}
		if err := c.Warnings(); (err != nil) != k.shadows || err != nil && !strings.HasPrefix(err.Error(), `rule[2].name: "b" is never reached: rule 1, "a"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCandidates(t *testing.T) {
	c := Default()
	c.Rules = []Rule{
		{Name: "one", Hosts: []string{".example.org"}, FileTypes: []string{"pe", "elf"}, LargerThan: units.KiB},
		{Name: "two", Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Direction: Upload, Action: Defer},
		{Name: "three", Hosts: []string{"elsewhere"}, Outcome: []string{"clean"}, Action: Pass},
	}
	got := c.Candidates(Facts{Host: "www.example.org"})
	want := []Candidate{
		{"policy.rule.one", 1, Block, "file type pe or elf, larger than 1 KiB"},
		{"policy.rule.two", 2, Defer, "client in 10.0.0.0/8, upload"},
		{"policy.infected", 0, Block, "outcome infected"},
	}
	if len(got) != 2+len(outcomes) || !slices.Equal(got[:3], want) {
		t.Errorf("%+v", got)
	}
	for _, k := range got[2:] {
		if k.Rule == "policy.scanner_down" && k.Action != Defer || k.Rule == "policy.streamed" && k.Action != Pass {
			t.Errorf("%+v", k)
		}
	}
	if got := c.Candidates(Facts{Host: "elsewhere", Client: netip.MustParseAddr("192.0.2.1")}); got[0].Rule != "policy.rule.three" || got[0].When != "outcome clean" {
		t.Errorf("%+v", got[0])
	}
}
