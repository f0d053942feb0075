package pop3

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"
)

// marked returns a clean message that says its own number.
func marked(n int) string { return head + "\r\nmessage number " + fmt.Sprint(n) + "\r\n" }

// waiting is a scanner that finds EICAR, and gives no verdict about a message before its number was put into the channel of that
// number; those without a channel are judged at once.
func waiting(verdicts map[int]chan struct{}) scan.Scanner {
	finds := scantest.FindsEICAR()
	return &scantest.Func{Judge: func(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
		b := make([]byte, o.Body.Size())
		if _, err := io.ReadFull(o.Body.NewReader(), b); err != nil {
			return scan.Verdict{}, err
		}
		for n, c := range verdicts {
			if !bytes.Contains(b, []byte("message number "+fmt.Sprint(n)+"\r\n")) {
				continue
			}
			select {
			case <-c:
			case <-ctx.Done():
				return scan.Verdict{}, ctx.Err()
			}
		}
		if bytes.Contains(b, []byte("makes it panic")) {
			panic("at work")
		}
		return finds.Judge(ctx, o)
	}}
}

// row has a client send lines together, of which the first is RETR 1, and the server give that message, about which there is no verdict
// before judge is called.
func row(t *testing.T, k knobs, lines, message string) (r *rig, c, s *end, judge func()) {
	t.Helper()
	first := make(chan struct{})
	r = newRig(t, waiting(map[int]chan struct{}{1: first}), k)
	c, s = r.session()
	c.says("RETR 1\r\n" + lines)
	s.hears("RETR 1\r\n")
	s.says("+OK one\r\n" + message + ".\r\n")
	return r, c, s, sync.OnceFunc(func() { close(first) })
}

// hearsNothing fails where e hears something within a moment.
func (e *end) hearsNothing() {
	e.t.Helper()
	_ = e.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := e.r.Peek(1); err == nil {
		e.t.Fatalf("the %s heard %q", e.who, b)
	}
	_ = e.conn.SetReadDeadline(time.Now().Add(patience))
}

func TestPipelinedMessagesAreFetchedWhileOthersAreJudged(t *testing.T) {
	_, c, s, judge := row(t, knobs{}, "retr 2\r\nRETR  3\nRETR 4\r\nRETR 5\r\nNOOP\r\nRETR 6\r\n", marked(1))
	asked := func(line, reply string) {
		t.Helper()
		s.hears(line)
		s.says(reply)
	}
	asked("retr 2\r\n", "+OK two\r\n"+infected()+".\r\n")
	asked("RETR  3\r\n", "-ERR there is none\r\n")
	s.hearsNothing() // as many are fetched as may be
	c.hearsNothing() // and the first has no verdict
	judge()
	c.hears("+OK one\r\n" + marked(1) + ".\r\n")
	if m := c.message(); strings.Contains(m, "EICAR-STANDARD") || !strings.Contains(m, "Eicar-Test-Signature") {
		t.Errorf("in the place of the infected message: %q", m)
	}
	c.hears("-ERR there is none\r\n")
	asked("RETR 4\r\n", "+OK\r\n"+marked(4)+".\r\n")
	asked("RETR 5\r\n", "+OK\r\n"+marked(5)+".\r\n")
	asked("NOOP\r\n", "+OK nothing\r\n")
	asked("RETR 6\r\n", "+OK\r\n"+marked(6)+".\r\n")
	c.hears("+OK\r\n" + marked(4) + ".\r\n+OK\r\n" + marked(5) + ".\r\n+OK nothing\r\n+OK\r\n" + marked(6) + ".\r\n")
}

func TestOtherCommandsWaitForTheVerdict(t *testing.T) {
	for _, command := range []string{"DELE 1", "QUIT", "TOP 2 0", "STAT", "RSET"} {
		t.Run(command, func(t *testing.T) {
			_, c, s, judge := row(t, knobs{}, command+"\r\nRETR 2\r\n", marked(1))
			s.hearsNothing()
			judge()
			c.hears("+OK one\r\n" + marked(1) + ".\r\n")
			s.hears(command + "\r\n")
		})
	}
}

func TestAServerThatGoesAwayWhileItIsFetchedAheadFrom(t *testing.T) {
	_, c, s, judge := row(t, knobs{}, "RETR 2\r\nRETR 3\r\n", marked(1))
	s.hears("RETR 2\r\n")
	s.says("+OK\r\n" + head + "\r\nthis is not the w")
	s.conn.Close()
	judge()
	c.hears("+OK one\r\n" + marked(1) + ".\r\n") // it was there whole
	if rest := c.ended(); !strings.HasPrefix(rest, "-ERR [SYS/TEMP]") || strings.Contains(rest, "this is not") {
		t.Errorf("then: %q", rest)
	}
}

