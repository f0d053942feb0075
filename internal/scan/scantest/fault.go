package scantest

import (
	"context"
	"slices"
	"testing"
	"time"

	"lazaret/internal/scan"
)

// Fault is a way in which an engine, or the way to it, fails.
type Fault uint8

// The faults. What a driver without connections makes of them: the engine's process is the connection, its output and
// exit code are the reply.
const (
	Fragmented   Fault = iota + 1 // everything is read and written in tiny pieces; the verdict is right nevertheless
	Absent                        // nobody is there
	LostBefore                    // the connection is lost before the reply
	LostWithin                    // the connection is lost in the middle of the reply
	LostAfter                     // the connection is lost after the reply, which holds
	Garbage                       // the reply is no such thing
	UnknownReply                  // the reply is well-formed, and unknown
	OverLong                      // the reply has no end
	Stall                         // there is no reply
	ErrorReply                    // the engine says that it failed
	SizeLimit                     // the engine says that the object is too large for it
	Restart                       // the engine dies in mid-scan, and is there again
)

// expectation is what a driver has to make of a fault.
type expectation struct {
	fault   Fault
	name    string
	right   bool          // the right verdict is accepted
	reasons []scan.Reason // Incomplete with one of these is accepted
}

var expectations = []expectation{
	{Fragmented, "fragmented reads and writes", true, nil},
	{Absent, "absent", false, []scan.Reason{scan.Unavailable}},
	{LostBefore, "lost before the reply", false, []scan.Reason{scan.Unavailable, scan.EngineError}},
	{LostWithin, "lost in the reply", false, []scan.Reason{scan.Unavailable, scan.EngineError, scan.Unknown}},
	{LostAfter, "lost after the reply", true, nil},
	{Garbage, "garbage reply", false, []scan.Reason{scan.Unknown, scan.EngineError}},
	{UnknownReply, "unknown reply", false, []scan.Reason{scan.Unknown, scan.EngineError}},
	{OverLong, "over-long reply", false, []scan.Reason{scan.Unknown, scan.EngineError}},
	{Stall, "stall", false, []scan.Reason{scan.Timeout}},
	{ErrorReply, "error reply", false, []scan.Reason{scan.EngineError}},
	{SizeLimit, "size limit reply", false, []scan.Reason{scan.TooLarge}},
	{Restart, "restart in mid-scan", true, []scan.Reason{scan.Unavailable, scan.EngineError}},
}

// Faults lists every fault that the suite tries.
func Faults() []Fault {
	var out []Fault
	for _, e := range expectations {
		out = append(out, e.fault)
	}
	return out
}

// String returns the fault's name.
func (f Fault) String() string {
	if i := slices.IndexFunc(expectations, func(e expectation) bool { return e.fault == f }); i >= 0 {
		return expectations[i].name
	}
	return "unknown fault"
}

// faulty asks an engine that shows f about EICAR and about harmless text, heals it, and asks again.
func faulty(t *testing.T, h Harness, f Fault) {
	b := h.Faulty(t, f)
	if b == nil {
		t.Skip("this engine cannot have this fault")
	}
	s, p := closed(t, b.Scanner), Pool(t)
	e := expectations[slices.IndexFunc(expectations, func(e expectation) bool { return e.fault == f })]
	for _, c := range []struct {
		content []byte
		right   scan.Outcome
	}{{scan.EICAR(), scan.Infected}, {Text(300_000), scan.Clean}} {
		before := b.Met()
		o := Object(t, p, c.content)
		v := asked(t, s, o, f, func() bool { return b.Met() > before })
		CheckUnchanged(t, o)
		right := e.right && v.Outcome == c.right
		incomplete := v.Outcome == scan.Incomplete && slices.Contains(e.reasons, v.Reason)
		if !right && !incomplete {
			t.Errorf("%d bytes: the verdict is %s; want Incomplete for one of %q, or %v: %v", len(c.content), describe(v), e.reasons, c.right, e.right)
		}
		if b.Met() == before && !shown(v) {
			t.Errorf("%d bytes: the engine never showed the fault: nothing was tested", len(c.content))
		}
	}
	b.Heal()
	recovered(t, s, f)
}

// asked asks s about o. An engine that stalls is waited for a little; longer where met says that it was not reached by then, as on
// a machine that has much else to do.
func asked(t *testing.T, s scan.Scanner, o *scan.Object, f Fault, met func() bool) scan.Verdict {
	t.Helper()
	wait := patience
	if f == Stall {
		wait = 300 * time.Millisecond
	}
	for ; ; wait *= 4 {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		v := scan.Ask(ctx, s, o)
		cancel()
		if f != Stall || met() || shown(v) || wait >= patience {
			return v
		}
	}
}

// shown says whether v itself proves that the driver knew the engine to be at fault, and spared it another try.
func shown(v scan.Verdict) bool { return v.Outcome == scan.Incomplete && v.Reason == scan.Unavailable }

// recovered waits until s judges rightly again. A driver may hold off for a moment after a fault.
func recovered(t *testing.T, s scan.Scanner, f Fault) {
	t.Helper()
	p := Pool(t)
	deadline := time.Now().Add(patience)
	for {
		infected := judge(t, s, p, scan.EICAR())
		harmless := judge(t, s, p, Text(1000))
		if infected.Outcome == scan.Infected && harmless.Outcome == scan.Clean {
			return
		}
		if infected.Outcome == scan.Clean || harmless.Outcome == scan.Infected {
			t.Fatalf("after %v: EICAR is %s, harmless text is %s", f, describe(infected), describe(harmless))
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v the scanner never works again: EICAR is %s, harmless text is %s", f, describe(infected), describe(harmless))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
