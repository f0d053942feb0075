package gate

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/signatures"
)

// readEvents returns what comes of r as an event stream, and why it was stopped.
func readEvents(t *testing.T, f *fixture, r io.Reader) (string, *Stopped) {
	t.Helper()
	b, err := io.ReadAll(f.Events(t.Context(), policy.Facts{}, "event-stream", r))
	var stopped *Stopped
	if err != nil && !errors.As(err, &stopped) {
		t.Fatal(err)
	}
	return string(b), stopped
}

// slowly returns s at once, and byte by byte.
func slowly(s string) map[string]io.Reader {
	return map[string]io.Reader{"at once": strings.NewReader(s), "byte by byte": iotest.OneByteReader(strings.NewReader(s))}
}

// TestArchiveInAnEventStreamIsStopped has an archive pass for a stream: a window of it shows no engine what the archive holds.
func TestArchiveInAnEventStreamIsStopped(t *testing.T) {
	eicar := string(scan.EICAR())
	inZip, inGzip := zipOf(t, "a.com", eicar), string(gzipped(t, scan.EICAR()))
	for name, body := range map[string]string{"zip": inZip, "gzip": inGzip, "zip behind an event": "data: x\n\n" + inZip} {
		got, stopped := readEvents(t, newFixture(t, nil), strings.NewReader(body))
		if stopped == nil || got != "" {
			t.Errorf("%s: %d bytes came, %+v", name, len(got), stopped)
		}
	}
}

// TestEventStreamThatIsNotTextIsStopped has no virus in it that a window could show.
func TestEventStreamThatIsNotTextIsStopped(t *testing.T) {
	for name, body := range map[string]string{
		"zero byte": "data: \x00\n\n", "gzip": "\x1f\x8b\x08", "Latin-1": "data: caf\xe9 \n\n", "broken in the middle": "data: \xe2\x82x\n\n",
	} {
		for how, r := range slowly(body) {
			_, stopped := readEvents(t, newFixture(t, nil), r)
			if stopped == nil || stopped.Notice.Verdict.Reason != scan.Undecodable {
				t.Errorf("%s, %s: stopped is %+v", name, how, stopped)
			}
		}
	}
}

func TestEventStreamOfAnyTextPasses(t *testing.T) {
	text := "\ufeffdata: pâté, 日本語, \U0001f600 \ufffd\t\x1b[1m\n\n: comment\r\nid\rretry: 1\r\n\r\nevent: x\n"
	for name, r := range slowly(text) {
		if got, stopped := readEvents(t, newFixture(t, nil), r); stopped != nil || got != text {
			t.Errorf("%s: %q, %+v", name, got, stopped)
		}
	}
}

// TestFileInTheGuiseOfAnEventStreamDoesNotPass has one that a signature knows by its checksum alone, of which no window shows anything.
func TestFileInTheGuiseOfAnEventStreamDoesNotPass(t *testing.T) {
	script := "On Error Resume Next\r\nSet s = CreateObject(\"WScript.Shell\")\r\ns.Run \"calc\"\r\n"
	f := newFixture(t, nil)
	useDigest(t, f, script)
	if d, n, _ := f.pass(t, strings.NewReader(script), Intake{}); d.Action == policy.Pass || n.Verdict.Outcome != scan.Infected {
		t.Fatalf("as a file: %v %v", d, n.Verdict)
	}
	for name, body := range map[string]string{"by itself": script, "with an event": script + "data: x\n\n", "behind an event": "data: x\n\n" + script} {
		for how, r := range slowly(body) {
			got, stopped := readEvents(t, f, r)
			if stopped != nil || strings.Contains(got, "WScript") || strings.Contains(got, "Resume") {
				t.Errorf("%s, %s: %q %+v", name, how, got, stopped)
			}
		}
	}
}

