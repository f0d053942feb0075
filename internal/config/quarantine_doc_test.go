package config

import (
	"os"
	"strings"
	"testing"
)

// TestQuarantineDocument: its examples can be used, and no key is left unexplained.
func TestQuarantineDocument(t *testing.T) {
	const file = "../../docs/operators/quarantine.md"
	all := blocks(t, file)
	for i, b := range all {
		if _, err := Parse("block", []byte(b)); err != nil {
			t.Errorf("block %d: %v", i+1, err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, keys, _ := strings.Cut(string(Sample()), "\n[quarantine]\n")
	keys, _, _ = strings.Cut(keys, "\n[")
	n := 0
	for line := range strings.Lines(keys) {
		key, _, ok := strings.Cut(strings.TrimPrefix(line, "# "), " = ")
		if !ok || strings.Contains(key, " ") {
			continue
		}
		n++
		// How many at a time, and for how long, need no chapter.
		if key != "concurrent" && key != "timeout" && !strings.Contains(string(b), key) {
			t.Errorf("%s is not explained", key)
		}
	}
	if len(all) < 2 || n < 9 {
		t.Fatalf("only %d blocks and %d keys", len(all), n)
	}
}
