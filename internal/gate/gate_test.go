package gate

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/content"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/spool"
	"lazaret/internal/units"
	"lazaret/internal/unpack"
)

// engine finds EICAR anywhere in the bytes that it is given, and does as it is told.
type engine struct {
	name    string
	unpacks bool
	version atomic.Int64
	scans   atomic.Int64
	closed  atomic.Bool
	before  func(ctx context.Context) error
}

func (e *engine) Name() string  { return e.name }
func (e *engine) Unpacks() bool { return e.unpacks }
func (e *engine) Close() error  { e.closed.Store(true); return nil }
func (e *engine) Version() (scan.Version, bool) {
	return scan.Version{Engine: e.name, Signatures: fmt.Sprint(e.version.Load())}, true
}

func (e *engine) Scan(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
	e.scans.Add(1)
	if e.before != nil {
		if err := e.before(ctx); err != nil {
			return scan.Verdict{}, err
		}
	}
	b, err := io.ReadAll(o.Body.NewReader())
	if err != nil {
		return scan.Verdict{}, err
	}
	if bytes.Contains(b, scan.EICAR()) {
		return scan.InfectedVerdict(e.name, "Eicar-Test-Signature", o.Path), nil
	}
	return scan.CleanVerdict(), nil
}

type sink struct {
	mu      sync.Mutex
	records []audit.Record
}

func (s *sink) Record(r audit.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, r)
}

type fixture struct {
	*Gate
	pool   *spool.Pool
	sink   *sink
	engine *engine
}

