package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// buffer is a writer that may be read while the Output writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func block() Record {
	return Record{
		Time: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), Event: Object, Reference: "4FJ2-9QX0-K7",
		Facts: policy.Facts{
			Protocol: "https", Direction: policy.Download, Client: netip.MustParseAddr("192.0.2.7"), User: "ann",
			Host: "files.example", Method: "GET", URL: "https://files.example/a.zip?x=1", Type: "application/zip", Status: 200,
		},
		Verdict: scan.Verdict{Outcome: scan.Infected, Findings: []scan.Finding{
			{Engine: "clamd", Signature: "Win.Test.EICAR_HDB-1", Path: "a.zip/b.com"},
			{Engine: "signatures", Signature: "Eicar-Signature"},
		}},
		Decision: policy.Decision{Action: policy.Block, Rule: "policy.infected"},
		Size:     256, SHA256: strings.Repeat("ab", 32), Receive: 12 * time.Millisecond, Scan: 3500 * time.Microsecond,
	}
}

func clean() Record {
	r := block()
	r.Verdict, r.Decision = scan.CleanVerdict(), policy.Decision{Action: policy.Pass, Rule: "clean"}
	return r
}

// lines logs what f records, and returns the lines that came out.
func lines(t *testing.T, cfg Config, f func(l *Log)) []string {
	t.Helper()
	var buf buffer
	logger, out, err := NewLogger(&buf, cfg)
	if err != nil {
		t.Fatal(err)
	}
	f(New(logger, cfg))
	if err := out.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := buf.String()
	if s != "" && !strings.HasSuffix(s, "\n") {
		t.Errorf("the last line has no end: %q", s)
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

func TestOneRecordIsOneLineWithEveryFact(t *testing.T) {
	got := lines(t, Default(), func(l *Log) { l.Record(block()) })
	if len(got) != 1 {
		t.Fatalf("%d lines: %q", len(got), got)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(got[0]), &m); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"time": "2026-01-02T15:04:05Z", "level": "WARN", "msg": "object", "reference": "4FJ2-9QX0-K7", "outcome": "infected",
		"action": "block", "rule": "policy.infected", "signature": "Win.Test.EICAR_HDB-1", "engine": "clamd",
		"path": "a.zip/b.com", "also": "signatures:Eicar-Signature", "size": 256.0, "cached": false,
		"sha256": strings.Repeat("ab", 32), "client": "192.0.2.7", "user": "ann", "protocol": "https", "direction": "download",
		"method": "GET", "url": "https://files.example/a.zip?x=1", "host": "files.example", "type": "application/zip",
		"status": 200.0, "receive_ms": 12.0, "scan_ms": 3.5,
	}
	for k, v := range want {
		if m[k] != v {
			t.Errorf("%s is %v, want %v", k, m[k], v)
		}
		delete(m, k)
	}
	if len(m) > 0 {
		t.Errorf("unexpected attributes: %v", m)
	}
}

func TestAuditIsWrittenAtAnyLevelButCleanOnesByChoice(t *testing.T) {
	exempt := Record{Event: Exempt, Kind: "tunnel", Facts: policy.Facts{Host: "bank.example"}}
	all := func(l *Log) { l.Record(clean()); l.Record(block()); l.Record(exempt) }
	cfg := Default()
	cfg.Level = "error"
	if got := lines(t, cfg, all); len(got) != 3 {
		t.Errorf("at level error: %d lines of 3: %q", len(got), got)
	}
	cfg.RecordClean = false
	got := lines(t, cfg, all)
	if len(got) != 2 || !strings.Contains(got[0], `"infected"`) || !strings.Contains(got[1], `"kind":"tunnel"`) {
		t.Errorf("without clean ones: %q", got)
	}
}

func TestControlCharactersCannotForgeLines(t *testing.T) {
	evil := "x\r\n{\"level\":\"INFO\",\"msg\":\"object\",\"outcome\":\"clean\"}\n\x1b[2J\x1b]0;t\x07\u009b31m\u202egpj.exe\u200b\u2028\x7f\x00\xff end"
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			cfg := Default()
			cfg.Format = format
			r := block()
			r.Facts.Host, r.Facts.User, r.Facts.Method, r.Facts.Type, r.Detail = evil, evil, evil, evil, evil
			r.Facts.URL, r.Reference, r.Decision.Rule, r.Kind = "http://h/"+evil, evil, evil, evil
			r.Verdict.Findings = []scan.Finding{{Engine: evil, Signature: evil, Path: evil}, {Engine: evil, Signature: evil, Path: evil}}
			got := lines(t, cfg, func(l *Log) {
				l.Record(r)
				slog.New(l.handler).Warn("service: "+evil, "err", fmt.Errorf("%s", evil))
			})
			if len(got) != 2 {
				t.Fatalf("%d lines of 2: %q", len(got), got)
			}
			for _, line := range got {
				if !strings.Contains(line, "end") {
					t.Fatalf("the value is not in the line: %q", line)
				}
				if i := strings.IndexFunc(line, func(c rune) bool {
					return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x202e || c == 0x200b || c == 0x2028
				}); i >= 0 {
					t.Errorf("a raw control character at %d: %q", i, line[i:min(len(line), i+20)])
				}
			}
			if format == "json" {
				var m map[string]any
				if err := json.Unmarshal([]byte(got[0]), &m); err != nil {
					t.Fatal(err)
				}
				if want := strings.ToValidUTF8(evil, "\ufffd"); m["host"] != want || m["outcome"] != "infected" {
					t.Errorf("host is %q, want %q; outcome %v", m["host"], want, m["outcome"])
				}
			}
		})
	}
}

