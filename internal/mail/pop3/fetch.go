package pop3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/spool"
)

// letter is a message that was fetched and judged, or what is known of one that could not be.
type letter struct {
	number   int
	body     *spool.Blob // nil: it was not kept
	odd      []int64     // see unstuffer
	edited   bool        // the body is an Editor's
	drip     *drip
	decision policy.Decision
	notice   notice.Notice
}

func (l *letter) close() {
	if l.body != nil {
		_ = l.body.Close() // the room is given back
		l.body = nil
	}
}

// maxRemembered is the size up to which a message that TOP has fetched is kept for the RETR that follows.
const maxRemembered = 256 << 10

// maxDrain is how much of a message that is not kept is read to its end, so that the session can go on.
const maxDrain = 4 << 30

// awakeEvery is how often the server hears something while a message of it is scanned.
const awakeEvery = time.Minute

func (x *session) forget() {
	if x.last != nil {
		x.last.close()
		x.last = nil
	}
}

// errClient wraps what went wrong with the client's connection while a message was fetched.
type errClient struct{ error }

// fetch has the server send a message in reply to line, and has it judged. The client hears something meanwhile. A reply of
// -ERR is refused, and there is no letter. The error is the server's or the client's (errClient); what was sent to the
// client by then is in the letter, which is never nil where the error is not.
func (x *session) fetch(ctx context.Context, c command, line []byte) (l *letter, refused []byte, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := newErrand(x, c, line, cancel)
	return e.result(x.here(ctx, e))
}

// receive reads the message and has it judged.
func (x *session) receive(ctx context.Context, e *errand) error {
	l := e.l
	text := &lines{p: x.up, pace: pace{rate: int64(x.set.MinRate)}, seen: l.drip.saw}
	o, err := x.s.opt.Gate.Take(text, gate.Intake{
		Name: "message-" + strconv.Itoa(l.number) + ".eml", Type: "message/rfc822", Limit: int64(x.set.MaxMessage),
	})
	if err != nil {
		return err
	}
	l.body, l.odd = o.Body, text.u.odd
	if err := text.drain(maxDrain); err != nil {
		return err
	}
	if text.u.at > 0 && o.Body != nil && o.Known.Outcome == scan.Unscanned && o.Body.Size() != text.u.at {
		return errors.New("the message was not taken in whole")
	}
	f := x.facts
	f.Method, f.Type = e.c.verb, "message/rfc822"
	f.URL += "/" + strconv.Itoa(l.number)
	e.judge = func(ctx context.Context) { l.decision, l.notice = x.s.opt.Gate.Judge(ctx, f, o) }
	e.received()
	e.judge(ctx)
	return nil
}

// retr serves RETR.
func (x *session) retr(ctx context.Context, c command) error {
	l := x.last
	if l != nil && l.number == c.number() && l.number > 0 {
		x.last = nil
	} else {
		x.forget()
		var refused []byte
		var err error
		if l, refused, err = x.fetchAhead(ctx, c); refused != nil {
			return x.reply(refused)
		}
		if err != nil {
			defer l.close()
			return x.fetchFailed(l, err)
		}
	}
	defer l.close()
	return x.deliver(ctx, l, c, whole)
}

// top serves TOP. A message of whose body something would be shown is fetched and judged whole first; where only the header
// is wanted, that is judged alone.
func (x *session) top(ctx context.Context, c command) error {
	n := c.lines()
	if n == 0 {
		x.forget()
		l, refused, err := x.fetch(ctx, c, c.line)
		if refused != nil {
			return x.reply(refused)
		}
		defer l.close()
		if err != nil {
			return x.fetchFailed(l, err)
		}
		return x.deliver(ctx, l, c, 0) // even if the server gave more
	}
	l := x.last
	if l == nil || l.number != c.number() || l.number == 0 {
		x.forget()
		var refused []byte
		var err error
		l, refused, err = x.fetch(ctx, c, []byte("RETR "+c.args[0]+"\r\n"))
		if refused != nil {
			return x.reply(refused)
		}
		if err != nil {
			defer l.close()
			return x.fetchFailed(l, err)
		}
	}
	err := x.deliver(ctx, l, c, n)
	if err == nil && l.body != nil && l.body.Size() <= maxRemembered && l.decision.Action != policy.Defer {
		l.drip = &drip{status: []byte("+OK\r\n"), byLine: l.drip.byLine, head: l.drip.beginning()}
		x.last = l
		return nil
	}
	x.last = nil
	l.close()
	return err
}

// fetchFailed ends a session whose message did not come to its end. What the client has of it by now is not terminated.
func (x *session) fetchFailed(l *letter, err error) error {
	var c errClient
	if errors.As(err, &c) {
		return err
	}
	if p := (*panicked)(nil); errors.As(err, &p) {
		return x.failedInside(l, p)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the server ended the connection in the middle of a message: %w", err)
	}
	if !l.drip.committed() {
		return x.upstreamGone(err)
	}
	n := x.s.opt.Gate.Refuse(x.facts, notice.OriginProtocol, "", "the mail server: "+err.Error())
	_ = x.reply(l.drip.explanation(temporary + " the mail server cannot be talked to any more; reference " + n.Reference)) // the end, either way
	return errEnd
}

// failedInside ends a session of which a message made the gateway panic.
func (x *session) failedInside(l *letter, p *panicked) error {
	n := x.s.opt.Gate.Refuse(x.facts, notice.Internal, "", p.Error())
	x.log.Error("a message made the gateway panic", "reference", n.Reference, "client", x.clientAddr, "message", l.number, "panic", p.value, "stack", string(p.stack))
	why := temporary + " the gateway has failed; reference " + n.Reference
	if !l.drip.committed() {
		_ = x.say("-ERR " + why) // the end, either way
	} else {
		_ = x.reply(l.drip.explanation(why)) // the end, either way
	}
	return errEnd
}
