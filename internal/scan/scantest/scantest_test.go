package scantest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"lazaret/internal/scan"
)

// TestSuiteAcceptsAnHonestScanner runs the suite over a fake engine in this process, which shows each fault as a scanner
// would report it.
func TestSuiteAcceptsAnHonestScanner(t *testing.T) {
	Run(t, Harness{
		New:    func(*testing.T) scan.Scanner { return noClose{FindsEICAR()} },
		Large:  3 << 20,
		Faulty: fake,
	})
}

// noClose hides Close, because the fake has nothing that a close could end.
type noClose struct{ scan.Scanner }

func fake(_ *testing.T, f Fault) *Faulty {
	var met atomic.Int64
	var healed atomic.Bool
	good := FindsEICAR()
	s := &Func{}
	s.Judge = func(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
		if healed.Load() {
			return good.Judge(ctx, o)
		}
		met.Add(1)
		switch f {
		case Fragmented, LostAfter, Restart:
			return good.Judge(ctx, o)
		case Absent, LostBefore, LostWithin:
			return scan.Verdict{}, &scan.Error{Reason: scan.Unavailable, Err: errors.New("lost")}
		case Garbage, UnknownReply, OverLong:
			return scan.Verdict{}, &scan.Error{Reason: scan.Unknown, Err: errors.New("what?")}
		case Stall:
			<-ctx.Done()
			return scan.Verdict{}, ctx.Err()
		case SizeLimit:
			return scan.IncompleteVerdict(scan.TooLarge, "too large"), nil
		}
		return scan.Verdict{}, errors.New("failed")
	}
	return &Faulty{Scanner: s, Met: func() int { return int(met.Load()) }, Heal: func() { healed.Store(true) }}
}

func TestFakes(t *testing.T) {
	p := Pool(t)
	eicar, text := Object(t, p, append(Text(200_000), scan.EICAR()...)), Object(t, p, Text(200_000))
	short, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name   string
		s      scan.Scanner
		o      *scan.Object
		ctx    context.Context
		want   scan.Outcome
		reason scan.Reason
	}{
		{"finds", FindsEICAR(), eicar, t.Context(), scan.Infected, ""},
		{"finds nothing", FindsEICAR(), text, t.Context(), scan.Clean, ""},
		{"zero", &Func{}, text, t.Context(), scan.Clean, ""},
		{"always", Always(scan.IncompleteVerdict(scan.Encrypted, "x")), text, t.Context(), scan.Incomplete, scan.Encrypted},
		{"fails", Fails(errors.New("x")), text, t.Context(), scan.Incomplete, scan.EngineError},
		{"panics", Panics("x"), text, t.Context(), scan.Incomplete, scan.EngineError},
		{"stalls", Stalls(), text, short, scan.Incomplete, scan.Cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := scan.Ask(c.ctx, c.s, c.o)
			if v.Outcome != c.want || v.Reason != c.reason {
				t.Errorf("got %s", describe(v))
			}
		})
	}
	f := FindsEICAR()
	if v, ok := f.Version(); !ok || v.Signatures != "1" {
		t.Errorf("Version: %+v, %v", v, ok)
	}
	if _, ok := new(Func).Version(); ok {
		t.Error("a version that nobody set is known")
	}
	scan.Ask(t.Context(), f, text)
	if err := f.Close(); err != nil || f.Calls() != 1 || f.Closed() != 1 {
		t.Errorf("Close: %v, %d calls, %d closes", err, f.Calls(), f.Closed())
	}
}

// TestFindsAcrossBufferEdges puts the pattern at every place around the fake's buffer size.
func TestFindsAcrossBufferEdges(t *testing.T) {
	p := Pool(t)
	e := scan.EICAR()
	for at := 64<<10 - len(e) - 2; at < 64<<10+len(e)+2; at++ {
		o := Object(t, p, append(Text(at), e...))
		if v := scan.Ask(t.Context(), FindsEICAR(), o); v.Outcome != scan.Infected {
			t.Fatalf("at %d: %s", at, describe(v))
		}
	}
}
