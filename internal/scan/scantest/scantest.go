// Package scantest is what every scanner driver has to pass, and the fakes that tests of a scanner's users need.
//
// Run is the conformance suite. It is given a Harness, which makes scanners whose engine works, and scanners whose engine
// shows a given Fault; the suite asks them and looks at the verdicts: never Clean where nobody looked, the right Reason,
// the end of a context honoured, nothing left behind, and the next scan works again.
package scantest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/spool"

	"go.uber.org/goleak"
)

// patience is how long the suite waits for what has to happen soon. It is an upper bound for a loaded machine: nothing is
// asserted about times below it.
const patience = 30 * time.Second

// Harness connects the suite with one driver.
type Harness struct {
	// New returns a scanner whose engine works. The suite closes it, if it is a scan.Closer.
	New func(t *testing.T) scan.Scanner
	// Large is the size, in bytes, of text before EICAR in which the engine still finds it; zero: it only finds the bare
	// test file.
	Large int
	// Faulty returns a scanner whose engine shows f at every scan until it is healed, or nil where the driver's engine
	// cannot have that fault. Every engine can stall, but one that is InProcess.
	Faulty func(t *testing.T, f Fault) *Faulty
	// InProcess says that the engine is code of the driver, with nobody to wait for. That it stops in the midst of its work
	// when its context ends is then for the driver's own tests to show.
	InProcess bool
}

// Faulty is a scanner whose engine is at fault.
type Faulty struct {
	Scanner scan.Scanner
	// Met returns how many times the engine showed the fault: a test of a fault that never happened tests nothing.
	Met func() int
	// Heal makes the engine work from now on.
	Heal func()
}

// Run runs the whole suite as subtests of t.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"small EICAR in memory is found", small},
		{"EICAR at the end of a large file is found", large},
		{"clean is said clean", clean},
		{"an empty object has a verdict", empty},
		{"objects stay as they were", unchanged},
		{"many at once", concurrent},
		{"an ended context is honoured", ended},
		{"the engine proves itself", proves},
		{"closing twice is harmless", closing},
	} {
		t.Run(c.name, func(t *testing.T) {
			leakFree(t)
			c.run(t, h)
		})
	}
	for _, f := range Faults() {
		t.Run("fault/"+f.String(), func(t *testing.T) {
			leakFree(t)
			faulty(t, h, f)
		})
	}
	t.Run("the deadline is honoured", func(t *testing.T) {
		leakFree(t)
		stalled(t, h, context.DeadlineExceeded, scan.Timeout)
	})
	t.Run("cancellation is honoured", func(t *testing.T) {
		leakFree(t)
		stalled(t, h, context.Canceled, scan.Cancelled)
	})
}

// leakFree has the test fail when it ends with more goroutines than it began with.
func leakFree(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if err := goleak.Find(before); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
}

// closed registers the end of s. It runs before leakFree's look, because clean-ups run last in, first out.
func closed(t *testing.T, s scan.Scanner) scan.Scanner {
	t.Helper()
	t.Cleanup(func() {
		if c, ok := s.(scan.Closer); ok {
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	})
	return s
}

// judge asks s about content and returns the verdict, after a look at whether the object is still what it was.
func judge(t *testing.T, s scan.Scanner, p *spool.Pool, content []byte) scan.Verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o := Object(t, p, content)
	v := scan.Ask(ctx, s, o)
	CheckUnchanged(t, o)
	if v.Outcome == scan.Incomplete && !slices.Contains(scan.Reasons(), v.Reason) {
		t.Errorf("Incomplete with the reason %q, which is none of scan.Reasons", v.Reason)
	}
	return v
}

func wantInfected(t *testing.T, s scan.Scanner, v scan.Verdict) {
	t.Helper()
	if v.Outcome != scan.Infected {
		t.Errorf("EICAR is %s", describe(v))
		return
	}
	if len(v.Findings) == 0 || v.Findings[0].Signature == "" || v.Findings[0].Engine != s.Name() {
		t.Errorf("Infected with the findings %+v: want a signature, of the engine %q", v.Findings, s.Name())
	}
}

func wantClean(t *testing.T, v scan.Verdict) {
	t.Helper()
	if v.Outcome != scan.Clean {
		t.Errorf("harmless text is %s", describe(v))
	}
}

func describe(v scan.Verdict) string {
	return fmt.Sprintf("%v (reason %q, detail %q, findings %+v)", v.Outcome, v.Reason, v.Detail, v.Findings)
}