func newFixture(t *testing.T, change func(*Config, *spool.Config)) *fixture {
	t.Helper()
	cfg, sc := Default(), spool.Default()
	sc.Dir, sc.MinFree = t.TempDir(), 0
	if change != nil {
		change(&cfg, &sc)
	}
	pool, err := spool.NewPool(sc)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{pool: pool, sink: &sink{}, engine: &engine{name: "test"}}
	f.Gate = New(cfg, Options{Pool: pool, Limits: unpack.Default(), Content: content.Default(), Sink: f.sink, Log: slog.New(slog.DiscardHandler)})
	f.Use(scan.NewSet(scan.Member{Scanner: f.engine, Required: true}), policy.Default(), false)
	t.Cleanup(func() {
		f.Close()
		// An engine that was given up holds its object until it returns.
		for range 300 {
			if pool.Usage() == (spool.Usage{}) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("the spool still holds %+v", pool.Usage())
	})
	return f
}

// pass takes r in and judges it, and returns what would be delivered.
func (f *fixture) pass(t *testing.T, r io.Reader, in Intake) (policy.Decision, notice.Notice, []byte) {
	t.Helper()
	o, err := f.Take(r, in)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBody(o)
	d, n := f.Judge(context.Background(), policy.Facts{Protocol: "test"}, o)
	var body []byte
	if o.Body != nil {
		if body, err = io.ReadAll(o.Body.NewReader()); err != nil {
			t.Fatal(err)
		}
	}
	return d, n, body
}

func zipped(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, body := range files {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestJudge(t *testing.T) {
	plain := []byte("just a text\n")
	for _, c := range []struct {
		name   string
		body   []byte
		in     Intake
		action policy.Action
		kind   notice.Kind
		reason scan.Reason
		path   string
	}{
		{name: "clean", body: plain, action: policy.Pass},
		{name: "empty", body: nil, action: policy.Pass},
		{name: "eicar", body: scan.EICAR(), kind: notice.Infected},
		{name: "eicar gzip-encoded", body: gzipped(t, scan.EICAR()), in: Intake{Encodings: []string{"gzip"}}, kind: notice.Infected},
		{name: "eicar in a zip", body: zipped(t, map[string][]byte{"e.com": scan.EICAR()}), in: Intake{Name: "a.zip"}, kind: notice.Infected, path: "e.com"},
		{
			name: "eicar in a zip in a zip", body: zipped(t, map[string][]byte{"b.zip": zipped(t, map[string][]byte{"e.com": scan.EICAR()})}),
			in: Intake{Name: "a.zip"}, kind: notice.Infected, path: "e.com",
		},
		{name: "clean zip", body: zipped(t, map[string][]byte{"a.txt": plain}), action: policy.Pass},
		{name: "cut gzip coding", body: gzipped(t, bytes.Repeat(plain, 100))[:30], in: Intake{Encodings: []string{"gzip"}}, kind: notice.NotScanned, reason: scan.Undecodable},
		{name: "unknown coding", body: plain, in: Intake{Encodings: []string{"rot13"}}, kind: notice.NotScanned, reason: scan.Undecodable},
		{name: "too large", body: plain, in: Intake{Limit: 3}, kind: notice.NotScanned, reason: scan.TooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, nil)
			d, n, _ := f.pass(t, bytes.NewReader(c.body), c.in)
			if d.Action != c.action || n.Verdict.Reason != c.reason || c.action != policy.Pass && n.Kind != c.kind {
				t.Errorf("got %v, %s, %+v", d, n.Kind, n.Verdict)
			}
			if c.path != "" && (len(n.Verdict.Findings) == 0 || !strings.Contains(n.Verdict.Findings[0].Path, c.path)) {
				t.Errorf("findings %+v do not name %s", n.Verdict.Findings, c.path)
			}
			if len(f.sink.records) != 1 || f.sink.records[0].Reference != n.Reference || n.Reference == "" {
				t.Errorf("records: %+v", f.sink.records)
			}
		})
	}
}

func TestWhatIsDeliveredIsWhatWasScanned(t *testing.T) {
	f := newFixture(t, nil)
	want := bytes.Repeat([]byte("decoded "), 100_000)
	d, _, got := f.pass(t, bytes.NewReader(gzipped(t, want)), Intake{Encodings: []string{"gzip"}})
	if d.Action != policy.Pass || !bytes.Equal(got, want) {
		t.Errorf("%v, %d bytes, want %d", d, len(got), len(want))
	}
}

func TestSenderBreaksOff(t *testing.T) {
	f := newFixture(t, nil)
	broken := errors.New("connection reset")
	for _, enc := range [][]string{nil, {"gzip"}} {
		r := io.MultiReader(bytes.NewReader(gzipped(t, []byte("text"))[:5]), iotest.ErrReader(broken))
		if o, err := f.Take(r, Intake{Encodings: enc}); !errors.Is(err, broken) || o != nil {
			t.Errorf("%v: got %v, %v", enc, o, err)
		}
	}
}

func TestFaultsNeverPass(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(ctx context.Context) error
		reason scan.Reason
	}{
		{"engine errs", func(context.Context) error { return errors.New("gone") }, scan.EngineError},
		{"engine panics", func(context.Context) error { panic("bug") }, scan.EngineError},
		{"engine stalls", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, scan.Timeout},
		{"engine ignores its deadline", func(context.Context) error { time.Sleep(time.Second); return nil }, scan.Timeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, func(c *Config, _ *spool.Config) { c.Timeout = units.Duration(100 * time.Millisecond) })
			f.engine.before = c.before
			d, n, _ := f.pass(t, strings.NewReader("clean"), Intake{})
			if d.Action == policy.Pass || n.Verdict.Outcome != scan.Incomplete || n.Verdict.Reason != c.reason || n.Kind != notice.Unavailable {
				t.Errorf("got %v, %+v", d, n)
			}
		})
	}
	t.Run("no engine", func(t *testing.T) {
		f := newFixture(t, nil)
		f.Use(scan.NewSet(), policy.Default(), false)
		for _, body := range []string{"text", ""} {
			if d, n, _ := f.pass(t, strings.NewReader(body), Intake{}); d.Action == policy.Pass || n.Verdict.Reason != scan.Unavailable {
				t.Errorf("%q: got %v, %+v", body, d, n.Verdict)
			}
		}
	})
	t.Run("full spool", func(t *testing.T) {
		f := newFixture(t, func(_ *Config, s *spool.Config) { s.MinFree = 1 << 60 })
		if d, n, _ := f.pass(t, bytes.NewReader(make([]byte, 1<<20)), Intake{}); d.Action == policy.Pass || n.Verdict.Reason != scan.SpoolFull {
			t.Errorf("got %v, %+v", d, n.Verdict)
		}
	})
	t.Run("objects without a body", func(t *testing.T) {
		f := newFixture(t, nil)
		for _, o := range []*scan.Object{{}, {Known: scan.CleanVerdict()}} {
			if d, _ := f.Judge(context.Background(), policy.Facts{}, o); d.Action == policy.Pass {
				t.Errorf("%+v passed", o)
			}
		}
	})
}

