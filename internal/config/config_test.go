package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/units"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestDefaultsAreValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

func TestSampleIsTheDefault(t *testing.T) {
	sample := string(Sample())
	got, err := Parse("sample", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	same := cmpopts.EquateComparable()
	if d := cmp.Diff(Default(), got, same, cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
		t.Error(d)
	}
	// With every key that is no table set to its default, it is the default as well.
	var on []string
	scanners, example := false, false
	for line := range strings.Lines(sample) {
		scanners = scanners || strings.HasPrefix(line, "# Engines.")
		example = strings.HasPrefix(line, "# [[") || (example && line != "\n") // tables of which there are none by default
		key, _, isKey := strings.Cut(strings.TrimPrefix(line, "# "), " = ")
		if isKey && !scanners && !example && strings.HasPrefix(line, "# ") && !strings.ContainsAny(key, " \",:") && key != "state_dir" {
			line = strings.TrimPrefix(line, "# ")
		}
		on = append(on, line)
	}
	if len(on) < 100 {
		t.Fatalf("the sample has only %d lines", len(on))
	}
	got, err = Parse("sample", []byte(strings.Join(on, "")))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Default(), got, same, cmpopts.EquateEmpty(), cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
		t.Error(d)
	}
}

func TestTheFixedNames(t *testing.T) {
	c, err := Parse("x.toml", []byte(`
state_dir = "/tmp/state"
[web]
listen = ["127.0.0.1:3128", "[::1]:3128"]
transparent = []
allow_clients = ["127.0.0.0/8", "::1/128", "10.0.0.0/8"]
allow_private_destinations = true
connect_ports = [443, "8000-8999"]
[web.tls]
extra_roots = []
tunnel = [".bank.example", "192.0.2.0/24"]
[[web.tls.exception]]
host = "old.example"
faults = ["expired"]
expires = 2030-01-02T00:00:00Z
[pop3]
listen = ["127.0.0.1:8110"]
upstream = ""
[redirect]
interfaces = []
exclude = []
[quarantine]
enabled = true
[admin]
listen = "127.0.0.1:8128"
[policy]
encrypted = "pass"
[spool]
memory = "128 KiB"
[gate]
timeout = "90s"
[[scanner]]
type = "clamd"
address = "unix:/run/clamav/clamd.ctl"
required = true
[[scanner]]
type = "clamd"
address = ["tcp:192.0.2.1:3310", "tcp:192.0.2.2:3310"]
required = false
timeout = "30s"
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.StateDir != "/tmp/state" || len(c.Web.Listen) != 2 || !c.Web.AllowPrivateDestinations || len(c.Web.AllowClients) != 3 {
		t.Errorf("%+v", c.Web)
	}
	if !c.Web.ConnectPorts.Contain(443) || !c.Web.ConnectPorts.Contain(8500) || c.Web.ConnectPorts.Contain(9000) {
		t.Errorf("ports %v", c.Web.ConnectPorts)
	}
	if len(c.Web.TLS.Tunnel) != 2 || len(c.Web.TLS.Exceptions) != 1 || c.Web.TLS.Exceptions[0].Expires.Year() != 2030 {
		t.Errorf("%+v", c.Web.TLS)
	}
	if c.Policy.Encrypted != policy.Pass || c.Policy.Infected != policy.Block || c.Spool.Memory != 128*units.KiB || c.Gate.Timeout.Std() != 90*time.Second {
		t.Errorf("%+v %+v %+v", c.Policy, c.Spool, c.Gate)
	}
	if len(c.Scanners) != 2 || !c.Scanners[0].Required || c.Scanners[1].Required {
		t.Fatalf("%+v", c.Scanners)
	}
	first, second := c.Scanners[0].Settings.(clamd.Config), c.Scanners[1].Settings.(clamd.Config)
	if len(first.Addresses) != 1 || len(second.Addresses) != 2 || second.Timeout.Std() != 30*time.Second {
		t.Errorf("%+v %+v", first, second)
	}
	if !c.Quarantine.Enabled || c.Quarantine.MaxSize == 0 {
		t.Errorf("%+v", c.Quarantine)
	}
}

// TestErrors has one file a row; want lists the beginning of each error, in order.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       []string
	}{
		{"unknown key", "[web]\nlisen = [\"127.0.0.1:1\"]\n", []string{`f:2:1: web.lisen: there is no such key; did you mean "listen"?`}},
		{"unknown table", "[wbe]\nlisten = []\n", []string{`f:1:2: wbe: there is no such key; did you mean "web"?`}},
		{"key of another table", "[web]\nextra_roots = []\n", []string{`f:2:1: web.extra_roots: there is no such key; it belongs into [web.tls]`}},
		{"key of the top", "[web]\nstate_dir = \"x\"\n", []string{`f:2:1: web.state_dir: there is no such key; it belongs before the first [table]`}},
		{"string for a list", "[web]\nlisten = \"127.0.0.1:3128\"\n", []string{`f:2:1: web.listen: is a string, and must be an array: write ["127.0.0.1:3128"]`}},
		{"number for a string", "state_dir = 5\n", []string{`f:1:1: state_dir: is an integer, and must be a string`}},
		{"string for a boolean", "[gate]\ncache = \"yes\"\n", []string{`f:2:1: gate.cache: is a string, and must be true or false`}},
		{"float for a number", "[gate]\nconcurrent = 1.5\n", []string{`f:2:1: gate.concurrent: is a number, and must be an integer`}},
		{"bad size", "[spool]\nmemory = \"lots\"\n", []string{`f:2:1: spool.memory: "lots" is not a size`}},
		{"bad duration", "[gate]\ntimeout = \"soon\"\n", []string{`f:2:1: gate.timeout: "soon" is not a duration`}},
		{"bad network", "[web]\nallow_clients = [\"127.0.0.0/8\", \"10.0.0.0/99\"]\n", []string{`f:2:1: web.allow_clients[2]: "10.0.0.0/99" is not a network: write one such as "192.0.2.0/24"`}},
		{"several in one list", "[web.tls]\nmin_version = \"1.2\"\ntunnel = [\"http://x/\", \"a b\"]\n", []string{
			`f:3:1: web.tls.tunnel: "http://x/" is not a host`, `f:3:1: web.tls.tunnel: "a b" is not a host`,
		}},
		{"bad action", "[policy]\nbomb = \"allow\"\n", []string{`f:2:1: policy.bomb: "allow" is not an action`}},
		{"value that cannot be used", "[policy]\n\n  infected = \"pass\"\n", []string{`f:3:3: policy.infected: "pass" would make the gateway pointless`}},
		{"two values together", "[spool]\nmax_object = \"64 GiB\"\n", []string{`f:1:2: spool.total_disk: `}},
		{"port out of range", "[web]\nconnect_ports = [443, 70000]\n", []string{`f:2:1: web.connect_ports[2]: "70000" is not a port`}},
		{"duplicate key", "[gate]\ncache = true\ncache = false\n", []string{`f:3:1: cache is there already, at line 2`}},
		{"duplicate table", "[gate]\n[gate]\n", []string{`f:2:2: [gate] is there already, at line 1`}},
		{"scanner without a type", "[[scanner]]\naddress = \"unix:/x\"\n", []string{`f:1:3: scanner[1].type: is missing`}},
		{"scanner of an unknown type", "[[scanner]]\ntype = \"norton\"\n", []string{`f:2:1: scanner[1].type: there is no scanner of type "norton"`}},
		{"scanner's unknown key", "[[scanner]]\ntype = \"clamd\"\naddresss = \"unix:/x\"\n", []string{
			`f:1:3: scanner[1].address: is missing`, `f:3:1: scanner[1].addresss: a scanner of type "clamd" has no such key; did you mean "address"?`,
		}},
		{"scanner's bad address", "[[scanner]]\ntype = \"clamd\"\naddress = \"/run/clamd\"\n", []string{`f:3:1: scanner[1].address: "/run/clamd" begins neither`}},
		{"table for a value", "[gate.cache]\n", []string{`f:1:7: gate.cache: is a table, and must be true or false`}},
		{"value for a table", "gate = 1\n", []string{`f:1:1: gate: is an integer, and must be a table`}},
		{"no TOML", "[web]\nlisten = [\n", []string{"f:"}},
		{"all in one run", "state_dir = 1\n[web]\nfoo_bar_baz = 1\nmax_header = \"x\"\n[policy]\nbomb = \"allow\"\ntoo_dep = \"pass\"\n", []string{
			"f:1:1: state_dir", "f:3:1: web.foo_bar_baz: there is no such key; see", "f:4:1: web.max_header", "f:6:1: policy.bomb",
			`f:7:1: policy.too_dep: there is no such key; did you mean "too_deep"?`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("f", []byte(c.file))
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("got %v, want Errors", err)
			}
			if len(errs) != len(c.want) {
				t.Errorf("%d errors, want %d", len(errs), len(c.want))
			}
			for i, e := range errs {
				if i < len(c.want) && !strings.HasPrefix(e.Error(), c.want[i]) {
					t.Errorf("got  %s\nwant %s…", e, c.want[i])
				}
			}
		})
	}
}

func TestSecretsAreNotRepeated(t *testing.T) {
	for _, file := range []string{
		"[egress]\nparent = \"http://u:wonderland@host:99999999\"\n", "[egress]\nparent = \"ftp://u:wonderland@host\"\n", "[egress]\nparent = [\"wonderland\"]\n",
	} {
		_, err := Parse("f", []byte(file))
		if err == nil || strings.Contains(err.Error(), "wonderland") {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "missing.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	large := filepath.Join(t.TempDir(), "large.toml")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(large); err == nil {
		t.Error("a file of any size is read")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(Sample()))
	f.Add("[web]\nlisten = [\"a\", 1, {b = 2}]\n[[scanner]]\ntype = \"clamd\"\n")
	f.Add("a.b.c = 1\na.b = 2\n[a.b]\n[[a]]\n")
	f.Add("[web]\nconnect_ports = [0x1bb, 4_43, \"1-2\"]\n")
	f.Fuzz(func(t *testing.T, file string) {
		c, err := Parse("f", []byte(file))
		if err == nil && c.Validate() != nil {
			t.Errorf("accepted, and not valid: %v", c.Validate())
		}
		var errs Errors
		if errors.As(err, &errs) && len(errs) > 3*maxErrors {
			t.Error(fmt.Sprint(len(errs), " errors"))
		}
	})
}

func TestFaultsOfRulesHavePlaces(t *testing.T) {
	_, err := Parse("f", []byte("[policy]\n[[policy.rule]]\nname = \"a\"\nhosts = [\"*.example.org\"]\n[[policy.rule]]\noutcome = [\"infected\"]\naction = \"pass\"\n"))
	for _, want := range []string{
		`f:4:1: policy.rule[1].hosts: "*.example.org" is no host`,
		`policy.rule[2].name: "" is no name for a rule`,
		`f:7:1: policy.rule[2].action: the rule would let through what an engine found infected`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}

func TestRulesThatAreNeverReachedAreWarnedOf(t *testing.T) {
	c, err := Parse("f", []byte("[[policy.rule]]\nname = \"wide\"\nhosts = [\".example.org\"]\n\n[[policy.rule]]\nname = \"narrow\"\nhosts = [\"www.example.org\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || !strings.HasPrefix(c.Warnings[0].Error(), `f:6:1: policy.rule[2].name: "narrow" is never reached: rule 1, "wide"`) {
		t.Errorf("%v", c.Warnings)
	}
}
