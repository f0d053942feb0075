package pop3

import (
	"bufio"
	"context"
	"strings"
	"testing"
	"time"

	"lazaret/internal/notice"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
)

func newReader(s string) *bufio.Reader { return bufio.NewReaderSize(strings.NewReader(s), 16) }

// slow returns a scanner that says what the channel says when it says it.
func slow() (s scan.Scanner, verdict chan<- scan.Verdict) {
	ch := make(chan scan.Verdict)
	return &scantest.Func{Judge: func(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
		if strings.HasPrefix(o.Name, "notice") {
			return scan.CleanVerdict(), nil
		}
		select {
		case v := <-ch:
			if v.Outcome != scan.Infected { // and of every other reading of the message
				go func() {
					for {
						select {
						case ch <- v:
						case <-ctx.Done():
							return
						}
					}
				}()
			}
			return v, nil
		case <-ctx.Done():
			return scan.Verdict{}, ctx.Err()
		}
	}}, ch
}

func awake(unit string) func(*Config) {
	return func(c *Config) { c.KeepAlive, c.KeepAliveUnit = 1, unit }
}

// The fields that a message and its notice begin with alike.
var sharedHead, _, _ = strings.Cut(head, "Subject:")

func TestKeepAliveOfACleanMessage(t *testing.T) {
	for _, unit := range []string{byCharacter, byLine} {
		t.Run(unit, func(t *testing.T) {
			scanner, verdict := slow()
			r := newRig(t, scanner, knobs{config: awake(unit)})
			c, s := r.session()
			c.says("RETR 1\r\n")
			s.hears("RETR 1\r\n")
			s.says("+OK 99 octets\r\n" + head + "\r\n..Hello\r\n.\r\n")
			c.hears("+OK 99 octets\r\n" + sharedHead) // all that may be said, and nothing more, before the verdict
			verdict <- scan.CleanVerdict()
			c.hears(head[len(sharedHead):] + "\r\n..Hello\r\n.\r\n")
			c.says("NOOP\r\n")
			s.hears("NOOP\r\n")
		})
	}
}

func TestKeepAliveWhileTheServerIsSlow(t *testing.T) {
	r := newRig(t, eicar(), knobs{config: awake(byLine)})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\nFrom: a\r\nTo: b\r")
	c.hears("+OK\r\nFrom: a\r\n")
	s.says("\n")
	c.hears("To: b\r\n")
	s.says("Subject: x\r\n\r\nHello\r\n.\r\n")
	c.hears("Subject: x\r\n\r\nHello\r\n.\r\n")
}

func TestKeepAliveOfAnInfectedMessage(t *testing.T) {
	for _, unit := range []string{byCharacter, byLine} {
		t.Run(unit, func(t *testing.T) {
			scanner, verdict := slow()
			r := newRig(t, scanner, knobs{config: awake(unit)})
			c, s := r.session()
			c.says("RETR 1\r\n")
			s.hears("RETR 1\r\n")
			s.says("+OK 99 octets\r\n" + infected() + ".\r\n")
			c.hears("+OK 99 octets\r\nReceived: from a") // in the middle of a line
			verdict <- scan.InfectedVerdict("test", "Some.Virus", "")
			got := "+OK\r\nReceived: from a" + c.rest()
			whole := (&end{t: t, who: "client", r: newReader(got)}).message()
			if !strings.HasPrefix(whole, sharedHead+"Subject: [Virus] found in a mail to you: Some.Virus\r\n") || strings.Contains(whole, string(scan.EICAR())) {
				t.Errorf("no proper notice: %q", whole)
			}
			r.transcript(c, s, "C DELE 1\ns DELE 1\nS +OK\nc +OK")
		})
	}
}

// rest reads to the lone dot.
func (e *end) rest() string {
	e.t.Helper()
	var b strings.Builder
	for !strings.HasSuffix(b.String(), "\r\n.\r\n") {
		l, err := e.r.ReadString('\n')
		if err != nil {
			e.t.Fatalf("heard %q, then %v", b.String()+l, err)
		}
		b.WriteString(l)
	}
	return b.String()
}