func TestVerdictsAreRemembered(t *testing.T) {
	f := newFixture(t, nil)
	judge := func(body string, wantScans int64, wantCached bool) {
		t.Helper()
		f.sink.records = nil
		f.pass(t, strings.NewReader(body), Intake{})
		if n := f.engine.scans.Load(); n != wantScans || f.sink.records[0].Cached != wantCached {
			t.Errorf("%q: %d scans, cached %v; want %d, %v", body, n, f.sink.records[0].Cached, wantScans, wantCached)
		}
	}
	judge("a", 1, false)
	judge("a", 1, true)
	judge("b", 2, false)
	f.engine.version.Add(1) // new signatures
	judge("a", 3, false)
	f.engine.before = func(context.Context) error { return errors.New("gone") }
	judge("c", 4, false)
	f.engine.before = nil
	judge("c", 5, false) // an incomplete verdict is not remembered

	off := newFixture(t, func(c *Config, _ *spool.Config) { c.Cache = false })
	for range 2 {
		off.pass(t, strings.NewReader("a"), Intake{})
	}
	if n := off.engine.scans.Load(); n != 2 {
		t.Errorf("without a cache: %d scans, want 2", n)
	}
}

func TestIdenticalObjectsAreScannedOnce(t *testing.T) {
	f := newFixture(t, nil)
	entered, release := make(chan struct{}, 20), make(chan struct{})
	f.engine.before = func(context.Context) error { entered <- struct{}{}; <-release; return nil }
	var wg sync.WaitGroup
	var passed atomic.Int64
	for range 20 {
		wg.Go(func() {
			if d, _, _ := f.pass(t, strings.NewReader("same"), Intake{}); d.Action == policy.Pass {
				passed.Add(1)
			}
		})
	}
	<-entered
	close(release)
	wg.Wait()
	if f.engine.scans.Load() != 1 || passed.Load() != 20 {
		t.Errorf("%d scans, %d passed", f.engine.scans.Load(), passed.Load())
	}
}

