package p3scan

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestMigrationDocumentHasEveryKey: of both vocabularies.
func TestMigrationDocumentHasEveryKey(t *testing.T) {
	b, err := os.ReadFile("../../docs/operators/migrate-p3scan.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range slices.Concat(shared, only2, only3) {
		if !strings.Contains(string(b), "`"+key+"`") {
			t.Errorf("%s is not explained", key)
		}
	}
}

// TestEveryKeyIsConverted: of none it is said that nothing is known of it.
func TestEveryKeyIsConverted(t *testing.T) {
	for _, key := range slices.Concat(shared, only2, only3) {
		for _, value := range []string{"", "1", "x"} {
			_, report := Convert([]Setting{{1, key, value}}, Options{})
			if len(report) != 1 || strings.Contains(report[0].Note, "nothing is known") {
				t.Errorf("%s %q: %+v", key, value, report)
			}
		}
	}
}