// A client that was told +OK, and is then not given the message, hears why, and nothing that looks like a whole message.
func TestKeepAliveThatEndsInFailureIsExplained(t *testing.T) {
	for _, unit := range []string{byCharacter, byLine} {
		t.Run(unit, func(t *testing.T) {
			scanner, verdict := slow()
			r := newRig(t, scanner, knobs{config: awake(unit)})
			c, s := r.session()
			c.says("RETR 1\r\n")
			s.hears("RETR 1\r\n")
			s.says("+OK\r\n" + head + "\r\nHello\r\n.\r\n")
			c.hears("+OK\r\nReceived: from a")
			verdict <- scan.IncompleteVerdict(scan.Unavailable, "gone")
			got := c.ended()
			if strings.Contains(got, "Hello") || strings.HasSuffix(got, "\r\n.\r\n") {
				t.Errorf("the client heard %q", got)
			}
			if !strings.Contains(got, "\r\nX-Lazaret-Error: [SYS/TEMP] the message could not be examined now (scanner-down) and stays on the server") {
				t.Errorf("no explanation: %q", got)
			}
			if strings.Contains(s.ended(), "DELE") {
				t.Error("the message was deleted")
			}
		})
	}
}

func TestServerGoneWhileTheClientIsKeptAwake(t *testing.T) {
	r := newRig(t, eicar(), knobs{config: awake(byLine)})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\nFrom: a\r\nTo: b\r\n")
	c.hears("+OK\r\nFrom: a\r\nTo: b\r\n")
	s.conn.Close()
	if got := c.ended(); !strings.HasPrefix(got, "X-Lazaret-Error: [SYS/TEMP]") || strings.HasSuffix(got, ".\r\n\r\n.\r\n") {
		t.Errorf("the client heard %q", got)
	}
}

// badReplacer does not begin with what was sent already.
type badReplacer struct{}

func (badReplacer) Replacement(Original, notice.Notice) []byte {
	return []byte("Subject: x\r\n\r\nbody\r\n")
}

func (badReplacer) Given(Original, notice.Notice) {}

func TestNoticeThatDoesNotFitWhatWasSent(t *testing.T) {
	scanner, verdict := slow()
	r := newRig(t, scanner, knobs{config: awake(byLine), options: func(o *Options) { o.Replacer = badReplacer{} }})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + infected() + ".\r\n")
	c.hears("+OK\r\nReceived:")
	verdict <- scan.InfectedVerdict("test", "Some.Virus", "")
	if got := c.ended(); strings.Contains(got, "body") || strings.HasSuffix(got, "\r\n.\r\n") {
		t.Errorf("the client heard %q", got)
	}
}

// A server that does not answer NOOP at once keeps nobody from the verdict, and its replies stay with their commands.
func TestServerIsKeptAwake(t *testing.T) {
	scanner, verdict := slow()
	r := newRig(t, scanner, knobs{config: awake(byLine), options: func(o *Options) { o.awake = time.Millisecond }})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\nHello\r\n.\r\n")
	s.hears("NOOP\r\n")
	c.hears("+OK\r\n" + sharedHead)
	verdict <- scan.CleanVerdict()
	c.hears(head[len(sharedHead):] + "\r\nHello\r\n.\r\n")
	s.says("-ERR what?\r\n")
	c.says("DELE 1\r\n")
	for s.line("") == "NOOP\r\n" {
		s.says("+OK awake\r\n")
	}
	s.says("+OK deleted\r\n")
	c.hears("+OK deleted\r\n")
	r.transcript(c, s, "C NOOP\ns NOOP\nS +OK\nc +OK")
}

func TestServerGoneWhileItIsKeptAwake(t *testing.T) {
	scanner, verdict := slow()
	r := newRig(t, scanner, knobs{options: func(o *Options) { o.awake = time.Millisecond }})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\nHello\r\n.\r\n")
	s.hears("NOOP\r\n")
	s.conn.Close()
	verdict <- scan.CleanVerdict()
	c.hears("+OK\r\n" + head + "\r\nHello\r\n.\r\n")
	c.says("DELE 1\r\n")
	c.line("-ERR [SYS/TEMP] the mail server cannot be talked to any more")
	c.ended()
}

func TestClientGoneWhileItIsKeptAwake(t *testing.T) {
	scanner, _ := slow()
	r := newRig(t, scanner, knobs{config: awake(byCharacter)})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	// It is what is sent to the client that tells of its end: there must be enough of it.
	s.says("+OK\r\n" + strings.Repeat("Received: from somewhere\r\n", 500) + head + "\r\nHello\r\n.\r\n")
	c.hears("+OK")
	c.conn.Close()
	s.ended() // the scan is given up, without a verdict
}