// useDigest has f know a file by its checksum.
func useDigest(t *testing.T, f *fixture, file string) {
	t.Helper()
	db := filepath.Join(t.TempDir(), "test.hsb")
	if err := os.WriteFile(db, fmt.Appendf(nil, "%x:%d:Test.Digest\n", sha256.Sum256([]byte(file)), len(file)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := signatures.Default()
	cfg.Paths = []string{db}
	s, err := signatures.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f.Use(scan.NewSet(scan.Member{Scanner: s, Required: true}), policy.Default(), false)
}

// TestDataOfEventsIsRead has a signature in what readers, and applications behind them, put together of a stream.
func TestDataOfEventsIsRead(t *testing.T) {
	eicar := string(scan.EICAR())
	lines := func(sep string) string {
		var b strings.Builder
		for i := 0; i < len(eicar); i += 5 {
			b.WriteString("data: " + eicar[i:min(i+5, len(eicar))] + sep)
		}
		return b.String() + "\n\n"
	}
	many := strings.Repeat("event: x\nid: 12345678\n\n", 50) // no window has two values in it
	for name, body := range map[string]string{
		"over lines": lines("\n"), "over events": lines("\n\n"), "over events by CR": lines("\r\r"), "with ids between": lines("\n\nid: 7\nevent: x\n"),
		"far apart": lines("\n\n" + many), "with comments between": lines("\n" + strings.Repeat(": "+strings.Repeat("x", 1000)+"\n", 10)),
	} {
		for how, r := range slowly(body) {
			if how != "at once" && len(body) > 2000 {
				continue // takes long
			}
			if _, stopped := readEvents(t, newFixture(t, nil), r); stopped == nil || stopped.Notice.Verdict.Outcome != scan.Infected {
				t.Errorf("%s, %s: %+v", name, how, stopped)
			}
		}
	}
	if got, stopped := readEvents(t, newFixture(t, nil), strings.NewReader(strings.ToLower(lines("\n\n")))); stopped != nil || got == "" {
		t.Errorf("a harmless one: %q, %+v", got, stopped)
	}
}

// TestArchiveInTheDataOfEventsIsOpened where a page would take it out of base64.
func TestArchiveInTheDataOfEventsIsOpened(t *testing.T) {
	coded := base64.StdEncoding.EncodeToString([]byte(zipOf(t, "a.com", strings.Repeat("long enough to be compressed. ", 30)+string(scan.EICAR()))))
	for name, body := range map[string]string{"in one event": "data: " + coded + "\n\n", "over events": "data: " + coded[:100] + "\n\ndata: " + coded[100:] + "\n\n"} {
		for how, r := range slowly(body) {
			if _, stopped := readEvents(t, newFixture(t, nil), r); stopped == nil || stopped.Notice.Verdict.Outcome != scan.Infected {
				t.Errorf("%s, %s: %+v", name, how, stopped)
			}
		}
	}
}

// TestPolicyDecidesAboutStreams before anything flows.
func TestPolicyDecidesAboutStreams(t *testing.T) {
	f := newFixture(t, nil)
	use := func(p policy.Config) { f.Use(f.Engines(), p, false) }
	facts := policy.Facts{Host: "events.example.org", Type: "text/event-stream"}
	d, _ := f.Streams(facts, "event-stream", "event stream")
	if r := f.sink.records[0]; d.Action != policy.Pass || r.Event != audit.Exempt || r.Decision.Rule != "policy.streamed" || r.Detail != "event stream" || r.Kind != "event-stream" {
		t.Errorf("by default: %+v, %+v", d, r)
	}
	p := policy.Default()
	for action, kind := range map[policy.Action]notice.Kind{policy.Block: notice.NotScanned, policy.Defer: notice.Unavailable} {
		p.Streamed, p.Quarantine = action, []string{"streamed"}
		use(p)
		d, n := f.Streams(facts, "event-stream", "event stream")
		r := f.sink.records[len(f.sink.records)-1]
		if d.Action != action || d.Quarantine || n.Kind != kind || n.Verdict.Reason != scan.Streamed || r.Event != audit.Object || r.Reference != n.Reference || r.Decision.Rule != "policy.streamed" {
			t.Errorf("%v: %+v, %+v, %+v", action, d, n, r)
		}
	}
	p.Rules = []policy.Rule{{Name: "ours", Hosts: []string{".example.org"}, Outcome: []string{"streamed"}, Action: policy.Pass}}
	use(p)
	if d, _ := f.Streams(facts, "event-stream", "event stream"); d.Action != policy.Pass || d.Rule != "policy.rule.ours" || f.sink.records[len(f.sink.records)-1].Decision.Rule != d.Rule {
		t.Errorf("by a rule: %+v", d)
	}
}
