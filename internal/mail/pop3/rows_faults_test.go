package pop3

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/spool"
)

// A panic while a message is fetched, judged or edited is a fault of the gateway, and recorded as one.
func TestPanicOfTheEditorIsTheGatewaysFault(t *testing.T) {
	r := newRig(t, eicar(), knobs{options: func(o *Options) {
		o.Editor = editFunc(func(*spool.Blob) (*spool.Blob, error) { panic("at work") })
	}})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + marked(1) + ".\r\n")
	got := c.ended()
	if strings.Contains(got, "the mail server cannot be talked to") {
		t.Errorf("the client is told that it was the server: %q", got)
	}
	if !slices.ContainsFunc(r.sink.list(), func(a audit.Record) bool { return a.Kind == string(notice.Internal) }) {
		t.Errorf("it is not recorded as internal: %+v", r.sink.list())
	}
}

// panicReplacer panics in the session's own goroutine.
type panicReplacer struct{}

func (panicReplacer) Replacement(Original, notice.Notice) []byte { panic("at work") }
func (panicReplacer) Given(Original, notice.Notice)              {}

func TestPanicOfTheSessionWhileMessagesAreFetchedAhead(t *testing.T) {
	r, c, s, judge := row(t, knobs{options: func(o *Options) { o.Replacer = panicReplacer{} }}, "RETR 2\r\nRETR 3\r\n", marked(1)+infected())
	s.hears("RETR 2\r\n")
	s.says("+OK\r\n" + marked(2) + ".\r\n")
	s.hears("RETR 3\r\n")
	judge()
	if got := c.ended(); strings.Contains(got, "+OK") {
		t.Errorf("the client heard %q", got)
	}
	s.ended()
	c, s = r.session()
	r.transcript(c, s, "C NOOP\ns NOOP\nS +OK\nc +OK")
}

// A server hears something also while a slow client takes a large message.
func TestServerIsKeptAwakeWhileTheClientIsSlow(t *testing.T) {
	// While the message is fetched and scanned, the server may be left with maxOwed of them: one each second is few enough.
	r := newRig(t, eicar(), knobs{options: func(o *Options) { o.awake = time.Second }})
	c, s := r.session()
	_ = c.conn.(*net.TCPConn).SetReadBuffer(4 << 10) // little fits in between
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\n" + strings.Repeat("Hello, world\r\n", 400_000) + ".\r\n")
	c.line("+OK") // delivery has begun
	deadline := time.Now().Add(100 * time.Millisecond)
	for time.Now().Before(deadline) { // those that were sent while it was scanned
		_ = s.conn.SetReadDeadline(deadline)
		if l, _ := s.r.ReadString('\n'); l == "NOOP\r\n" {
			s.says("+OK\r\n")
		}
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(patience))
	if l, _ := s.r.ReadString('\n'); l != "NOOP\r\n" {
		t.Errorf("the server heard %q while the client took nothing", l)
	}
}

// Messages that are passed without having been held, in every place of a row.
func TestUnheldMessagesInARow(t *testing.T) {
	for where := range 4 {
		r := newRig(t, eicar(), knobs{
			config: func(c *Config) { c.MaxMessage = 1 << 10 }, policy: func(p *policy.Config) { p.TooLarge = policy.Pass },
		})
		c, s := r.session()
		c.says("RETR 0\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\nRETR 4\r\n")
		c.line("-ERR")
		var want strings.Builder
		for n := range 4 {
			m := marked(n + 1)
			if n == where {
				m += strings.Repeat("too much\r\n", 200)
				s.hears("RETR " + string(rune('1'+n)) + "\r\n")
				s.says("+OK\r\n" + m + ".\r\n")
			}
			s.hears("RETR " + string(rune('1'+n)) + "\r\n")
			s.says("+OK\r\n" + m + ".\r\n")
			want.WriteString("+OK\r\n" + m + ".\r\n")
		}
		c.hears(want.String())
	}
}

// An Editor that fails over what was fetched ahead, and DELE behind it.
func TestEditorThatFailsAhead(t *testing.T) {
	_, c, s, judge := row(t, knobs{options: func(o *Options) {
		o.Editor = editFunc(func(b *spool.Blob) (*spool.Blob, error) {
			if b.Size()%2 == 0 {
				return nil, errors.New("x")
			}
			return b, nil
		})
	}}, "RETR 2\r\nRETR 3\r\nDELE 2\r\nDELE 3\r\n", even(marked(1), 1))
	s.hears("RETR 2\r\n")
	s.says("+OK\r\n" + even(marked(2), 0) + ".\r\n")
	s.hears("RETR 3\r\n")
	s.says("+OK\r\n" + even(marked(3), 1) + ".\r\n")
	judge()
	c.hears("+OK\r\n"[:3] + " one\r\n" + even(marked(1), 1) + ".\r\n")
	c.line("-ERR [SYS/TEMP]")
	c.hears("+OK\r\n" + even(marked(3), 1) + ".\r\n")
	c.line("-ERR [SYS/TEMP]")
	s.hears("DELE 3\r\n")
}

func even(m string, rest int) string {
	if len(m)%2 != rest {
		return m + "x\r\n"
	}
	return m
}

// The parts of a row that cannot be understood, and a client that ends its side behind it.
func TestRowBehindWhichTheClientIsSilent(t *testing.T) {
	_, c, s, judge := row(t, knobs{}, "RETR 2\nRETR x\r\nRETR 2 2\r\nSTLS\r\n"+strings.Repeat("RETR 3\r\n", 5)+"RETR 4", marked(1))
	c.conn.(interface{ CloseWrite() error }).CloseWrite()
	s.hears("RETR 2\r\n")
	s.says("-ERR a\r\n")
	s.hearsNothing()
	judge()
	c.hears("+OK one\r\n" + marked(1) + ".\r\n-ERR a\r\n")
	c.line("-ERR")
	c.line("-ERR")
	c.line("-ERR") // STLS with something behind it
	if got := c.ended(); got != "" {
		t.Errorf("then %q", got)
	}
	s.ended()
}
