package web

import (
	"context"
	"fmt"
	"io"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/units"
)

// Messages bounds what is taken message by message: the [web.websocket] and [web.grpc] sections.
type Messages struct {
	MaxMessage  units.Size     `toml:"max_message" doc:"the largest message, when its compression is undone; of a larger one policy.too_large decides, and it is never delivered"`
	Concurrent  int            `toml:"concurrent" doc:"messages of one connection (or call) and direction that may wait for their verdicts; the peer waits when there are more"`
	MessageTime units.Duration `toml:"message_time" doc:"how long one message may take to arrive, from its beginning"`
}

func defaultMessages() Messages {
	return Messages{MaxMessage: 64 * units.MiB, Concurrent: 4, MessageTime: units.Duration(5 * time.Minute)}
}

// problems returns what cannot be used in c, one error for each key of the section.
func (c Messages) problems(section string) []error {
	var errs []error
	if c.MaxMessage < units.KiB {
		errs = append(errs, fmt.Errorf("%s.max_message: %v is too small for any use: write at least 1 KiB", section, c.MaxMessage))
	}
	if c.Concurrent <= 0 || c.Concurrent > 64 {
		errs = append(errs, fmt.Errorf("%s.concurrent: %d is out of range: write a number from 1 to 64", section, c.Concurrent))
	}
	if c.MessageTime <= 0 {
		errs = append(errs, fmt.Errorf("%s.message_time: must be greater than zero, such as \"5m\"", section))
	}
	return errs
}

// message is one of very many of a connection, while it is judged and afterwards.
type message struct {
	object *scan.Object
	action policy.Action
	notice notice.Notice
	judged chan struct{} // closed when action and notice are there
}

// takeMessage takes a message in, which r reads. Where it does not come in time late is called, which is to end the reading,
// and the error is errStalled or what the reading ended with.
func (s *Server) takeMessage(r io.Reader, in gate.Intake, within time.Duration, late func()) (*scan.Object, error) {
	timer := time.AfterFunc(within, late)
	o, err := s.opt.Gate.Take(r, in)
	if !timer.Stop() && err == nil {
		if o.Body != nil {
			_ = o.Body.Close() // the room is given back: the end came too late to count
		}
		return nil, errStalled
	}
	return o, err
}

// judgeMessage has the gate decide about o, while the next message comes. Caught is deferred where it does.
func (s *Server) judgeMessage(ctx context.Context, f policy.Facts, kind string, o *scan.Object, caught func()) *message {
	m := &message{object: o, judged: make(chan struct{}), action: policy.Block} // what a panic leaves
	go func() {
		defer close(m.judged)
		defer caught()
		d, n := s.opt.Gate.JudgePart(ctx, f, kind, o)
		m.action, m.notice = d.Action, n
	}()
	return m
}

// drop gives a message's room back, when it has been judged. It may be called more than once, and on nil.
func (m *message) drop() {
	if m == nil {
		return
	}
	<-m.judged
	if m.object.Body != nil {
		_ = m.object.Body.Close() // in memory, or unlinked: nothing is lost with it
		m.object.Body = nil
	}
}

// whyBlocked returns what a peer is told of a message that was not delivered.
func whyBlocked(n notice.Notice) string {
	what := "a message could not be scanned"
	switch {
	case n.Verdict.Outcome == scan.Infected:
		what = "a virus was found in a message"
	case n.Fault != "":
		what = n.Fault
	}
	return "blocked: " + what + ", reference " + n.Reference
}
