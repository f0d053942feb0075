package pop3

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/spool"
)

// whole is how much of a message a client gets, besides a number of lines of its body.
const whole = -1

// deliver gives the client what the decision about l says: the whole of it, or its beginning with n lines of the body. What was given
// whole may be deleted.
func (x *session) deliver(ctx context.Context, l *letter, c command, n int) (err error) {
	given := true
	switch {
	case l.decision.Action == policy.Defer:
		return x.postpone(l)
	case l.decision.Action != policy.Pass:
		err = x.replace(ctx, l, n)
	case l.body != nil:
		err = x.whileAwake(func() error { return x.pass(l, n) })
	default:
		given, err = x.unscanned(l, c)
	}
	if err == nil && given && n == whole {
		x.failed.remove(l.number)
	}
	return err
}

// pass gives the message itself.
func (x *session) pass(l *letter, n int) error {
	if l.edited && !beginsAlike(l.body, l.drip) {
		return x.cut(l, "the message was changed where it had been sent already")
	}
	if n >= 0 {
		return x.write(l, &beginning{r: bufio.NewReader(l.body.NewReader()), lines: n}, nil)
	}
	return x.write(l, l.body.NewReader(), l.odd)
}

// beginsAlike says whether b begins with what the client has of the message already.
func beginsAlike(b *spool.Blob, d *drip) bool {
	sent := d.beginning()[:d.ofMessage()]
	got := make([]byte, len(sent))
	_, err := io.ReadFull(b.NewReader(), got)
	return err == nil && bytes.Equal(got, sent)
}

// write gives a reply: the status line and r, without what was sent of both already.
func (x *session) write(l *letter, r io.Reader, odd []int64) error {
	w := x.client.w
	if l.drip.sent < len(l.drip.status) {
		if _, err := w.Write(l.drip.status[l.drip.sent:]); err != nil {
			return err
		}
	}
	st := stuffer{odd: odd}
	skip := l.drip.ofMessage() // the shared fields have no line that begins with a dot: stuffed they are as long
	buf, out := make([]byte, 8<<10), make([]byte, 0, 10<<10)
	for {
		n, err := r.Read(buf)
		out = st.append(out[:0], buf[:n])
		if errors.Is(err, io.EOF) {
			out = st.end(out)
		}
		k := min(skip, len(out))
		skip -= k
		if _, werr := w.Write(out[k:]); werr != nil {
			return werr
		}
		switch {
		case errors.Is(err, io.EOF):
			return w.Flush()
		case err != nil:
			return x.cut(l, "reading the spool: "+err.Error())
		}
	}
}

// cut ends the session in the middle of a message, which the client cannot take for a whole one.
func (x *session) cut(l *letter, why string) error {
	x.log.Error("a mail was not delivered to its end", "reference", l.notice.Reference, "client", x.clientAddr, "error", why)
	x.failed.add(l.number, l.notice.Reference)
	return errEnd
}

// beginning reads a message's header and so many lines of its body (RFC 1939, 7).
type beginning struct {
	r      *bufio.Reader
	lines  int
	inBody bool
	middle bool // of a line
	rest   []byte
}

