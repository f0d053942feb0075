package audit

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// The longest values that a record keeps, in bytes. What comes from outside is cut, so that a record stays small.
const (
	maxURL      = 2048
	maxDetail   = 2048
	maxHost     = 255
	maxPath     = 512
	maxWord     = 128
	maxFindings = 16
)

// Log takes the records: it counts each in the metrics, keeps the latest for the console, and writes one log record. It is
// safe for use by many goroutines.
type Log struct {
	handler slog.Handler
	cfg     Config
	metrics *metrics
	totals  totals

	mu   sync.Mutex
	ring []Record // the oldest is at next once the ring is full
	next int
}

// New returns a Log that writes by logger, which should be one of NewLogger: another may block whoever records. cfg must
// have been validated.
func New(logger *slog.Logger, cfg Config) *Log {
	l := &Log{handler: logger.Handler(), cfg: cfg, metrics: newMetrics(), ring: make([]Record, 0, max(cfg.Recent, 0))}
	l.totals.since = time.Now()
	return l
}

var _ Sink = (*Log)(nil)

// Record implements Sink. It cuts what is too long, and removes userinfo from the URL whoever left it there.
func (l *Log) Record(r Record) {
	r = l.bound(r)
	l.totals.count(r)
	l.metrics.count(r)
	l.keep(r)
	if r.clean() {
		if l.cfg.RecordClean {
			_ = l.handler.Handle(cleanContext, logRecord(r))
		}
		return
	}
	_ = l.handler.Handle(context.Background(), logRecord(r))
}

// clean says that the record is about a clean object that was passed.
func (r Record) clean() bool {
	return r.Event == Object && r.Verdict.Outcome == scan.Clean && r.Decision.Action == policy.Pass
}

// Recent returns the latest n records, the newest first; fewer where there are not so many, or not so many are kept. Their
// Findings must not be written to.
func (l *Log) Recent(n int) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = max(0, min(n, len(l.ring)))
	out := make([]Record, 0, n)
	for i := 1; i <= n; i++ {
		out = append(out, l.ring[(l.next-i+2*len(l.ring))%len(l.ring)])
	}
	return out
}

func (l *Log) keep(r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case cap(l.ring) == 0:
	case len(l.ring) < cap(l.ring):
		l.ring = append(l.ring, r)
	default:
		l.ring[l.next] = r
		l.next = (l.next + 1) % len(l.ring)
	}
}

// bound returns r with every text cut to its limit, and copies what it shares with the caller.
func (l *Log) bound(r Record) Record {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	if r.Event == "" {
		r.Event = Object
	}
	if r.Event == Refuse && r.Kind == "" {
		r.Kind = r.Decision.Rule // what is refused is refused by a rule of that name
	}
	r.Kind, r.Reference, r.SHA256 = cut(r.Kind, maxWord), cut(r.Reference, maxWord), cut(r.SHA256, maxWord)
	r.Quarantine = cut(r.Quarantine, maxWord)
	r.Detail, r.Verdict.Detail = cut(r.Detail, maxDetail), cut(r.Verdict.Detail, maxDetail)
	r.Decision.Rule = cut(r.Decision.Rule, maxWord)
	f := &r.Facts
	f.Protocol, f.User, f.Method = cut(f.Protocol, maxWord), cut(f.User, maxWord), cut(f.Method, maxWord)
	f.Host, f.Type = cut(f.Host, maxHost), cut(f.Type, maxWord)
	f.URL = cleanURL(f.URL, l.cfg.Query)
	found := r.Verdict.Findings
	r.Verdict.Findings = nil
	for _, x := range found[:min(len(found), maxFindings)] {
		r.Verdict.Findings = append(r.Verdict.Findings, scan.Finding{
			Engine: cut(x.Engine, maxWord), Signature: cut(x.Signature, maxWord), Path: cut(x.Path, maxPath),
		})
	}
	return r
}

// cut returns at most limit bytes of s, in memory of their own, so that a record in the ring does not keep a whole request
// alive. A cut is marked by "…". Bytes that are not UTF-8 become U+FFFD.
func cut(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.Clone(strings.ToValidUTF8(s, "\ufffd"))
}

// cleanURL returns u without userinfo and, unless it is kept, without its query; cut to maxURL. It works on text that is no
// valid URL, too: everything up to the last "@" of what stands where the authority would be is removed.
func cleanURL(u string, query bool) string {
	start := 0
	if i := strings.Index(u, "//"); i >= 0 && !strings.ContainsAny(u[:i], "/?#") {
		start = i + 2
	} else if strings.HasPrefix(u, "/") {
		start = len(u) // a path alone
	}
	end := len(u)
	if i := strings.IndexAny(u[start:], "/?#"); i >= 0 {
		end = start + i
	}
	if i := strings.LastIndexByte(u[start:end], '@'); i >= 0 {
		u = u[:start] + u[start+i+1:]
	}
	if !query {
		u, _, _ = strings.Cut(u, "?")
	}
	return cut(u, maxURL)
}

// Totals is what was counted since the start, or since the Log was made.
type Totals struct {
	Since      time.Time
	Objects    uint64 // judged
	Bytes      uint64 // in those objects
	Infected   uint64
	Incomplete uint64 // no verdict could be had
	Blocked    uint64 // not passed, whatever the outcome
	Cached     uint64 // verdicts that were remembered
	Exempt     uint64
	Refused    uint64
}

type totals struct {
	since                                                                  time.Time
	objects, bytes, infected, incomplete, blocked, cached, exempt, refused atomic.Uint64
}

// Totals returns what was counted.
func (l *Log) Totals() Totals {
	t := &l.totals
	return Totals{
		Since: t.since, Objects: t.objects.Load(), Bytes: t.bytes.Load(), Infected: t.infected.Load(),
		Incomplete: t.incomplete.Load(), Blocked: t.blocked.Load(), Cached: t.cached.Load(),
		Exempt: t.exempt.Load(), Refused: t.refused.Load(),
	}
}

func (t *totals) count(r Record) {
	switch r.Event {
	case Exempt:
		t.exempt.Add(1)
		return
	case Refuse:
		t.refused.Add(1)
		return
	}
	t.objects.Add(1)
	t.bytes.Add(uint64(max(r.Size, 0)))
	switch r.Verdict.Outcome {
	case scan.Clean:
	case scan.Infected:
		t.infected.Add(1)
	default:
		t.incomplete.Add(1)
	}
	if r.Decision.Action != policy.Pass {
		t.blocked.Add(1)
	}
	if r.Cached {
		t.cached.Add(1)
	}
}
