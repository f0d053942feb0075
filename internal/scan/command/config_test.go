package command

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestConfigErrorsNameTheirKey(t *testing.T) {
	good := Default()
	good.Command = []string{"true"}
	if err := good.Validate(); err != nil {
		t.Fatalf("the default with a command: %v", err)
	}
	for _, c := range []struct {
		key    string
		change func(*Config)
	}{
		{"command: ", func(c *Config) { c.Command = nil }},
		{"command: ", func(c *Config) { c.Command = []string{""} }},
		{"command: ", func(c *Config) { c.Command = []string{"clamscan -i {file}"} }},
		{"clean_codes: ", func(c *Config) { c.CleanCodes = nil }},
		{"clean_codes: ", func(c *Config) { c.CleanCodes = []int{256} }},
		{"infected_codes: ", func(c *Config) { c.InfectedCodes = nil }},
		{"infected_codes: ", func(c *Config) { c.InfectedCodes = []int{-1} }},
		{"infected_codes: ", func(c *Config) { c.InfectedCodes = []int{0} }},
		{"name_pattern: ", func(c *Config) { c.NamePattern = "(" }},
		{"name_pattern: ", func(c *Config) { c.NamePattern = "(a)/2" }},
		{"incomplete_pattern: ", func(c *Config) { c.IncompletePattern = "[" }},
		{"timeout: ", func(c *Config) { c.Timeout = 0 }},
		{"max_size: ", func(c *Config) { c.MaxSize = -1 }},
		{"max_output: ", func(c *Config) { c.MaxOutput = 1 }},
		{"max_processes: ", func(c *Config) { c.MaxProcesses = -1 }},
		{"environment: ", func(c *Config) { c.Environment = []string{"NAME"} }},
		{"version_refresh: ", func(c *Config) { c.VersionCommand, c.VersionRefresh = []string{"true"}, 1 }},
		{"command: ", func(c *Config) { c.Command = []string{"/no/such/program"} }},
	} {
		cfg := good
		c.change(&cfg)
		s, err := New(cfg)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: New takes it", c.key)
			continue
		}
		if !strings.HasPrefix(err.Error(), c.key) {
			t.Errorf("%s: the error is %v", c.key, err)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct{ pattern, output, want string }{
		{".*: (.*) FOUND", "/tmp/x: Win.Test FOUND\n", "Win.Test"},
		{".*: (.*) FOUND", "/tmp/a: b: Win.Test FOUND\r\n", "Win.Test"},
		{"(.*): (.*) FOUND/2", "x: Y FOUND", "Y"},
		{"(.*): (.*) FOUND", "x: Y FOUND", "x"},
		{"virus", "a virus", "virus"},
		{"a/b", "a/b", "a/b"},
		{"(x)/1", "x", "x"},
	} {
		p, err := parsePattern(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		if got, ok := p.find([]byte(c.output)); !ok || got != c.want {
			t.Errorf("%q in %q: %q, %v, want %q", c.pattern, c.output, got, ok, c.want)
		}
	}
	if _, ok := (pattern{}).find([]byte("anything")); ok {
		t.Error("no pattern finds something")
	}
}

func FuzzName(f *testing.F) {
	f.Add(".*: (.*) FOUND", []byte("x: Y FOUND\n"))
	f.Add("(a)(b)/2", []byte("ab\x00\xff"))
	f.Add("/1", []byte(""))
	f.Add("x/9999", []byte("x/9999"))
	f.Fuzz(func(t *testing.T, expression string, output []byte) {
		if len(expression) > 200 {
			return
		}
		p, err := parsePattern(expression)
		if err != nil {
			return
		}
		name, ok := p.find(output)
		if ok && (len(name) > longestName || printable(name) != name || !utf8.ValidString(name)) {
			t.Errorf("%q gives the name %q", expression, name)
		}
		if !ok && name != "" {
			t.Errorf("%q finds nothing, and that is called %q", expression, name)
		}
	})
}
