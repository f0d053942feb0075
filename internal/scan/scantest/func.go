package scantest

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"

	"lazaret/internal/scan"
)

// Func is a scan.Scanner made from a function, for tests of what uses scanners. It is a scan.Unpacker, a scan.Versioner
// and a scan.Closer too. It is used by pointer.
type Func struct {
	// Engine is what Name returns; empty: "test".
	Engine string
	// Judge is called by Scan; nil: every object is Clean.
	Judge func(ctx context.Context, o *scan.Object) (scan.Verdict, error)
	// Opens is what Unpacks returns.
	Opens bool
	// OnClose is called by Close; nil: nothing is.
	OnClose func() error

	version atomic.Pointer[scan.Version]
	calls   atomic.Int64
	closes  atomic.Int64
}

// Name implements scan.Scanner.
func (f *Func) Name() string {
	if f.Engine == "" {
		return "test"
	}
	return f.Engine
}

// Scan implements scan.Scanner by Judge.
func (f *Func) Scan(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
	f.calls.Add(1)
	if f.Judge == nil {
		return scan.CleanVerdict(), nil
	}
	return f.Judge(ctx, o)
}

// Calls returns how often Scan was called.
func (f *Func) Calls() int { return int(f.calls.Load()) }

// Unpacks implements scan.Unpacker.
func (f *Func) Unpacks() bool { return f.Opens }

// SetVersion makes v the version from now on, and returns f.
func (f *Func) SetVersion(v scan.Version) *Func {
	f.version.Store(&v)
	return f
}

// Version implements scan.Versioner; ok is false until SetVersion was called.
func (f *Func) Version() (scan.Version, bool) {
	if v := f.version.Load(); v != nil {
		return *v, true
	}
	return scan.Version{}, false
}

// Close implements scan.Closer by OnClose.
func (f *Func) Close() error {
	f.closes.Add(1)
	if f.OnClose == nil {
		return nil
	}
	return f.OnClose()
}

// Closed returns how often Close was called.
func (f *Func) Closed() int { return int(f.closes.Load()) }

// Finds returns a scanner that reports every object which contains pattern, under the given signature name, and clears
// all others. It reads the object through, decodes nothing, and knows its version ("test 1", signatures "1").
func Finds(engine, signature string, pattern []byte) *Func {
	f := &Func{Engine: engine}
	f.Judge = func(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
		found, err := contains(ctx, o.Body.NewReader(), pattern)
		switch {
		case err != nil:
			return scan.Verdict{}, err
		case found:
			return scan.InfectedVerdict(f.Name(), signature, o.Path), nil
		}
		return scan.CleanVerdict(), nil
	}
	return f.SetVersion(scan.Version{Engine: "test 1", Signatures: "1"})
}

// FindsEICAR returns a scanner called "test" that reports the EICAR test file, anywhere in an object, as
// "Eicar-Test-Signature".
func FindsEICAR() *Func { return Finds("test", "Eicar-Test-Signature", scan.EICAR()) }

// Always returns a scanner called "test" that says v of every object.
func Always(v scan.Verdict) *Func {
	return &Func{Judge: func(context.Context, *scan.Object) (scan.Verdict, error) { return v, nil }}
}

// Fails returns a scanner called "test" whose every scan returns err.
func Fails(err error) *Func {
	return &Func{Judge: func(context.Context, *scan.Object) (scan.Verdict, error) { return scan.Verdict{}, err }}
}

// Stalls returns a scanner called "test" that answers nothing until the context ends.
func Stalls() *Func {
	return &Func{Judge: func(ctx context.Context, _ *scan.Object) (scan.Verdict, error) {
		<-ctx.Done()
		return scan.Verdict{}, ctx.Err()
	}}
}

// Panics returns a scanner called "test" whose every scan panics with value.
func Panics(value any) *Func {
	return &Func{Judge: func(context.Context, *scan.Object) (scan.Verdict, error) { panic(value) }}
}

// contains says whether pattern occurs in what r gives until EOF.
func contains(ctx context.Context, r io.Reader, pattern []byte) (bool, error) {
	buf := make([]byte, 0, 64<<10+len(pattern))
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if bytes.Contains(buf, pattern) {
			return true, nil
		}
		if keep := len(pattern) - 1; len(buf) > keep {
			buf = buf[:copy(buf, buf[len(buf)-keep:])]
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}
