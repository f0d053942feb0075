package gate

import (
	"archive/zip"
	"bytes"
	"context"
	"strings"
	"testing"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// program is what policy's rules call an executable.
const program = "\x7fELF\x02\x01\x01 no program, but it says so"

func zipOf(t testing.TB, name, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	m, err := w.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// rules has objects judged with these rules.
func (f *fixture) rules(rules ...policy.Rule) {
	p := policy.Default()
	p.Rules = rules
	f.Use(f.Engines(), p, false)
}

// TestProgramsAreFoundWhereverTheyAre: by content, whatever they are called, in archives and in parts of an upload.
func TestProgramsAreFoundWhereverTheyAre(t *testing.T) {
	f := newFixture(t, nil)
	f.rules(policy.Rule{Name: "no-programs", FileTypes: []string{"executable", "batch"}, Quarantine: true})
	form := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"photo.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n"
	for name, c := range map[string]struct {
		content, file, typ string
		blocked            bool
	}{
		"itself":                 {program, "holiday.jpg", "image/jpeg", true},
		"in a zip":               {zipOf(t, "readme.txt", program), "a.zip", "", true},
		"in a zip in a zip":      {zipOf(t, "b.zip", zipOf(t, "c", program)), "a.zip", "", true},
		"in an upload":           {form + program + "\r\n--b--\r\n", "upload", "multipart/form-data; boundary=b", true},
		"in a zip in an upload":  {form + zipOf(t, "x", program) + "\r\n--b--\r\n", "upload", "multipart/form-data; boundary=b", true},
		"in a data: URL":         {"<a href=\"data:application/octet-stream;base64,f0VMRgIBAQAgbm8gcHJvZ3JhbSwgYnV0IGl0IHNheXMgc28=\">x</a>", "x.html", "text/html", true},
		"by name where text":     {"del *.*", "x.BAT", "", true},
		"batch in an upload":     {strings.Replace(form, "photo.jpg", "x.bat", 1) + "del *.*\r\n--b--\r\n", "upload", "multipart/form-data; boundary=b", true},
		"name alone":             {"\x89PNG\r\n\x1a\n\x00\x00", "picture.exe", "application/x-msdownload", false},
		"a zip without programs": {zipOf(t, "a.exe", "text"), "a.zip", "", false},
	} {
		for range 2 { // the second time from memory
			d, n, _ := f.pass(t, strings.NewReader(c.content), Intake{Name: c.file, Type: c.typ})
			want := policy.Decision{Action: policy.Pass, Rule: "clean"}
			if c.blocked {
				want = policy.Decision{Action: policy.Block, Quarantine: true, Rule: "policy.rule.no-programs"}
			}
			if d != want || c.blocked && (n.Kind != notice.NotAllowed || n.Verdict.Outcome != scan.Clean) {
				t.Errorf("%s: %+v, %s", name, d, n.Kind)
			}
		}
	}
}

// TestSameBytesUnderAnotherName: what is remembered of a file does not count for one whose name says more.
func TestSameBytesUnderAnotherName(t *testing.T) {
	f := newFixture(t, nil)
	f.rules(policy.Rule{Name: "r", FileTypes: []string{"batch"}})
	for name, want := range map[string]policy.Action{"x.txt": policy.Pass, "x.bat": policy.Block} {
		if d, _, _ := f.pass(t, strings.NewReader("del *.*"), Intake{Name: name}); d.Action != want {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestTypesByContentInRules(t *testing.T) {
	f := newFixture(t, nil)
	f.rules(policy.Rule{Name: "r", ContentTypes: []string{"image/png"}, DeclaredTypes: []string{"text/*"}})
	png := "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
	for typ, want := range map[string]policy.Action{"text/plain": policy.Block, "image/png": policy.Pass} {
		o, err := f.Take(strings.NewReader(png), Intake{Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		if d, _ := f.Judge(context.Background(), policy.Facts{Type: typ}, o); d.Action != want {
			t.Errorf("%s: %+v", typ, d)
		}
		_ = o.Body.Close()
	}
}

// TestKindsThatCannotBeFoundOutAreNotClean: rules that ask for them would be led around.
func TestKindsThatCannotBeFoundOutAreNotClean(t *testing.T) {
	f := newFixture(t, nil)
	zipped := zipOf(t, "x", strings.Repeat("harmless ", 100))
	if d, _, _ := f.pass(t, strings.NewReader(zipped), Intake{Name: "a.zip"}); d.Action != policy.Pass {
		t.Fatalf("%+v", d)
	}
	f.rules(policy.Rule{Name: "r", FileTypes: []string{"executable"}})
	o, err := f.Take(strings.NewReader(zipped), Intake{Name: "a.zip"})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Body.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	// The verdict is remembered; what sorts of files there are is not.
	if d, n := f.Judge(ctx, policy.Facts{}, o); d.Action == policy.Pass || n.Verdict.Outcome != scan.Incomplete {
		t.Errorf("%+v, %+v", d, n.Verdict)
	}
}

func TestPartsOfAConnectionAreRecordedWhenNotClean(t *testing.T) {
	f := newFixture(t, nil)
	for i, content := range []string{"harmless", string(scan.EICAR())} {
		o, err := f.Take(strings.NewReader(content), Intake{})
		if err != nil {
			t.Fatal(err)
		}
		d, _ := f.JudgePart(context.Background(), policy.Facts{}, "websocket", o)
		if (d.Action == policy.Pass) != (i == 0) || len(f.sink.records) != i {
			t.Errorf("%+v, %d records", d, len(f.sink.records))
		}
		_ = o.Body.Close()
	}
	if r := f.sink.records[0]; r.Kind != "websocket" || r.Verdict.Outcome != scan.Infected {
		t.Errorf("%+v", r)
	}
}
