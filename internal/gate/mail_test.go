package gate

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"
	"testing"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
)

const mailHead = "From: a@example.org\r\nTo: b@example.org\r\nMIME-Version: 1.0\r\n"

// onPart returns an engine that does f for every object but the whole message.
func onPart(f func() (scan.Verdict, error)) *scantest.Func {
	return &scantest.Func{Judge: func(_ context.Context, o *scan.Object) (scan.Verdict, error) {
		if b, ok := o.Body.Bytes(); ok && bytes.HasPrefix(b, []byte("From: ")) {
			return scan.CleanVerdict(), nil
		}
		return f()
	}}
}

func TestReadingsOfAMailCount(t *testing.T) {
	mail := mailHead + "Content-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("hello ", 20))) + "\r\n"
	for name, c := range map[string]struct {
		f    func() (scan.Verdict, error)
		want scan.Outcome
	}{
		"clean":      {func() (scan.Verdict, error) { return scan.CleanVerdict(), nil }, scan.Clean},
		"infected":   {func() (scan.Verdict, error) { return scan.InfectedVerdict("test", "x", ""), nil }, scan.Infected},
		"panic":      {func() (scan.Verdict, error) { panic("oh") }, scan.Incomplete},
		"unknown":    {func() (scan.Verdict, error) { return scan.Verdict{}, nil }, scan.Incomplete},
		"incomplete": {func() (scan.Verdict, error) { return scan.IncompleteVerdict(scan.Timeout, "x"), nil }, scan.Incomplete},
	} {
		t.Run(name, func(t *testing.T) {
			engine := onPart(c.f)
			g := newFixture(t, nil)
			g.Use(scan.NewSet(scan.Member{Scanner: engine, Required: true}), policy.Default(), false)
			o, err := g.Take(strings.NewReader(mail), Intake{Type: "message/rfc822"})
			if err != nil {
				t.Fatal(err)
			}
			defer o.Body.Close()
			d, n := g.Judge(context.Background(), policy.Facts{}, o)
			if n.Verdict.Outcome != c.want || (d.Action == policy.Pass) != (c.want == scan.Clean) {
				t.Errorf("%v, %v", n.Verdict, d)
			}
			// An infected reading ends the rest, which may not have begun; that it was judged shows in the verdict.
			if engine.Calls() < 2 && c.want != scan.Infected {
				t.Errorf("the engine was asked %d times: no reading was judged", engine.Calls())
			}
		})
	}
}

// TestVerdictsKnowWhatWasCalledAMail has the same bytes come as a file and as a mail, which they do not look like.
func TestVerdictsKnowWhatWasCalledAMail(t *testing.T) {
	g := newFixture(t, nil)
	g.Use(scan.NewSet(scan.Member{Scanner: scantest.FindsEICAR(), Required: true}), policy.Default(), false)
	text := "This is no field.\r\n--XX\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n" + base64.StdEncoding.EncodeToString(scan.EICAR()) + "\r\n--XX--\r\n"
	for _, c := range []struct {
		name string
		want scan.Outcome
	}{{"a.bin", scan.Clean}, {"a.eml", scan.Infected}, {"a.bin", scan.Clean}, {"a.mht", scan.Infected}} {
		if _, n, _ := g.pass(t, strings.NewReader(text), Intake{Name: c.name}); n.Verdict.Outcome != c.want {
			t.Errorf("%s: %v", c.name, n.Verdict)
		}
	}
	d, n, _ := g.pass(t, bytes.NewReader(zipped(t, map[string][]byte{"b.EML": []byte(text)})), Intake{Name: "a.zip"})
	if d.Action == policy.Pass || n.Verdict.Outcome != scan.Infected {
		t.Errorf("in an archive: %v", n.Verdict)
	}
}