// Read implements io.Reader.
func (b *beginning) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		if b.inBody && b.lines == 0 && !b.middle {
			return 0, io.EOF
		}
		part, err := b.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && (!errors.Is(err, io.EOF) || len(part) == 0) {
			return 0, err
		}
		switch {
		case b.inBody && !b.middle:
			b.lines--
		case !b.inBody && !b.middle && (string(part) == "\r\n" || string(part) == "\n"):
			b.inBody = true
		}
		b.middle = part[len(part)-1] != '\n'
		b.rest = part
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// replace gives a notice in the message's place.
func (x *session) replace(ctx context.Context, l *letter, n int) error {
	head := l.drip.beginning()
	msg := x.notice(ctx, l, head)
	if !bytes.HasPrefix(msg, head[:l.drip.ofMessage()]) {
		return x.cut(l, "the notice does not begin with the fields that were sent already")
	}
	virus := ""
	if f := l.notice.Verdict.Findings; len(f) > 0 {
		virus = f[0].Signature
	}
	x.log.Warn("a notice was given in the place of a mail", "reference", l.notice.Reference, "protocol", x.facts.Protocol,
		"client", x.clientAddr, "server", x.facts.Host, "user", x.facts.User, "message", l.number, "virus", virus,
		"from", clip(value(head, "from")), "to", clip(value(head, "to")), "subject", clip(value(head, "subject")))
	if l.drip.sent == 0 {
		l.drip.status = fmt.Appendf(nil, "+OK %d octets\r\n", len(msg))
	}
	if n == whole {
		return x.write(l, bytes.NewReader(msg), nil)
	}
	return x.write(l, &beginning{r: bufio.NewReader(bytes.NewReader(msg)), lines: n}, nil)
}

// clip bounds what a log is told.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// postpone says that the message cannot be had now. It stays on the server: DELE is refused for it.
func (x *session) postpone(l *letter) error {
	x.failed.add(l.number, l.notice.Reference)
	what := "could not be examined now (" + string(reason(l)) + ")"
	if l.notice.Verdict.Outcome == scan.Infected {
		what = "is infected, is held back" // its original cannot be kept now, or the policy says so
	}
	why := temporary + " the message " + what + " and stays on the server; try again later; reference " + l.notice.Reference
	if !l.drip.committed() {
		return x.say("-ERR " + why)
	}
	_ = x.reply(l.drip.explanation(why)) // the end, either way
	return errEnd
}

func reason(l *letter) scan.Reason {
	if r := l.notice.Verdict.Reason; r != scan.NoReason {
		return r
	}
	return scan.EngineError
}

// unscanned passes a message that was too large to be held and that the policy lets pass: it is fetched again. given says whether the
// server has given it.
func (x *session) unscanned(l *letter, c command) (given bool, err error) {
	line, ok, err := x.ask(c.line)
	if err != nil {
		return false, x.fetchFailed(l, err)
	}
	if !ok {
		const why = "the mail server does not give the message a second time"
		n := x.s.opt.Gate.Refuse(x.facts, notice.OriginProtocol, "", fmt.Sprintf("%s: %.100q", why, line))
		x.failed.add(l.number, n.Reference)
		if !l.drip.committed() {
			return false, x.reply(line)
		}
		_ = x.reply(l.drip.explanation(temporary + " " + why + "; reference " + n.Reference)) // the end, either way
		return false, errEnd
	}
	// A TOP may have been asked for; what the server says to it is passed on as it is.
	if l.drip.sent < len(l.drip.status) {
		if _, err := x.client.w.Write(l.drip.status[l.drip.sent:]); err != nil {
			return false, err
		}
	}
	text := &lines{p: x.up, pace: pace{rate: int64(x.set.MinRate)}, wire: &skipping{w: x.client.w, expect: l.drip.beginning()[:l.drip.ofMessage()]}}
	if _, err := io.Copy(io.Discard, onlyReader{text}); err != nil {
		return false, x.cut(l, "passing on what is too large to be examined: "+err.Error())
	}
	return true, x.client.w.Flush()
}

// errOther says that a message is not the one that was begun.
var errOther = errors.New("the server's second copy begins otherwise")

// skipping leaves out what was sent before, which has to be the same.
type skipping struct {
	w      io.Writer
	expect []byte
}

// Write implements io.Writer.
func (s *skipping) Write(b []byte) (int, error) {
	n := min(len(b), len(s.expect))
	if !bytes.Equal(b[:n], s.expect[:n]) {
		return 0, errOther
	}
	s.expect = s.expect[n:]
	if _, err := s.w.Write(b[n:]); err != nil {
		return 0, err
	}
	return len(b), nil
}
