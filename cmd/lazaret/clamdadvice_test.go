package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClamdSettingsAdvice(t *testing.T) {
	for name, c := range map[string]struct {
		conf string
		want []string
	}{
		"well set": {"DisableCache yes\nMaxThreads 12\nScanMail true\n# ScanPDF no\n", nil},
		"Debian's": {"ScanMail true\nConcurrentDatabaseReload yes\n", []string{"DisableCache"}},
		"dangerous": {
			"DisableCache no\nConcurrentDatabaseReload no\nScanArchive false\nMaxThreads 1\nLocalSocket \"/a b\"\n",
			[]string{"ConcurrentDatabaseReload", "DisableCache", "scanarchive", "MaxThreads"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "clamd.conf")
			if err := os.WriteFile(path, []byte(c.conf), 0o600); err != nil {
				t.Fatal(err)
			}
			settings, err := readClamdConf(path)
			if err != nil {
				t.Fatal(err)
			}
			got := clamdSettingsAdvice(settings)
			if len(got) != len(c.want) {
				t.Fatalf("%v, want %v", got, c.want)
			}
			for i, a := range got {
				if !strings.Contains(a.seen, c.want[i]) || a.do == "" {
					t.Errorf("%v, want %s", a, c.want[i])
				}
			}
		})
	}
}
