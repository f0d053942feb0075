package pop3

import (
	"math/rand/v2"
	"strings"
	"testing"

	"lazaret/internal/gate"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
)

// TestCorpusInFiles has every construct judged as the content of a file, by its name, or by what it looks like alone: in a file of
// another name, and in a mailbox.
func TestCorpusInFiles(t *testing.T) {
	r := newRig(t, scantest.FindsEICAR(), knobs{})
	judge := func(name, content string) scan.Verdict {
		o, err := r.s.opt.Gate.Take(strings.NewReader(content), gate.Intake{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Body.Close()
		_, n := r.s.opt.Gate.Judge(t.Context(), policy.Facts{Protocol: "file", Direction: policy.Download}, o)
		return n.Verdict
	}
	c, clean := constructs(t), cleanMails(t)
	if len(c) < 150 || len(clean) < 100 {
		t.Fatalf("the corpus has %d constructs and %d clean mails", len(c), len(clean))
	}
	for _, name := range sorted(c) {
		for file, content := range map[string]string{
			"a.eml": c[name], "A.EML": crlf(c[name]), "a.txt": c[name], "Inbox": "From - Mon Jun  1 10:00:00 2026\n" + c[name],
		} {
			if strings.HasPrefix(name, "quantity, ") && strings.Contains(name, "header") && !strings.EqualFold(file, "a.eml") {
				continue // what it is would show farther down than anybody looks
			}
			if v := judge(file, content); v.Outcome != scan.Infected {
				t.Errorf("missed in %s: %s: %v", file, name, v)
			}
		}
	}
	for _, name := range sorted(clean) {
		for file, content := range map[string]string{"a.eml": clean[name], "a.txt": lf(clean[name])} {
			if v := judge(file, content); v.Outcome != scan.Clean {
				t.Errorf("wrongly in %s: %s: %v", file, name, v)
			}
		}
	}
	for name, content := range filesNoMails() {
		if v := judge("a.eml", content); v.Outcome != scan.Clean {
			t.Errorf("wrongly in a.eml: %s: %v", name, v)
		}
	}
}

// filesNoMails returns clean files that are no mails.
func filesNoMails() map[string]string {
	random := make([]byte, 1<<20)
	for i := range random {
		random[i] = byte(rand.Uint32()) //nolint:gosec // any bytes will do
	}
	return map[string]string{
		"random bytes": string(random), "nothing": "", "text": hello, "HTML": "<html><body>\n<p>a--b</p>\n</body></html>\n",
		"a log": "2026-01-01 Subject: x\n", "JSON": `{"From": "a", "To": "b"}`,
	}
}