func TestUserinfoIsNeverLogged(t *testing.T) {
	for in, want := range map[string]string{
		"http://ann:secret@h.example/a?b=c":  "http://h.example/a?b=c",
		"http://ann@h.example/":              "http://h.example/",
		"http://a@b:secret@h.example":        "http://h.example",
		"https://:secret@[::1]:8443/x@y":     "https://[::1]:8443/x@y",
		"//ann:secret@h.example/":            "//h.example/",
		"ann:secret@h.example:443":           "h.example:443",
		"http://ann:secret\\@h.example/":     "http://h.example/",
		"http://ann:%zz secret@h.example/":   "http://h.example/",
		"/path?next=http://ann:x@h/":         "/path?next=http://ann:x@h/",
		"http://h.example/p@q?mail=a@b":      "http://h.example/p@q?mail=a@b",
		"http://h.example?mail=a@b":          "http://h.example?mail=a@b",
		"":                                   "",
		"*":                                  "*",
		"http://ann:secret@":                 "http://",
		"ann:secret@h/http://x":              "h/http://x",
		"ftp://ann:secret@h.example/#//x@y/": "ftp://h.example/#//x@y/",
	} {
		if got := cleanURL(in, true); got != want {
			t.Errorf("cleanURL(%q) = %q, want %q", in, got, want)
		}
	}
	if got := cleanURL("http://u@h/p?secret=1", false); got != "http://h/p" {
		t.Errorf("without the query: %q", got)
	}
	r := block()
	r.Facts.URL = "http://ann:secret@h.example/"
	l := New(slog.New(slog.DiscardHandler), Default())
	l.Record(r)
	if got := l.Recent(1); len(got) != 1 || got[0].Facts.URL != "http://h.example/" {
		t.Errorf("the console's copy has %+v", got)
	}
}

func TestRecordsAreBounded(t *testing.T) {
	long := strings.Repeat("ä", 1<<20)
	r := block()
	r.Facts = policy.Facts{Protocol: long, Direction: policy.Upload, User: long, Host: long, Method: long, URL: "http://" + long, Type: long}
	r.Kind, r.Reference, r.Detail, r.SHA256, r.Decision.Rule, r.Verdict.Detail = long, long, long, long, long, long
	r.Verdict.Findings = slices.Repeat([]scan.Finding{{Engine: long, Signature: long, Path: long}}, 1000)
	for _, format := range []string{"text", "json"} {
		cfg := Default()
		cfg.Format = format
		got := lines(t, cfg, func(l *Log) {
			l.Record(r)
			kept := l.Recent(1)[0]
			if n := len(kept.Verdict.Findings); n != maxFindings {
				t.Errorf("%d findings are kept", n)
			}
		})
		if len(got) != 1 || len(got[0]) > 32<<10 || len(got[0]) < 1000 {
			t.Errorf("%s: %d lines, the first of %d bytes", format, len(got), len(got[0]))
		}
	}
}

