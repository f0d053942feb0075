package scan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
)

// maxStray is how many scans may go on, of one process, after their deadline. A scanner that ignores its context must not
// collect goroutines without bound.
const maxStray = 64

var stray atomic.Int64

// Ask has s judge o, and always returns a usable verdict: an error, a panic, an unknown outcome, and a scanner that
// ignores the end of ctx each become Incomplete with their reason. The object's body is held until s has really returned. A Punctual
// scanner is waited for.
func Ask(ctx context.Context, s Scanner, o *Object) Verdict {
	if o == nil || o.Body == nil {
		return IncompleteVerdict(EngineError, "%s was asked about an object without a body", s.Name())
	}
	if err := ctx.Err(); err != nil {
		return FromError(s.Name(), err)
	}
	if p, ok := s.(Punctual); ok && p.Punctual() {
		return call(ctx, s, o)
	}
	if stray.Load() >= maxStray {
		return IncompleteVerdict(Timeout, "%s: too many scans do not end", s.Name())
	}
	// An abandoned scan outlives this call, and so must not share what the caller goes on to change.
	mine := *o
	mine.Body.Retain()
	done := make(chan Verdict, 1)
	var abandoned atomic.Bool
	go func() {
		v := call(ctx, s, &mine)
		_ = mine.Body.Close() // a reference is given back; nothing was written
		done <- v
		if !abandoned.CompareAndSwap(false, true) {
			stray.Add(-1)
		}
	}()
	select {
	case v := <-done:
		return v
	case <-ctx.Done():
	}
	// Whatever the scanner says from now on is too late; it is counted until it returns.
	if abandoned.CompareAndSwap(false, true) {
		stray.Add(1)
		return FromError(s.Name(), ctx.Err())
	}
	return <-done
}

// call runs s.Scan and turns whatever comes of it into a verdict.
func call(ctx context.Context, s Scanner, o *Object) (v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			v = IncompleteVerdict(EngineError, "%s panicked: %v\n%s", s.Name(), p, debug.Stack())
		}
	}()
	v, err := s.Scan(ctx, o)
	if err != nil && v.Outcome != Infected {
		return FromError(s.Name(), err)
	}
	switch v.Outcome {
	case Clean, Infected:
		return v
	case Incomplete:
		if v.Reason == NoReason {
			v.Reason = EngineError
		}
		return v
	}
	return IncompleteVerdict(Unknown, "%s returned no verdict", s.Name())
}

// Error is an error of a scanner that knows its Reason.
type Error struct {
	Reason Reason
	Err    error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// FromError returns the Incomplete verdict that err amounts to, said by the engine called name.
func FromError(name string, err error) Verdict {
	reason := EngineError
	var known *Error
	switch {
	case errors.As(err, &known):
		reason = known.Reason
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		reason = Timeout
	case errors.Is(err, context.Canceled):
		reason = Cancelled
	}
	return IncompleteVerdict(reason, "%s", fmt.Sprintf("%s: %v", name, err))
}
