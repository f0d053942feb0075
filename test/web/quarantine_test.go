package web

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"testing"

	"lazaret/internal/quarantine"
	"lazaret/internal/scan"
	"lazaret/test/harness"
)

// TestDownloadsAreKeptByPolicy: a rule has a download kept, and the page names the reference; without one nothing is kept.
func TestDownloadsAreKeptByPolicy(t *testing.T) {
	o := harness.NewOrigin(t, site(t))
	for policy, kept := range map[string]bool{"quarantine = [\"infected\"]\n": true, "": false} {
		g := harness.Start(t, harness.Settings{"policy": policy}, o.CA.File)
		page := curl(t, g, "-H", "Accept: text/html", o.URL+"/eicar.com")
		if page.status != "403" {
			t.Fatalf("%s", page.status)
		}
		out, err := exec.Command(harness.Binary(t), "quarantine", "list", "--json", "-c", g.Config).Output()
		if err != nil {
			t.Fatal(err)
		}
		if !kept {
			if len(out) != 0 {
				t.Errorf("kept without a rule: %s", out)
			}
			continue
		}
		var e quarantine.Entry
		if err := json.Unmarshal(out, &e); err != nil || e.Protocol != "https" || e.URL != o.URL+"/eicar.com" || e.Size != int64(len(scan.EICAR())) {
			t.Fatalf("%s %v", out, err)
		}
		if !bytes.Contains(page.body, []byte("Quarantine")) || !bytes.Contains(page.body, []byte(e.ID)) {
			t.Errorf("the page does not name %s:\n%s", e.ID, page.body)
		}
		raw, err := exec.Command(harness.Binary(t), "quarantine", "export", e.ID, "--raw", "-o", "-", "-c", g.Config).Output()
		if err != nil || !bytes.Equal(raw, scan.EICAR()) {
			t.Errorf("%q %v", raw, err)
		}
	}
}
