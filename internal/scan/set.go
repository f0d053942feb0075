package scan

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Member is a scanner's place in a Set.
type Member struct {
	Scanner  Scanner
	Required bool          // an Incomplete of a required engine is the Set's; of another it is only logged
	Timeout  time.Duration // for one object; zero: only the caller's
}

// Set asks several engines as one.
//
// Infected, by any engine, is the answer. Otherwise every required engine must have said Clean; and where none is
// required, at least one engine. An empty Set is Incomplete (scanner-down).
type Set struct{ members []Member }

// NewSet returns a Set of the given engines, asked in parallel.
func NewSet(m ...Member) *Set { return &Set{members: m} }

// Members returns the engines, in their order.
func (s *Set) Members() []Member { return s.members }

// Part says which engines are asked about an object.
type Part uint8

// The parts.
const (
	Whole    Part = iota // the object as it came: every engine
	Inner                // a member that the gate unpacked: engines that do not unpack by themselves, or would overlook it
	Attached             // what a mail has attached, where every parser sees it: engines that do not decode mails, or would overlook it
)

// Scan asks every engine that which concerns, in parallel, and returns the merged verdict. When no engine is concerned it
// returns Clean: there was nothing left to ask.
func (s *Set) Scan(ctx context.Context, o *Object, which Part) Verdict {
	var asked []Member
	for _, m := range s.members {
		if which == Whole || !sees(m.Scanner, which) || overlooks(m.Scanner, o) {
			asked = append(asked, m)
		}
	}
	if len(asked) == 0 {
		if which != Whole && len(s.members) > 0 {
			return CleanVerdict()
		}
		return IncompleteVerdict(Unavailable, "no scanner is in service")
	}
	verdicts := make([]Verdict, len(asked))
	if len(asked) == 1 {
		verdicts[0] = ask(ctx, asked[0], o)
		return merge(asked, verdicts)
	}
	done := make(chan struct{})
	for i, m := range asked {
		go func() {
			verdicts[i] = ask(ctx, m, o)
			done <- struct{}{}
		}()
	}
	for range asked {
		<-done
	}
	return merge(asked, verdicts)
}

func ask(ctx context.Context, m Member, o *Object) Verdict {
	if m.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.Timeout)
		defer cancel()
	}
	return Ask(ctx, m.Scanner, o)
}

func merge(asked []Member, verdicts []Verdict) Verdict {
	var infected, incomplete *Verdict
	required, clean := false, false
	for i := range asked {
		v := &verdicts[i]
		required = required || asked[i].Required
		switch {
		case v.Outcome == Infected && infected == nil:
			infected = v
		case v.Outcome == Infected:
			merged := infected.Merge(*v)
			infected = &merged
		case v.Outcome == Clean:
			clean = true
		case asked[i].Required && incomplete == nil:
			incomplete = v
		}
	}
	switch {
	case infected != nil:
		return *infected
	case incomplete != nil:
		return *incomplete
	case clean:
		return CleanVerdict()
	case required:
		return IncompleteVerdict(Unavailable, "no required scanner answered")
	}
	return verdicts[0]
}

// sees says whether s has seen such a part when it looked at the whole.
func sees(s Scanner, which Part) bool {
	if which == Attached {
		r, ok := s.(MailReader)
		return ok && r.ReadsMail()
	}
	return unpacks(s)
}

func unpacks(s Scanner) bool {
	u, ok := s.(Unpacker)
	return ok && u.Unpacks()
}

func overlooks(s Scanner, o *Object) bool {
	l, ok := s.(Overlooker)
	return ok && o != nil && o.Body != nil && l.Overlooks(o)
}

// ReadsMail says whether some engine decodes attachments by itself.
func (s *Set) ReadsMail() bool {
	for _, m := range s.members {
		if sees(m.Scanner, Attached) {
			return true
		}
	}
	return false
}

// AllUnpack says whether every engine opens archives by itself.
func (s *Set) AllUnpack() bool {
	for _, m := range s.members {
		if !unpacks(m.Scanner) {
			return false
		}
	}
	return len(s.members) > 0
}

// Version returns one word that changes whenever a verdict of the Set could, for the verdict cache; ok is false while
// the version of an engine is unknown.
func (s *Set) Version() (version string, ok bool) {
	var b []byte // twice for each object: no Fprintf
	for _, m := range s.members {
		vr, is := m.Scanner.(Versioner)
		if !is {
			return "", false
		}
		v, known := vr.Version()
		if !known {
			return "", false
		}
		for _, word := range [...]string{m.Scanner.Name(), "/", v.Engine, "/", v.Signatures, ";"} {
			b = append(b, word...)
		}
	}
	return string(b), len(b) > 0
}

// Updated returns when the oldest signatures of all engines were made; zero where none says.
func (s *Set) Updated() time.Time {
	var oldest time.Time
	for _, m := range s.members {
		vr, is := m.Scanner.(Versioner)
		if !is {
			continue
		}
		if v, known := vr.Version(); known && !v.Updated.IsZero() && (oldest.IsZero() || v.Updated.Before(oldest)) {
			oldest = v.Updated
		}
	}
	return oldest
}

// Close closes every engine that has something to close, and returns their errors joined.
func (s *Set) Close() error {
	var errs []string
	for _, m := range s.members {
		if c, ok := m.Scanner.(Closer); ok {
			if err := c.Close(); err != nil {
				errs = append(errs, fmt.Sprintf("%s: %v", m.Scanner.Name(), err))
			}
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("closing scanners: %s", strings.Join(errs, "; "))
	}
	return nil
}