func small(t *testing.T, h Harness) {
	s := closed(t, h.New(t))
	wantInfected(t, s, judge(t, s, Pool(t), scan.EICAR()))
}

func large(t *testing.T, h Harness) {
	if h.Large == 0 {
		t.Skip("this engine only finds the bare test file")
	}
	s := closed(t, h.New(t))
	content := append(Text(h.Large), scan.EICAR()...)
	if len(content) <= int(InMemory) {
		t.Fatalf("%d bytes stay in memory: the suite is to try a file on disk", len(content))
	}
	wantInfected(t, s, judge(t, s, Pool(t), content))
	wantClean(t, judge(t, s, Pool(t), content[:h.Large]))
}

func clean(t *testing.T, h Harness) {
	s, p := closed(t, h.New(t)), Pool(t)
	for _, n := range []int{1, 100, int(InMemory), int(InMemory) + 1, 1 << 20} {
		wantClean(t, judge(t, s, p, Text(n)))
	}
}

func empty(t *testing.T, h Harness) {
	s := closed(t, h.New(t))
	wantClean(t, judge(t, s, Pool(t), nil))
}

func unchanged(t *testing.T, h Harness) {
	s, p := closed(t, h.New(t)), Pool(t)
	for _, content := range [][]byte{scan.EICAR(), Text(1 << 20)} {
		o := Object(t, p, content)
		first := scan.Ask(t.Context(), s, o)
		CheckUnchanged(t, o)
		if again := scan.Ask(t.Context(), s, o); again.Outcome != first.Outcome {
			t.Errorf("the same object again: %s, first: %s", describe(again), describe(first))
		}
	}
}

func concurrent(t *testing.T, h Harness) {
	s, p := closed(t, h.New(t)), Pool(t)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			if i%2 == 0 {
				wantInfected(t, s, judge(t, s, p, scan.EICAR()))
				return
			}
			wantClean(t, judge(t, s, p, Text(1000*i)))
		})
	}
	wg.Wait()
}

func ended(t *testing.T, h Harness) {
	s := closed(t, h.New(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := Object(t, Pool(t), scan.EICAR())
	v, err := s.Scan(ctx, o)
	if err == nil && v.Outcome != scan.Incomplete && v.Outcome != scan.Infected {
		t.Errorf("with a cancelled context: %s", describe(v))
	}
}

func proves(t *testing.T, h Harness) {
	s := closed(t, h.New(t))
	if err := scan.Prove(t.Context(), Pool(t), s); err != nil {
		t.Error(err)
	}
}

func closing(t *testing.T, h Harness) {
	s := h.New(t)
	c, ok := s.(scan.Closer)
	if !ok {
		t.Skip("nothing to close")
	}
	wantInfected(t, s, judge(t, s, Pool(t), scan.EICAR()))
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if v := judge(t, s, Pool(t), Text(100)); v.Outcome != scan.Incomplete {
		t.Errorf("a scan after Close: %s", describe(v))
	}
}

// stalled has the engine stall, ends the context the given way, and expects Scan itself to return: scan.Ask would hide it.
func stalled(t *testing.T, h Harness, cause error, want scan.Reason) {
	if h.InProcess {
		t.Skip("an engine in this process waits for nobody")
	}
	f := h.Faulty(t, Stall)
	if f == nil {
		t.Fatal("a harness must be able to make its engine stall")
	}
	s := closed(t, f.Scanner)
	o := Object(t, Pool(t), bytes.Repeat([]byte("x"), 1000))
	var ctx context.Context
	var cancel context.CancelFunc
	if cause == context.DeadlineExceeded { //nolint:errorlint // told apart, not handled
		ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	} else {
		ctx, cancel = context.WithCancel(t.Context())
		go func() {
			// Cancelled in mid-scan, or else, when the engine is never reached, after a while.
			for end := time.Now().Add(patience / 2); f.Met() == 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
	}
	defer cancel()
	done := make(chan scan.Verdict, 1)
	go func() {
		v, err := s.Scan(ctx, o)
		if err != nil {
			v = scan.FromError(s.Name(), err)
		}
		done <- v
	}()
	select {
	case v := <-done:
		if v.Outcome != scan.Incomplete || v.Reason != want {
			t.Errorf("the verdict is %s, want Incomplete with %q", describe(v), want)
		}
	case <-time.After(patience):
		t.Error("Scan does not return when its context ends")
		f.Heal()
		<-done
	}
	if f.Met() == 0 {
		t.Error("the engine never stalled: nothing was tested")
	}
	CheckUnchanged(t, o)
}