func TestRecentKeepsTheLatest(t *testing.T) {
	for _, size := range []int{0, 1, 3, 10} {
		cfg := Default()
		cfg.Recent = size
		l := New(slog.New(slog.DiscardHandler), cfg)
		for i := range 7 {
			r := clean()
			r.Size = int64(i)
			l.Record(r)
			for _, ask := range []int{-1, 0, 1, 2, 100} {
				got := l.Recent(ask)
				want := max(0, min(ask, size, i+1))
				if len(got) != want {
					t.Fatalf("size %d, after %d: Recent(%d) has %d, want %d", size, i+1, ask, len(got), want)
				}
				for j, r := range got {
					if r.Size != int64(i-j) {
						t.Fatalf("size %d, after %d: Recent(%d)[%d] is record %d", size, i+1, ask, j, r.Size)
					}
				}
			}
		}
	}
}

func TestTotals(t *testing.T) {
	l := New(slog.New(slog.DiscardHandler), Default())
	cached := clean()
	cached.Cached = true
	incomplete := block()
	incomplete.Verdict = scan.IncompleteVerdict(scan.Encrypted, "x")
	incomplete.Decision.Action = policy.Pass
	for _, r := range []Record{clean(), cached, block(), incomplete, {Event: Exempt}, {Event: Refuse}, {}} {
		l.Record(r)
	}
	got := l.Totals()
	got.Since = time.Time{}
	want := Totals{Objects: 5, Bytes: 4 * 256, Infected: 1, Incomplete: 2, Blocked: 2, Cached: 1, Exempt: 1, Refused: 1}
	if got != want {
		t.Errorf("Totals are %+v, want %+v", got, want)
	}
}

func TestConfigValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("Default: %v", err)
	}
	c := Config{Format: "xml", Level: "loud", Recent: -1, File: "a", Overflow: "a"}
	err := c.Validate()
	for _, key := range []string{"format: ", "level: ", "recent: ", "overflow: "} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+key) {
			t.Errorf("no error begins with %q: %v", key, err)
		}
	}
	if _, _, err := NewLogger(io.Discard, c); err == nil {
		t.Error("NewLogger takes invalid settings")
	}
	c = Default()
	c.File = t.TempDir() + "/no/such/dir/log"
	if _, _, err := NewLogger(io.Discard, c); err == nil || !strings.Contains(err.Error(), c.File) {
		t.Errorf("NewLogger with a file that cannot be opened: %v", err)
	}
}

func FuzzCleanURL(f *testing.F) {
	for _, s := range []string{"http://a:b@c/d?e#f", "a:b@c", "//@@/", "http://a:b\\@c", "http:///@", "?@//@", "\xff//\x00@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := cleanURL(s, true)
		if len(got) > maxURL+len("…")+3*maxURL {
			t.Fatalf("%d bytes", len(got))
		}
		auth := got
		if i := strings.Index(got, "//"); i >= 0 && !strings.ContainsAny(got[:i], "/?#") {
			auth = got[i+2:]
		} else if strings.HasPrefix(got, "/") {
			return
		}
		if i := strings.IndexAny(auth, "/?#"); i >= 0 {
			auth = auth[:i]
		}
		if strings.Contains(auth, "@") {
			t.Fatalf("%q became %q: there is userinfo left", s, got)
		}
	})
}

func FuzzEscapeUnseen(f *testing.F) {
	f.Add("plain")
	f.Add("\u202e \u009b \x7f \U000e0001 ä 😀 \u2028")
	f.Fuzz(func(t *testing.T, s string) {
		in, err := json.Marshal(s)
		if err != nil {
			t.Skip()
		}
		var want, got string
		out := escapeUnseen(in)
		if json.Unmarshal(in, &want) != nil || json.Unmarshal(out, &got) != nil || got != want {
			t.Fatalf("%q became %q", in, out)
		}
		if bytes.ContainsAny(out, "\u202e\u009b\x7f\u200b") {
			t.Fatalf("left in %q", out)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	logger, out, err := NewLogger(null, Default())
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close(context.Background())
	l, r := New(logger, Default()), clean()
	b.ReportAllocs()
	for b.Loop() {
		l.Record(r)
	}
}