func TestScanIsSharedAgainWhenTheFirstClientLeaves(t *testing.T) {
	f := newFixture(t, nil)
	entered, release := make(chan struct{}, 20), make(chan struct{})
	f.engine.before = func(ctx context.Context) error {
		entered <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	ctx, leave := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var passed atomic.Int64
	judge := func(ctx context.Context) {
		o, err := f.Take(strings.NewReader("same"), Intake{})
		if err != nil {
			t.Error(err)
			return
		}
		defer closeBody(o)
		if d, _ := f.Judge(ctx, policy.Facts{}, o); d.Action == policy.Pass {
			passed.Add(1)
		}
	}
	wg.Go(func() { judge(ctx) })
	<-entered
	for range 10 {
		wg.Go(func() { judge(context.Background()) })
	}
	time.Sleep(20 * time.Millisecond) // those that come too late for the first share the second as well
	leave()
	<-entered
	close(release)
	wg.Wait()
	if f.engine.scans.Load() != 2 || passed.Load() != 10 {
		t.Errorf("%d scans, %d passed; want 2 and 10", f.engine.scans.Load(), passed.Load())
	}
}

func TestStreamIsJudgedPieceByPiece(t *testing.T) {
	f := newFixture(t, nil)
	pr, pw := io.Pipe()
	r := f.Events(context.Background(), policy.Facts{}, "event-stream", pr)
	buf := make([]byte, 1000)
	next := func(piece string) (string, error) {
		go func() { _, _ = pw.Write([]byte(piece)) }() // the reader may stop before
		n, err := r.Read(buf)
		return string(buf[:n]), err
	}
	if got, err := next("data: one\n\n"); got != "data: one\n\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	eicar := string(scan.EICAR())
	if got, err := next("data: " + eicar[:30]); got != "data: "+eicar[:30] || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	got, err := next(eicar[30:]) // a signature across two pieces
	var stopped *Stopped
	if got != "" || !errors.As(err, &stopped) || stopped.Notice.Verdict.Outcome != scan.Infected {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := r.Read(buf); !errors.As(err, &stopped) {
		t.Errorf("after its end: %v", err)
	}
	if len(f.sink.records) != 1 || f.sink.records[0].Reference != stopped.Notice.Reference {
		t.Errorf("records %+v", f.sink.records)
	}
	f.engine.before = func(context.Context) error { return errors.New("gone") }
	if n, err := f.Events(context.Background(), policy.Facts{}, "event-stream", strings.NewReader("data: x")).Read(buf); n != 0 || !errors.As(err, &stopped) {
		t.Errorf("with a dead engine came %d bytes, %v", n, err)
	}
}

func TestReloadEndsNoJudgement(t *testing.T) {
	f := newFixture(t, nil)
	old := f.engine
	entered, release := make(chan struct{}), make(chan struct{})
	old.before = func(context.Context) error { close(entered); <-release; return nil }
	done := make(chan policy.Decision)
	go func() {
		d, _, _ := f.pass(t, strings.NewReader("slow"), Intake{})
		done <- d
	}()
	<-entered
	next := &engine{name: "next"}
	f.Use(scan.NewSet(scan.Member{Scanner: next, Required: true}), policy.Default(), true)
	if d, n, _ := f.pass(t, strings.NewReader("other"), Intake{}); d.Action != policy.Pass || !n.Degraded || next.scans.Load() != 1 {
		t.Errorf("the new engine did not judge: %v, %+v", d, n)
	}
	if old.closed.Load() {
		t.Error("the old engine was closed under a judgement")
	}
	close(release)
	if d := <-done; d.Action != policy.Pass {
		t.Errorf("the judgement under way came to %v", d)
	}
	for !old.closed.Load() {
		time.Sleep(time.Millisecond)
	}
}

// TestNoticesSayOfWhenTheSignaturesAre: the oldest of all engines, and only where somebody is told.
func TestNoticesSayOfWhenTheSignaturesAre(t *testing.T) {
	older, newer := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	bad := &scantest.Func{Judge: func(context.Context, *scan.Object) (scan.Verdict, error) {
		return scan.InfectedVerdict("test", "x", ""), nil
	}}
	g := newFixture(t, nil)
	g.Use(scan.NewSet(
		scan.Member{Scanner: bad.SetVersion(scan.Version{Engine: "a", Updated: newer})},
		scan.Member{Scanner: (&scantest.Func{Engine: "b"}).SetVersion(scan.Version{Engine: "b", Updated: older})},
		scan.Member{Scanner: (&scantest.Func{Engine: "c"}).SetVersion(scan.Version{Engine: "c"})},
	), policy.Default(), false)
	o, err := g.Take(strings.NewReader("x"), Intake{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Body.Close()
	if _, n := g.Judge(context.Background(), policy.Facts{}, o); !n.Signatures.Equal(older) {
		t.Errorf("%v, want %v", n.Signatures, older)
	}
}
