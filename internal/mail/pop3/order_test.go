package pop3

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/spool"
)

// failsOver is a scanner that is not there for messages that have text in their body, and calls everything else clean.
func failsOver(text string) scan.Scanner {
	return &scantest.Func{Judge: func(_ context.Context, o *scan.Object) (scan.Verdict, error) {
		b := make([]byte, o.Body.Size())
		if _, err := io.ReadFull(o.Body.NewReader(), b); err != nil {
			return scan.Verdict{}, err
		}
		if bytes.Contains(b, []byte(text)) {
			return scan.IncompleteVerdict(scan.Unavailable, "gone"), nil
		}
		return scan.CleanVerdict(), nil
	}}
}

// A header that could be shown is not the message. DELE stays refused.
func TestTopOfTheHeaderDoesNotAllowDELE(t *testing.T) {
	r := newRig(t, failsOver("the body"), knobs{})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\nthe body\r\n.\r\n")
	c.line("-ERR [SYS/TEMP]")
	c.says("TOP 1 0\r\n")
	s.hears("TOP 1 0\r\n")
	s.says("+OK\r\n" + head + "\r\n.\r\n")
	c.hears("+OK\r\n" + head + "\r\n.\r\n")
	c.says("DELE 1\r\n")
	_ = s.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if line, _ := s.r.ReadString('\n'); line != "" {
		t.Fatalf("the server heard %q", line)
	}
	c.line("-ERR [SYS/TEMP]")
}

// Nor are a few lines of it the message.
func TestTopOfSomeLinesDoesNotAllowDELE(t *testing.T) {
	var works atomic.Bool
	r := newRig(t, &scantest.Func{Judge: func(context.Context, *scan.Object) (scan.Verdict, error) {
		if !works.Load() {
			return scan.IncompleteVerdict(scan.Unavailable, "gone"), nil
		}
		return scan.CleanVerdict(), nil
	}}, knobs{})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\nthe body\r\nand more\r\n.\r\n")
	c.line("-ERR [SYS/TEMP]")
	works.Store(true)
	c.says("TOP 1 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\nthe body\r\nand more\r\n.\r\n")
	c.hears("+OK\r\n" + head + "\r\nthe body\r\n.\r\n")
	c.says("DELE 1\r\n")
	_ = s.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if line, _ := s.r.ReadString('\n'); line != "" {
		t.Fatalf("the server heard %q", line)
	}
	c.line("-ERR [SYS/TEMP]")
}

// A message that the gateway has fetched, does not hold, and is not given a second time, was not given to the client.
func TestMessageThatIsNotGivenASecondTimeIsNotDeleted(t *testing.T) {
	r := newRig(t, eicar(), knobs{config: func(c *Config) { c.MaxMessage = 1 << 10 }, policy: func(p *policy.Config) { p.TooLarge = policy.Pass }})
	c, s := r.session()
	c.says("RETR 1\r\nDELE 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\n" + strings.Repeat("too much\r\n", 200) + ".\r\n")
	s.hears("RETR 1\r\n")
	s.says("-ERR [SYS/TEMP] you have had it\r\n")
	c.line("-ERR")
	_ = s.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if line, _ := s.r.ReadString('\n'); line != "" {
		t.Errorf("the server heard %q", line)
	}
}

// What a server says when it was asked nothing is not the reply to the next command.
func TestUnaskedLineIsNotTheNextReply(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	r.transcript(c, s, "C NOOP\ns NOOP\nS +OK\nc +OK")
	s.says("+OK nobody asked\r\n")
	time.Sleep(100 * time.Millisecond) // it has come
	c.says("DELE 1\r\n")
	if line := c.line(""); strings.HasPrefix(line, "+OK nobody asked") {
		t.Errorf("the client heard as the reply to DELE: %q", line)
	}
}

// Nor is a whole message, behind those that were fetched ahead.
func TestUnaskedMessageIsNotTheNextOne(t *testing.T) {
	_, c, s, judge := row(t, knobs{}, "RETR 2\r\nRETR 3\r\nRETR 4\r\n", marked(1))
	for _, n := range []int{2, 3} {
		s.line("RETR ")
		s.says("+OK\r\n" + marked(n) + ".\r\n")
	}
	s.hearsNothing()
	s.says("+OK\r\n" + marked(3) + ".\r\n") // once more
	time.Sleep(100 * time.Millisecond)      // it has come
	judge()
	c.hears("+OK one\r\n" + marked(1) + ".\r\n+OK\r\n" + marked(2) + ".\r\n+OK\r\n" + marked(3) + ".\r\n")
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
	var got strings.Builder
	_, _ = io.Copy(&got, c.r)
	if strings.Contains(got.String(), "message number 3") {
		t.Errorf("the client heard as the reply to RETR 4: %q", got.String())
	}
}

// What an earlier message of the same session holds until its verdict does not keep the next one out, which there is room for
// when it comes in its turn.
func TestAMessageThatFindsNoRoomAhead(t *testing.T) {
	small := head + "\r\nmessage number 1\r\n" + strings.Repeat("Hello, world\r\n", 17_000)
	large := head + "\r\n" + strings.Repeat("Hello, world\r\n", 40_000)
	k := knobs{spool: func(c *spool.Config) { c.Memory, c.TotalMemory, c.TotalDisk, c.MaxObject = 4096, 4096, 4<<20, 4<<20 }}
	for name, between := range map[string]string{"alone": "NOOP\r\n", "ahead": ""} {
		t.Run(name, func(t *testing.T) {
			_, c, s, judge := row(t, k, between+"RETR 2\r\n", small)
			if name == "alone" {
				judge()
				s.hears("NOOP\r\n")
				s.says("+OK\r\n")
			}
			s.hears("RETR 2\r\n")
			s.says("+OK\r\n" + large + ".\r\n")
			time.Sleep(100 * time.Millisecond)
			judge()
			c.message()
			if name == "alone" {
				c.hears("+OK\r\n")
			}
			c.message()
		})
	}
}

// A session that was cut off ends, also where its server is silent.
func TestACutOffWhileTheServerIsSilent(t *testing.T) {
	r, c, s, judge := row(t, knobs{}, "RETR 2\r\n", marked(1))
	s.hears("RETR 2\r\n")
	judge()
	c.hears("+OK one\r\n" + marked(1) + ".\r\n")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err := r.s.Shutdown(ended)
	if err == nil || strings.Contains(err.Error(), "have not ended") {
		t.Errorf("the shutdown: %v", err)
	}
	s.conn.Close()
}

// A goodbye is passed on, as the reply to a command that is not sent.
func TestAServerThatSaysGoodbye(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	s.says("-ERR Disconnected for inactivity.\r\n")
	s.conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // what it says has arrived
	time.Sleep(50 * time.Millisecond)  // it has come
	c.says("RETR 1\r\n")
	c.hears("-ERR Disconnected for inactivity.\r\n")
	c.says("DELE 1\r\n")
	c.line("-ERR [SYS/TEMP] the mail server cannot be talked to any more")
	c.ended()
	if rest := s.ended(); rest != "" {
		t.Errorf("the server heard %q", rest)
	}
}
