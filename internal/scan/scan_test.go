package scan

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lazaret/internal/spool"
)

// fake is a scanner made of a function.
type fake struct {
	name    string
	unpacks bool
	scan    func(ctx context.Context, o *Object) (Verdict, error)
}

func (f fake) Name() string                                         { return f.name }
func (f fake) Unpacks() bool                                        { return f.unpacks }
func (f fake) Scan(ctx context.Context, o *Object) (Verdict, error) { return f.scan(ctx, o) }

func says(v Verdict) fake {
	return fake{name: "fake", scan: func(context.Context, *Object) (Verdict, error) { return v, nil }}
}

func object(t *testing.T, body string) *Object {
	t.Helper()
	cfg := spool.Default()
	cfg.Dir, cfg.MinFree = t.TempDir(), 0
	p, err := spool.NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Of([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return &Object{Body: b, Name: "test"}
}

func TestZeroValuesRefuse(t *testing.T) {
	var v Verdict
	if v.Outcome == Clean || v.Merge(CleanVerdict()).Outcome == Clean || CleanVerdict().Merge(v).Outcome == Clean {
		t.Error("an unset verdict became clean")
	}
	if v := NewSet().Scan(context.Background(), object(t, "x"), Whole); v.Outcome != Incomplete || v.Reason != Unavailable {
		t.Errorf("an empty set said %+v", v)
	}
	if v := NewSet().Scan(context.Background(), object(t, "x"), Inner); v.Outcome != Incomplete {
		t.Errorf("an empty set said %+v of a member", v)
	}
	if got := Outcome(77).String(); got != "unscanned" {
		t.Errorf("an unknown outcome is called %q", got)
	}
}

func TestMergeRank(t *testing.T) {
	inc := IncompleteVerdict(Timeout, "slow")
	inf := InfectedVerdict("e", "s", "")
	for _, c := range []struct{ a, b, want Verdict }{
		{CleanVerdict(), CleanVerdict(), CleanVerdict()},
		{CleanVerdict(), inc, inc},
		{inc, CleanVerdict(), inc},
		{inc, inf, inf},
		{inf, inc, inf},
		{inf, Verdict{}, inf},
		{Verdict{}, inc, inc},
		{Verdict{}, Verdict{}, Verdict{}},
	} {
		if got := c.a.Merge(c.b); got.Outcome != c.want.Outcome || got.Reason != c.want.Reason {
			t.Errorf("%v + %v = %v, want %v", c.a.Outcome, c.b.Outcome, got.Outcome, c.want.Outcome)
		}
	}
	if both := inf.Merge(InfectedVerdict("f", "t", "")); len(both.Findings) != 2 || len(inf.Findings) != 1 {
		t.Errorf("merged findings: %v, the first one's: %v", both.Findings, inf.Findings)
	}
}

func TestAskNeverSaysCleanWithoutTheScanner(t *testing.T) {
	for _, c := range []struct {
		name string
		scan func(ctx context.Context, o *Object) (Verdict, error)
		want Reason
	}{
		{"error", func(context.Context, *Object) (Verdict, error) { return CleanVerdict(), errors.New("broken pipe") }, EngineError},
		{"error with a reason", func(context.Context, *Object) (Verdict, error) {
			return Verdict{}, &Error{Reason: TooLarge, Err: errors.New("size limit")}
		}, TooLarge},
		{"panic", func(context.Context, *Object) (Verdict, error) { panic("bug") }, EngineError},
		{"no verdict", func(context.Context, *Object) (Verdict, error) { return Verdict{}, nil }, Unknown},
		{"unknown outcome", func(context.Context, *Object) (Verdict, error) { return Verdict{Outcome: 9}, nil }, Unknown},
		{"incomplete without a reason", func(context.Context, *Object) (Verdict, error) { return Verdict{Outcome: Incomplete}, nil }, EngineError},
		{"i/o deadline", func(context.Context, *Object) (Verdict, error) { return Verdict{}, os.ErrDeadlineExceeded }, Timeout},
		{"cancelled", func(context.Context, *Object) (Verdict, error) { return Verdict{}, context.Canceled }, Cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Ask(context.Background(), fake{name: "fake", scan: c.scan}, object(t, "x"))
			if v.Outcome != Incomplete || v.Reason != c.want || v.Detail == "" && c.name != "incomplete without a reason" {
				t.Errorf("got %+v, want incomplete, %s", v, c.want)
			}
		})
	}
	if v := Ask(context.Background(), says(CleanVerdict()), &Object{}); v.Outcome != Incomplete {
		t.Errorf("an object without a body is %v", v.Outcome)
	}
}

func TestAskLeavesAScannerThatIgnoresItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := object(t, "x")
		release := make(chan struct{})
		stuck := fake{name: "stuck", scan: func(context.Context, *Object) (Verdict, error) { <-release; return CleanVerdict(), nil }}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if v := Ask(ctx, stuck, o); v.Outcome != Incomplete || v.Reason != Timeout {
			t.Errorf("got %+v", v)
		}
		if n := stray.Load(); n != 1 {
			t.Errorf("%d scans are counted as stray, want 1", n)
		}
		close(release)
		synctest.Wait()
		if n := stray.Load(); n != 0 {
			t.Errorf("%d scans are counted as stray after their end", n)
		}
	})
}

func TestStrayScansAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := object(t, "x")
		release := make(chan struct{})
		var started atomic.Int64
		stuck := fake{name: "stuck", scan: func(context.Context, *Object) (Verdict, error) {
			started.Add(1)
			<-release
			return CleanVerdict(), nil
		}}
		for range maxStray + 10 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			if v := Ask(ctx, stuck, o); v.Outcome != Incomplete || v.Reason != Timeout {
				t.Fatalf("got %+v", v)
			}
			cancel()
		}
		if started.Load() != maxStray {
			t.Errorf("%d scans were started, want %d", started.Load(), maxStray)
		}
		close(release)
		synctest.Wait()
	})
}

func TestSetAsksEveryRequiredEngine(t *testing.T) {
	clean, inf, inc := says(CleanVerdict()), says(InfectedVerdict("fake", "Eicar", "")), says(IncompleteVerdict(Timeout, "slow"))
	m := func(s Scanner, required bool) Member { return Member{Scanner: s, Required: required} }
	for _, c := range []struct {
		name string
		set  []Member
		want Outcome
	}{
		{"one clean", []Member{m(clean, true)}, Clean},
		{"required fails", []Member{m(clean, true), m(inc, true)}, Incomplete},
		{"optional fails", []Member{m(clean, true), m(inc, false)}, Clean},
		{"required fails, optional clean", []Member{m(inc, true), m(clean, false)}, Incomplete},
		{"optional finds", []Member{m(clean, true), m(inf, false)}, Infected},
		{"found in spite of a failure", []Member{m(inc, true), m(inf, true)}, Infected},
		{"none required, one clean", []Member{m(inc, false), m(clean, false)}, Clean},
		{"none required, all fail", []Member{m(inc, false), m(inc, false)}, Incomplete},
	} {
		t.Run(c.name, func(t *testing.T) {
			if v := NewSet(c.set...).Scan(context.Background(), object(t, "x"), Whole); v.Outcome != c.want {
				t.Errorf("got %+v, want %v", v, c.want)
			}
		})
	}
}

func TestMembersGoToEnginesThatDoNotUnpack(t *testing.T) {
	inf := says(InfectedVerdict("fake", "Eicar", ""))
	unpacker := inf
	unpacker.unpacks = true
	if v := NewSet(Member{Scanner: unpacker, Required: true}).Scan(context.Background(), object(t, "x"), Inner); v.Outcome != Clean {
		t.Errorf("an engine that unpacks by itself was asked about a member: %+v", v)
	}
	if v := NewSet(Member{Scanner: unpacker}, Member{Scanner: inf}).Scan(context.Background(), object(t, "x"), Inner); v.Outcome != Infected {
		t.Errorf("got %+v", v)
	}
}

func TestProve(t *testing.T) {
	eicar := string(EICAR())
	if len(eicar) != 68 || !strings.HasPrefix(eicar, "X5O!P%") {
		t.Fatalf("EICAR has %d bytes", len(eicar))
	}
	cfg := spool.Default()
	cfg.Dir, cfg.MinFree = t.TempDir(), 0
	pool, err := spool.NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	good := fake{name: "good", scan: func(_ context.Context, o *Object) (Verdict, error) {
		if b, _ := o.Body.Bytes(); string(b) == eicar {
			return InfectedVerdict("good", "Eicar", ""), nil
		}
		return CleanVerdict(), nil
	}}
	if err := Prove(context.Background(), pool, good); err != nil {
		t.Error(err)
	}
	for _, bad := range []fake{says(CleanVerdict()), says(InfectedVerdict("fake", "All", "")), says(IncompleteVerdict(EngineError, "no database"))} {
		if err := Prove(context.Background(), pool, bad); err == nil {
			t.Error("a useless scanner proved itself")
		}
	}
}

// punctual is a fake that is waited for.
type punctual struct{ fake }

func (punctual) Punctual() bool { return true }

func TestPunctualScannersAreAskedWithoutAGoroutine(t *testing.T) {
	o := object(t, "x")
	v := Ask(t.Context(), punctual{fake{name: "panicking", scan: func(context.Context, *Object) (Verdict, error) { panic("at work") }}}, o)
	if v.Outcome != Incomplete || v.Reason != EngineError || !strings.Contains(v.Detail, "at work") {
		t.Errorf("a panic: %+v", v)
	}
	v = Ask(t.Context(), punctual{fake{name: "silent", scan: func(context.Context, *Object) (Verdict, error) { return Verdict{}, nil }}}, o)
	if v.Outcome != Incomplete || v.Reason != Unknown {
		t.Errorf("no verdict: %+v", v)
	}
	ctx, cancel := context.WithCancel(t.Context())
	v = Ask(ctx, punctual{fake{name: "waiting", scan: func(ctx context.Context, _ *Object) (Verdict, error) {
		cancel()
		<-ctx.Done()
		return CleanVerdict(), ctx.Err()
	}}}, o)
	if v.Outcome != Incomplete || v.Reason != Cancelled {
		t.Errorf("one whose context ended: %+v", v)
	}
	before, during := runtime.NumGoroutine(), 0
	v = Ask(t.Context(), punctual{fake{name: "counting", scan: func(context.Context, *Object) (Verdict, error) {
		during = runtime.NumGoroutine()
		return CleanVerdict(), nil
	}}}, o)
	if v.Outcome != Clean || during > before {
		t.Errorf("%+v with %d goroutines, %d before", v, during, before)
	}
}