func TestAClientThatGoesAwayWhileMessagesAreFetchedAhead(t *testing.T) {
	slowly := knobs{config: func(c *Config) { c.KeepAlive = units.Duration(20 * time.Millisecond) }}
	_, c, s, _ := row(t, slowly, "RETR 2\r\nRETR 3\r\n", marked(1))
	s.hears("RETR 2\r\n")
	s.says("+OK\r\n" + marked(2))
	c.conn.Close()
	s.ended() // and the rig looks for what is left in the spool and of goroutines
}

func TestBothSidesAreKeptAwakeWhileMessagesAreFetchedAhead(t *testing.T) {
	often := knobs{config: awake(byLine), options: func(o *Options) { o.awake = 20 * time.Millisecond }}
	_, c, s, judge := row(t, often, "RETR 2\r\nQUIT\r\n", marked(1))
	s.hears("RETR 2\r\n")
	c.hears("+OK one\r\n" + sharedHead) // of the first message, and of no other
	s.hearsNothing()                    // while the server has a reply to give
	s.says("+OK two\r\n" + marked(2) + ".\r\n")
	s.hears("NOOP\r\n")
	s.says("+OK\r\n")
	c.hearsNothing()
	judge()
	c.hears(head[len(sharedHead):] + "\r\nmessage number 1\r\n.\r\n+OK two\r\n" + marked(2) + ".\r\n")
	for line := s.line(""); line != "QUIT\r\n"; line = s.line("") { // it comes when what is owed was said
		if line != "NOOP\r\n" {
			t.Fatalf("the server heard %q", line)
		}
		s.says("+OK\r\n")
	}
}

func TestAShutdownWhileMessagesAreFetchedAhead(t *testing.T) {
	r, c, s, judge := row(t, knobs{}, "RETR 2\r\n", marked(1))
	s.hears("RETR 2\r\n")
	s.says("+OK two\r\n" + marked(2) + ".\r\n")
	done := make(chan error, 1)
	go func() { done <- r.s.Shutdown(t.Context()) }()
	eventuallyEnding(t, r.s)
	judge()
	c.hears("+OK one\r\n" + marked(1) + ".\r\n") // what is under way comes to its end
	c.ended()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// eventuallyEnding waits until s has been told to end.
func eventuallyEnding(t *testing.T, s *Server) {
	t.Helper()
	for end := time.Now().Add(patience); !s.ending(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not end")
		}
	}
}

func TestAScannerThatPanicsOverWhatIsFetchedAhead(t *testing.T) {
	_, c, s, judge := row(t, knobs{}, "RETR 2\r\nRETR 3\r\nDELE 2\r\n", marked(1))
	s.hears("RETR 2\r\n")
	s.says("+OK\r\n" + head + "\r\nmakes it panic\r\n.\r\n")
	s.hears("RETR 3\r\n")
	s.says("+OK\r\n" + marked(3) + ".\r\n")
	judge()
	c.hears("+OK one\r\n" + marked(1) + ".\r\n")
	c.line("-ERR [SYS/TEMP]")
	c.hears("+OK\r\n" + marked(3) + ".\r\n")
	c.line("-ERR [SYS/TEMP]") // it is not deleted either
}

func TestHowMuchIsFetchedAhead(t *testing.T) {
	large := marked(1) + strings.Repeat(strings.Repeat("x", 70)+"\r\n", maxHeldAhead/72+1)
	_, c, s, judge := row(t, knobs{}, "RETR 2\r\n", large)
	s.hearsNothing()
	judge()
	c.hears("+OK one\r\n" + large + ".\r\n")
	s.hears("RETR 2\r\n")
	s.says("+OK\r\n" + marked(2) + ".\r\n")
	c.hears("+OK\r\n" + marked(2) + ".\r\n")
}

func TestMessagesThatAreNotHeldAreNotPassed(t *testing.T) {
	r := newRig(t, eicar(), knobs{config: func(c *Config) { c.MaxMessage = 1 << 10 }})
	c, s := r.session()
	c.says("RETR 1\r\nRETR 2\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\n" + strings.Repeat("too much\r\n", 200) + ".\r\n")
	s.hears("RETR 2\r\n")
	s.says("+OK\r\n" + marked(2) + ".\r\n")
	if got := c.message(); strings.Contains(got, "too much\r\ntoo much") {
		t.Errorf("a message that could not be held: %.80q", got)
	}
	c.hears("+OK\r\n" + marked(2) + ".\r\n")
}
