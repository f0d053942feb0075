package gate

import (
	"context"
	"encoding/hex"
	"runtime/debug"
	"sync"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/unpack"
)

// copyBuffers are for filling the spool.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Judge decides about o, records the decision, and returns it together with what a peer may be told about it. It always
// returns: within the configured timeout, or soon after ctx has ended.
func (g *Gate) Judge(ctx context.Context, f policy.Facts, o *scan.Object) (policy.Decision, notice.Notice) {
	return g.judge(ctx, f, "", o)
}

// JudgePart is Judge for one of very many small objects of the same connection (a WebSocket's messages, a gRPC call's). Kind is the fixed
// word that Exempt has recorded the connection under. Those that were found clean are not recorded one by one.
func (g *Gate) JudgePart(ctx context.Context, f policy.Facts, kind string, o *scan.Object) (policy.Decision, notice.Notice) {
	return g.judge(ctx, f, kind, o)
}

func (g *Gate) judge(ctx context.Context, f policy.Facts, partOf string, o *scan.Object) (policy.Decision, notice.Notice) {
	s := g.acquire()
	defer s.using.RUnlock()
	start := time.Now()
	ctx, cancel := context.WithTimeout(unpack.Together(ctx), g.cfg.Timeout.Std())
	defer cancel()

	v, cached := g.verdict(ctx, s, o)
	about, err := g.about(ctx, s, f, o)
	if err != nil {
		v = v.Merge(scan.IncompleteVerdict(scan.EngineError, "finding out what kinds of files are in it: %v", err))
	}
	d := s.policy.Judge(f, about, v)
	took := time.Since(start)
	n := notice.Notice{
		Reference: notice.NewReference(), Time: start, Facts: f, Decision: d, Verdict: v,
		Degraded: s.degraded,
	}
	if d.Action != policy.Pass {
		n.Signatures = s.engines.Updated()
	}
	if o.Body != nil {
		sum := o.Body.SHA256()
		n.Size, n.SHA256 = o.Body.Size(), hex.EncodeToString(sum[:])
	}
	detail := v.Detail
	if why := g.keep(ctx, &n, o); why != "" {
		detail = why
	}
	d = n.Decision
	n.Kind = kindOf(d, v)
	if partOf != "" && v.Outcome == scan.Clean && d.Action == policy.Pass && n.Quarantine == "" {
		return d, n
	}
	g.opt.Sink.Record(audit.Record{
		Time: start, Event: audit.Object, Kind: partOf, Reference: n.Reference, Facts: f, Verdict: v, Decision: d,
		Size: n.Size, SHA256: n.SHA256, Cached: cached, Receive: o.Took, Scan: took, Quarantine: n.Quarantine, Detail: detail,
	})
	return d, n
}

// Examine returns what the engines say of o and of everything inside it, where o is the gateway's own: a notice that has words of
// the original in it. Nothing is decided or recorded. It returns within the configured timeout, or soon after ctx has ended.
func (g *Gate) Examine(ctx context.Context, o *scan.Object) scan.Verdict {
	s := g.acquire()
	defer s.using.RUnlock()
	ctx, cancel := context.WithTimeout(unpack.Together(ctx), g.cfg.Timeout.Std())
	defer cancel()
	v, _ := g.verdict(ctx, s, o)
	return v
}

func kindOf(d policy.Decision, v scan.Verdict) notice.Kind {
	switch {
	case v.Outcome == scan.Infected:
		return notice.Infected
	case v.Outcome == scan.Clean && d.Action != policy.Pass:
		return notice.NotAllowed
	case d.Action == policy.Defer:
		return notice.Unavailable
	}
	return notice.NotScanned
}

// Passes says whether an object of that size would pass which is incomplete for that reason. Nothing is recorded: Judge
// decides about it all the same.
func (g *Gate) Passes(f policy.Facts, r scan.Reason, size int64) bool {
	d := g.state.Load().policy.Judge(f, policy.Content{Size: size}, scan.Verdict{Outcome: scan.Incomplete, Reason: r})
	return d.Action == policy.Pass
}

// Exempt records that something passes which cannot be held or opened, and why. Kind is a fixed word that metrics count by:
// "tunnel", "upgrade", "event-stream", "grpc", "too-large" and so on.
func (g *Gate) Exempt(f policy.Facts, kind, why string) {
	g.opt.Sink.Record(audit.Record{
		Time: time.Now(), Event: audit.Exempt, Kind: kind, Reference: notice.NewReference(), Facts: f,
		Decision: policy.Decision{Action: policy.Pass, Rule: "exempt"}, Detail: why,
	})
}

// Refuse records that a peer is turned away before there was an object, and returns what it may be told: fault is shown to
// it, detail is for the log alone.
func (g *Gate) Refuse(f policy.Facts, kind notice.Kind, fault, detail string) notice.Notice {
	n := notice.Notice{
		Reference: notice.NewReference(), Kind: kind, Time: time.Now(), Facts: f, Fault: fault,
		Decision: policy.Decision{Action: policy.Block, Rule: string(kind)}, Degraded: g.state.Load().degraded,
	}
	if detail == "" {
		detail = fault
	}
	g.opt.Sink.Record(audit.Record{
		Time: n.Time, Event: audit.Refuse, Kind: string(kind), Reference: n.Reference, Facts: f, Decision: n.Decision, Detail: detail,
	})
	return n
}

// verdict returns what is known of o, and whether it was remembered.
func (g *Gate) verdict(ctx context.Context, s *state, o *scan.Object) (v scan.Verdict, cached bool) {
	defer func() {
		if p := recover(); p != nil {
			v, cached = scan.IncompleteVerdict(scan.EngineError, "the gate panicked: %v\n%s", p, debug.Stack()), false
		}
	}()
	if o.Known.Outcome != scan.Unscanned && o.Body == nil {
		if o.Known.Outcome == scan.Clean {
			return scan.IncompleteVerdict(scan.EngineError, "an object without a body was said to be clean"), false
		}
		return o.Known, false
	}
	if o.Body == nil {
		return scan.IncompleteVerdict(scan.EngineError, "an object without a body was to be judged"), false
	}
	v, cached = g.remembered(ctx, s, o)
	if o.Known.Reason == scan.TooLarge && v.Reason == scan.Undecodable {
		v = o.Known // an archive of which the end is missing
	} else if o.Known.Outcome != scan.Unscanned {
		v = v.Merge(o.Known)
	}
	return v, cached
}

// examine asks the engines about o and about everything inside it.
func (g *Gate) examine(ctx context.Context, s *state, o *scan.Object) scan.Verdict {
	if o.Body.Size() == 0 && len(s.engines.Members()) > 0 {
		return scan.CleanVerdict() // no bytes, nothing in them
	}
	release, err := g.place(ctx, o.Body.Size())
	if err != nil {
		return scan.IncompleteVerdict(scan.FromError("", err).Reason, "waiting for a place among the scans: %v", err)
	}
	defer release()

	return g.look(ctx, s, o, scan.Whole, spot{})
}
