package audit

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/scan"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// exposition returns what a collector would be given.
func exposition(t *testing.T, l *Log) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(l.Registry(), promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	b, _ := io.ReadAll(w.Body)
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, b)
	}
	return string(b)
}

func TestMetrics(t *testing.T) {
	l := New(slog.New(slog.DiscardHandler), Default())
	cached := clean()
	cached.Cached = true
	deferred := block()
	deferred.Verdict = scan.IncompleteVerdict(scan.Timeout, "x")
	deferred.Facts.Direction, deferred.Decision.Action = policy.Upload, policy.Defer
	for _, r := range []Record{clean(), cached, block(), deferred, {Event: Exempt, Kind: "tunnel"}, {Event: Refuse, Kind: "loop"}, {Event: Refuse, Decision: policy.Decision{Rule: "mismatch"}}} {
		l.Record(r)
	}
	made := time.Unix(1767225600, 0)
	err := l.Watch(Gauges{
		Version: "1.2.3",
		Scanners: func() []ScannerStatus {
			return []ScannerStatus{
				{Name: "clamd", Required: true, Up: true, Version: scan.Version{Updated: made}},
				{Name: "clamd"},
				{Name: "\xff bad\n"},
			}
		},
		Spool:       func() (int64, int64) { return 10, 20 },
		Decoders:    func() DecodersStatus { return DecodersStatus{Used: 11, Most: 12, Total: 13, Waiting: 14} },
		Connections: func() map[string]int64 { return map[string]int64{"web": 3, "no word!": 1, "nor this!": 2} },
		Output:      func() OutputStatus { return OutputStatus{Stalled: true, Overflowed: 4, LostClean: 5, Lost: 6} },
		Cache:       func() (int64, uint64) { return 7, 8 },
	})
	if err != nil {
		t.Fatal(err)
	}
	got := exposition(t, l)
	for _, want := range []string{
		`lazaret_objects_total{action="pass",direction="download",outcome="clean",protocol="https",reason="none"} 2`,
		`lazaret_objects_total{action="block",direction="download",outcome="infected",protocol="https",reason="none"} 1`,
		`lazaret_objects_total{action="defer",direction="upload",outcome="incomplete",protocol="https",reason="timeout"} 1`,
		`lazaret_object_bytes_total{direction="download",protocol="https"} 768`,
		`lazaret_scan_duration_seconds_count 3`,
		`lazaret_scan_duration_seconds_bucket{le="0.0025"} 0`,
		`lazaret_scan_duration_seconds_bucket{le="0.005"} 3`,
		`lazaret_receive_duration_seconds_count 4`,
		`lazaret_verdict_cache_hits_total 1`,
		`lazaret_exempt_total{kind="tunnel"} 1`,
		`lazaret_refused_total{kind="loop"} 1`,
		`lazaret_refused_total{kind="mismatch"} 1`,
		`lazaret_build_info{version="1.2.3"} 1`,
		`lazaret_scanner_up{required="true",scanner="clamd"} 1`,
		`lazaret_scanner_up{required="false",scanner="clamd#2"} 0`,
		`lazaret_scanner_signatures_timestamp_seconds{scanner="clamd"} 1.7672256e+09`,
		`lazaret_spool_bytes{where="memory"} 10`,
		`lazaret_spool_bytes{where="disk"} 20`,
		`lazaret_decoder_memory_bytes{what="used"} 11`,
		`lazaret_decoder_memory_bytes{what="most"} 12`,
		`lazaret_decoder_memory_bytes{what="total"} 13`,
		`lazaret_decoders_waiting 14`,
		`lazaret_connections{listener="web"} 3`,
		`lazaret_connections{listener="other"} 3`,
		`lazaret_log_stalled 1`,
		`lazaret_log_overflowed_lines_total 4`,
		`lazaret_log_lost_lines_total{about="clean"} 5`,
		`lazaret_log_lost_lines_total{about="other"} 6`,
		`lazaret_verdict_cache_entries 7`,
		`lazaret_verdict_cache_evictions_total 8`,
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("missing: %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	if err := l.Watch(Gauges{}); err == nil {
		t.Error("a second Watch is taken")
	}
}

func TestHostilePeersCannotMultiplySeries(t *testing.T) {
	l := New(slog.New(slog.DiscardHandler), Default())
	for i := range 2000 {
		r := block()
		word := fmt.Sprintf("w%d", i)
		r.Facts.Protocol, r.Facts.Direction, r.Kind = word, policy.Direction(word), word
		r.Facts.Host, r.Facts.URL, r.Facts.User, r.Facts.Method, r.Facts.Type = word, word, word, word, word
		r.Verdict = scan.Verdict{Outcome: scan.Outcome(i), Reason: scan.Reason(word), Findings: []scan.Finding{{Signature: word}}}
		r.Decision.Action, r.Decision.Rule = policy.Action(i), word
		for _, r.Event = range []Event{Object, Exempt, Refuse, "", Event(word)} {
			l.Record(r)
		}
	}
	got := exposition(t, l)
	n := strings.Count(got, "\nlazaret_")
	if n < 50 {
		t.Fatalf("only %d series: there is nothing to look at\n%s", n, got)
	}
	if n > 600 {
		t.Errorf("%d series", n)
	}
	if !strings.Contains(got, `lazaret_refused_total{kind="other"} `) {
		t.Error("what is beyond the bound is not counted as other")
	}
}
