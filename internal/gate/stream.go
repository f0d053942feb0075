package gate

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"lazaret/internal/audit"
	"lazaret/internal/content"
	"lazaret/internal/media"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/unpack"
)

const (
	// streamPiece is how much of a stream is judged at a time, at most.
	streamPiece = 32 << 10
	// streamOverlap is how much of what went before is judged again with each piece, so that a signature across two pieces
	// is seen.
	streamOverlap = 8 << 10
)

// Stopped is the error of a stream that was found not clean. What had been read before was judged by itself.
type Stopped struct {
	Notice notice.Notice
}

// Error implements error.
func (s *Stopped) Error() string {
	return fmt.Sprintf("the stream was stopped: %s (reference %s)", s.Notice.Verdict.Outcome, s.Notice.Reference)
}

// Streams decides whether an answer may flow on before it is whole, as one without an end would have to, and records it: where it
// may, as an exception. Kind and why are those of Exempt. Each piece is to be judged besides, by Events, Play or JudgePart.
func (g *Gate) Streams(f policy.Facts, kind, why string) (policy.Decision, notice.Notice) {
	s, v := g.state.Load(), scan.IncompleteVerdict(scan.Streamed, "%s", why)
	d := s.policy.Decide(f, v)
	d.Quarantine = false // there is nothing to be kept
	n := notice.Notice{
		Reference: notice.NewReference(), Kind: kindOf(d, v), Time: time.Now(), Facts: f, Decision: d, Verdict: v, Degraded: s.degraded,
	}
	r := audit.Record{Time: n.Time, Event: audit.Object, Kind: kind, Reference: n.Reference, Facts: f, Verdict: v, Decision: d, Detail: why}
	if d.Action == policy.Pass {
		r.Event, r.Verdict = audit.Exempt, scan.Verdict{}
	}
	g.opt.Sink.Record(r)
	return d, n
}

// Events returns a reader of the event stream r that gives each piece as soon as it comes and is judged, together with what went
// just before it. Only lines pass that a reader of event streams understands (package eventstream). A piece that is not to pass is
// not given: the error is then a *Stopped. It is used by one goroutine; what it needs ends with ctx.
func (g *Gate) Events(ctx context.Context, f policy.Facts, kind string, r io.Reader) io.Reader {
	return &stream{g: g, ctx: ctx, f: f, kind: kind, r: r, events: newEvents()}
}

// Play is Events for audio and video, all of which passes where they are what they are said to be, from r's beginning to its end.
func (g *Gate) Play(ctx context.Context, f policy.Facts, kind string, m *media.Stream, r io.Reader) io.Reader {
	return &stream{g: g, ctx: ctx, f: f, kind: kind, r: r, media: m}
}

// Beginning is Events for the beginning of an object that is being taken in, of which a little goes to a client that waits
// for the rest: all of it passes. A piece passes only when it is clean by itself. Nothing is recorded: the object will be judged, and that is.
func (g *Gate) Beginning(ctx context.Context, f policy.Facts, r io.Reader) io.Reader {
	return &stream{g: g, ctx: ctx, f: f, r: r, beginning: true}
}

type stream struct {
	g    *Gate
	ctx  context.Context
	f    policy.Facts
	kind string
	r    io.Reader
	past []byte
	on   bool // past does not begin with the stream's beginning any more
	err  error

	beginning bool // of an object that is judged as a whole, too

	media *media.Stream // nil: it is neither audio nor video

	events *events // nil: it is no event stream
	ready  []byte  // passes, and was not given yet
	then   error   // comes behind it
	cut    []byte  // the bytes of a character whose end is still to come

	folded      []*unfolding
	unfoldingBy *state // what judges what comes out, while a piece is being judged
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.events != nil {
		return s.readEvents(p)
	}
	n, err := s.r.Read(p[:min(len(p), streamPiece)])
	if n == 0 {
		return 0, err
	}
	if stopped := s.next(p[:n], p[:n]); stopped != nil {
		clear(p[:n])
		return 0, stopped
	}
	return n, err
}

// readEvents is Read for an event stream.
func (s *stream) readEvents(p []byte) (int, error) {
	for len(s.ready) == 0 && len(p) > 0 {
		if s.err = s.then; s.err != nil {
			return 0, s.err
		}
		n, err := s.r.Read(s.events.buf)
		s.then = err
		if n == 0 {
			continue
		}
		piece := s.events.take(s.events.buf[:n])
		if stopped := s.next(s.events.buf[:n], piece); stopped != nil {
			return 0, stopped
		}
		s.ready = piece
	}
	n := copy(p, s.ready)
	s.ready = s.ready[n:]
	return n, nil
}

// next judges piece, which comes next and passes, of what came. An error is why it does not; it stays.
func (s *stream) next(came, piece []byte) error {
	s.past = append(s.past, piece...)
	if stopped := s.judge(came, piece); stopped != nil {
		s.err = stopped
		return stopped
	}
	if over := len(s.past) - streamOverlap; over > 0 {
		s.past, s.on = append(s.past[:0], s.past[over:]...), true
	}
	if s.events != nil {
		s.events.trim()
	}
	return nil
}

