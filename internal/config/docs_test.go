package config

import (
	"os"
	"slices"
	"strings"
	"testing"

	"lazaret/internal/filetype"
)

// blocks returns the TOML blocks of a document.
func blocks(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, part := range strings.Split(string(b), "```toml\n")[1:] {
		block, _, ok := strings.Cut(part, "```\n")
		if !ok {
			t.Fatalf("%s: a block without an end: %.60q", file, part)
		}
		out = append(out, block)
	}
	return out
}

func TestExamplesOfThePolicyDocument(t *testing.T) {
	const file = "../../docs/operators/policy.md"
	all := blocks(t, file)
	rules := 0
	for i, b := range all {
		c, err := Parse("block", []byte(b))
		if err != nil {
			t.Errorf("block %d: %v", i+1, err)
			continue
		}
		if len(c.Warnings) > 0 {
			t.Errorf("block %d: %v", i+1, c.Warnings)
		}
		rules += len(c.Policy.Rules)
	}
	if len(all) < 5 || rules < 7 {
		t.Fatalf("only %d blocks with %d rules", len(all), rules)
	}
}

// TestPolicyDocumentHasEveryWord: every outcome with its default, every condition, every kind of file.
func TestPolicyDocumentHasEveryWord(t *testing.T) {
	b, err := os.ReadFile("../../docs/operators/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	names := filetype.Names()
	if len(names) < 40 {
		t.Fatal("no kinds of files")
	}
	for _, n := range slices.DeleteFunc(names, func(n string) bool { return n == "ooxml" }) { // a container of other things
		if !strings.Contains(text, "`"+n+"`") {
			t.Errorf("file type %s is not explained", n)
		}
	}
	sample := string(Sample())
	_, policy, _ := strings.Cut(sample, "\n[policy]\n")
	policy, rule, ok := strings.Cut(policy, "# [[policy.rule]]\n")
	rule, _, _ = strings.Cut(rule, "\n\n")
	if !ok {
		t.Fatal("the sample has no rules")
	}
	keys := 0
	for line := range strings.Lines(policy) {
		if key, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# "), " = "); ok && !strings.Contains(key, " ") && key != "quarantine" {
			keys++
			i := strings.Index(text, "| `"+key+"` |")
			if i < 0 {
				t.Errorf("outcome %s is not explained", key)
				continue
			}
			row, _, _ := strings.Cut(text[i:], "\n")
			if !strings.HasSuffix(row, "`"+strings.Trim(value, `"`)+"` |") {
				t.Errorf("%s: the default is %s: %s", key, value, row)
			}
		}
	}
	for line := range strings.Lines(rule) {
		if key, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# "), " = "); ok && !strings.Contains(key, " ") {
			keys++
			if !strings.Contains(text, "`"+key+"`") && !strings.Contains(text, key+" = ") {
				t.Errorf("condition %s is not explained", key)
			}
		}
	}
	if keys < 20 {
		t.Fatalf("only %d keys were looked for", keys)
	}
}
