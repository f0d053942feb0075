package audit

import (
	"log/slog"
	"strings"
	"time"
)

// logRecord returns r as a record for a log. Its message is the event ("object", "exempt", "refuse"), its time that of the
// decision. What is empty or unknown is left out; times are milliseconds.
func logRecord(r Record) slog.Record {
	level := slog.LevelInfo
	if r.Event != Exempt && !r.clean() {
		level = slog.LevelWarn
	}
	var room [maxAttrs]slog.Attr // so that nothing has to grow
	a := attrs(room[:0])
	a.text("reference", r.Reference)
	a.text("kind", r.Kind)
	if r.Event == Object {
		a.text("outcome", r.Verdict.Outcome.String())
		a.text("reason", string(r.Verdict.Reason))
		a.text("action", r.Decision.Action.String())
	}
	a.text("rule", r.Decision.Rule)
	if found := r.Verdict.Findings; len(found) > 0 {
		a.text("signature", found[0].Signature)
		a.text("engine", found[0].Engine)
		a.text("path", found[0].Path)
		also := make([]string, 0, len(found)-1)
		for _, f := range found[1:] {
			also = append(also, strings.TrimSuffix(f.Engine+":"+f.Signature+"@"+f.Path, "@"))
		}
		a.text("also", strings.Join(also, ", "))
	}
	if r.Event == Object {
		a.add(slog.Int64("size", r.Size), slog.Bool("cached", r.Cached))
	}
	a.text("sha256", r.SHA256)
	a.text("quarantine", r.Quarantine)
	if r.Facts.Client.IsValid() {
		a.text("client", r.Facts.Client.String())
	}
	a.text("user", r.Facts.User)
	a.text("protocol", r.Facts.Protocol)
	a.text("direction", string(r.Facts.Direction))
	a.text("method", r.Facts.Method)
	a.text("url", r.Facts.URL)
	a.text("host", r.Facts.Host)
	a.text("type", r.Facts.Type)
	if r.Facts.Status != 0 {
		a.add(slog.Int("status", r.Facts.Status))
	}
	if r.Event == Object {
		a.add(slog.Float64("receive_ms", ms(r.Receive)), slog.Float64("scan_ms", ms(r.Scan)))
	}
	a.text("detail", r.Detail)
	if r.Verdict.Detail != r.Detail {
		a.text("verdict_detail", r.Verdict.Detail)
	}
	rec := slog.NewRecord(r.Time, level, string(r.Event), 0)
	rec.AddAttrs(a...)
	return rec
}

// maxAttrs is how many attributes a record has at most.
const maxAttrs = 28

type attrs []slog.Attr

func (a *attrs) add(x ...slog.Attr) { *a = append(*a, x...) }

func (a *attrs) text(key, value string) {
	if value != "" {
		*a = append(*a, slog.String(key, value))
	}
}

// ms returns d in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