// isText says whether the stream is still text with piece, which comes next in it. An archive never is: windows of it would be
// judged, but not what it holds.
func (s *stream) isText(piece []byte) bool {
	b := slices.Concat(s.cut, piece)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		switch {
		case r == 0:
			return false
		case r == utf8.RuneError && size == 1:
			s.cut = b
			return !utf8.FullRune(b)
		}
		b = b[size:]
	}
	s.cut = nil
	return true
}

// judge decides about what is in past, of which piece is new; it is what passes of what came. Clean windows are not recorded one by one.
func (s *stream) judge(came, piece []byte) error {
	st := s.g.acquire()
	defer st.using.RUnlock()
	start := time.Now()
	ctx, cancel := context.WithTimeout(unpack.Together(s.ctx), s.g.cfg.Timeout.Std())
	defer cancel()
	v := scan.CleanVerdict()
	if len(piece) > 0 {
		v = s.verdict(ctx, st)
	}
	if s.events != nil && !s.isText(came) {
		v = v.Merge(scan.IncompleteVerdict(scan.Undecodable, "it is said to be an event stream, and is not text"))
	}
	if s.media != nil {
		if err := s.media.Next(piece); err != nil {
			v = v.Merge(scan.IncompleteVerdict(scan.Undecodable, "%v", err))
		}
	}
	if s.events != nil && len(piece) > 0 {
		v = v.Merge(s.unfold(st, piece))
	}
	if s.beginning {
		if v.Outcome == scan.Clean {
			return nil
		}
		return &Stopped{Notice: notice.Notice{Kind: kindOf(policy.Decision{}, v), Time: start, Facts: s.f, Verdict: v}}
	}
	d := st.policy.Decide(s.f, v)
	d.Quarantine = false // a window is no original
	if d.Action == policy.Pass {
		return nil
	}
	n := notice.Notice{
		Reference: notice.NewReference(), Kind: kindOf(d, v), Time: start, Facts: s.f, Decision: d, Verdict: v,
		Size: int64(len(s.past)), Degraded: st.degraded,
	}
	s.g.opt.Sink.Record(audit.Record{
		Time: start, Event: audit.Object, Kind: s.kind, Reference: n.Reference, Facts: s.f, Verdict: v, Decision: d, Size: n.Size,
		Scan: time.Since(start), Detail: "in a stream: " + v.Detail,
	})
	return &Stopped{Notice: n}
}

func (s *stream) verdict(ctx context.Context, st *state) (v scan.Verdict) {
	defer func() {
		if p := recover(); p != nil {
			v = scan.IncompleteVerdict(scan.EngineError, "the gate panicked: %v", p)
		}
	}()
	b, err := s.g.opt.Pool.Of(s.past)
	if err != nil {
		return intakeVerdict(err)
	}
	defer b.Close() // in memory, or unlinked: nothing is lost with it
	release, err := s.g.place(ctx, b.Size())
	if err != nil {
		return scan.FromError("waiting for a place among the scans", err)
	}
	defer release()
	o := &scan.Object{Body: b, Name: "stream", Type: s.f.Type}
	v = st.engines.Scan(ctx, o, scan.Whole)
	if v.Outcome == scan.Infected {
		return v
	}
	if !s.beginning {
		// What is inside counts where it is infected alone: that a window ends in the middle of something says nothing.
		if inside := s.g.unpacked(ctx, st, o, spot{}); inside.Outcome == scan.Infected {
			return v.Merge(inside)
		}
	}
	if !s.on && s.events != nil && unpack.Opens(b) {
		// A client that undoes what nobody has declared would read what no window shows.
		return v.Merge(scan.IncompleteVerdict(scan.Undecodable, "a stream that is compressed without saying so"))
	}
	if v = v.Merge(s.readings(ctx, st)); s.events == nil || v.Outcome == scan.Infected {
		return v
	}
	return v.Merge(s.inData(ctx, st))
}

// inData looks into what the data of events is in another encoding, as far as the window goes: an archive in base64 is an archive.
func (s *stream) inData(ctx context.Context, st *state) scan.Verdict {
	data := s.events.joined()
	if len(data) == 0 {
		return scan.CleanVerdict()
	}
	b, err := s.g.opt.Pool.Of(data)
	if err != nil {
		return intakeVerdict(err)
	}
	defer b.Close() // as above
	o := &scan.Object{Body: b, Name: "stream, data", Type: "text/plain", Piece: true}
	if v := s.g.readings(ctx, st, o, spot{}); v.Outcome == scan.Infected {
		return v // all else may be for the window's borders
	}
	return scan.CleanVerdict()
}

// readings asks the engines about what else a client could read in the window: all readings at once, there is little to say
// about where they came from.
func (s *stream) readings(ctx context.Context, st *state) scan.Verdict {
	all := content.Fragments(s.past)
	if s.events != nil {
		for _, text := range s.events.texts(s.past) {
			all = append(append(append(all, text...), '\n'), content.Fragments(text)...)
		}
	}
	if len(all) == 0 {
		return scan.CleanVerdict()
	}
	b, err := s.g.opt.Pool.Of(all)
	if err != nil {
		return intakeVerdict(err)
	}
	defer b.Close() // as above
	return st.engines.Scan(ctx, &scan.Object{Body: b, Name: "stream, decoded"}, scan.Whole)
}
