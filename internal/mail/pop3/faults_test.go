package pop3

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/spool"
)

func TestScannerDown(t *testing.T) {
	var v scan.Scanner = scantest.Always(scan.IncompleteVerdict(scan.Unavailable, "gone"))
	r := newRig(t, v, knobs{})
	c, s := r.session()
	for range 2 {
		c.says("RETR 1\r\n")
		s.hears("RETR 1\r\n")
		s.says("+OK\r\n" + head + "\r\nHello\r\n.\r\n")
		c.line("-ERR [SYS/TEMP] the message could not be examined now")
	}
	// A program that deletes what it believes to have fetched must not lose it.
	r.transcript(c, s, "C DELE 1\nc -ERR [SYS/TEMP]*\nC DELE 2\ns DELE 2\nS +OK\nc +OK\nC QUIT\ns QUIT\nS +OK\nc +OK")
}

func TestScannerThatPanics(t *testing.T) {
	r := newRig(t, scantest.Panics("oh"), knobs{})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\nHello\r\n.\r\n")
	c.line("-ERR [SYS/TEMP]")
	r.transcript(c, s, "C NOOP\ns NOOP\nS +OK\nc +OK")
}

func TestFullSpool(t *testing.T) {
	r := newRig(t, eicar(), knobs{spool: func(c *spool.Config) { c.Memory, c.TotalMemory, c.TotalDisk, c.MaxObject = 4096, 4096, 1<<20, 1<<20 }})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	others := r.pool.New() // what else there is to be scanned
	defer others.Discard()
	if _, err := others.Write(make([]byte, 1<<20-4096)); err != nil {
		t.Fatal(err)
	}
	s.says("+OK\r\n" + head + "\r\n" + strings.Repeat("Hello, world\r\n", 10_000) + ".\r\n")
	c.line("-ERR [SYS/TEMP] the message could not be examined now (spool-full)")
	r.transcript(c, s, "C DELE 1\nc -ERR*\nC NOOP\ns NOOP\nS +OK\nc +OK")
}

func TestMessageThatIsTooLarge(t *testing.T) {
	large := head + "\r\n" + strings.Repeat("..Hello, world\r\n", 10_000)
	small := func(c *Config) { c.MaxMessage = 10_000 }
	t.Run("replaced", func(t *testing.T) {
		r := newRig(t, eicar(), knobs{config: small})
		c, s := r.session()
		c.says("RETR 1\r\n")
		s.hears("RETR 1\r\n")
		s.says("+OK\r\n" + large + ".\r\n")
		if got := c.message(); !strings.Contains(got, "could not be examined (too-large)") {
			t.Errorf("no notice: %s", got)
		}
	})
	t.Run("passed by policy", func(t *testing.T) {
		r := newRig(t, eicar(), knobs{config: small, policy: func(p *policy.Config) { p.TooLarge = policy.Pass }})
		c, s := r.session()
		c.says("RETR 1\r\n")
		for range 2 { // it is fetched again, as it was not kept
			s.hears("RETR 1\r\n")
			s.says("+OK large\r\n" + large + ".\r\n")
		}
		c.hears("+OK large\r\n" + large + ".\r\n")
	})
}

func TestServerGoneInTheMiddleOfAMessage(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\nHello\r\n")
	s.conn.Close()
	if got := c.ended(); !strings.HasPrefix(got, "-ERR [SYS/TEMP]") || strings.Contains(got, "Hello") {
		t.Errorf("the client heard %q", got)
	}
	c, s = r.session() // the listener lives
	r.transcript(c, s, "C NOOP\ns NOOP\nS +OK\nc +OK")
}

func TestServerThatLetsNobodyIn(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.connect()
	s.says("-ERR [SYS/TEMP] full house\r\n")
	c.hears("-ERR [SYS/TEMP] full house\r\n")
	c.ended()
}

func TestLimits(t *testing.T) {
	r := newRig(t, eicar(), knobs{config: func(c *Config) { c.MaxPerClient = 2 }})
	r.session()
	c, s := r.session()
	third := r.dial()
	third.line("-ERR [SYS/TEMP] too many connections")
	third.ended()
	r.transcript(c, s, "C QUIT\ns QUIT\nS +OK\nc +OK")
	c.ended()
	s.ended()
	for r.s.Sessions() > 1 {
		time.Sleep(time.Millisecond)
	}
	r.session()
}

func TestClientThatIsNotAllowed(t *testing.T) {
	r := newRig(t, eicar(), knobs{config: func(c *Config) { c.AllowClients = []string{"192.0.2.0/24"} }})
	c := r.dial()
	c.line("-ERR [SYS/PERM] this address is not served here")
	c.ended()
}

func TestSilentClient(t *testing.T) {
	r := newRig(t, eicar(), knobs{config: func(c *Config) { c.IdleTimeout = 1 }})
	c, s := r.session()
	c.line("-ERR no command came for too long")
	if got := c.ended() + s.ended(); got != "" {
		t.Errorf("%q followed", got)
	}
}

func TestServerChosenByLogin(t *testing.T) {
	r := newRig(t, eicar(), knobs{config: func(c *Config) {
		c.Upstream, c.LoginServers = "", []string{"pop.example.org", "*.example.net:2110"}
	}})
	c := r.dial()
	c.line("+OK")
	for _, refused := range []string{"ada", "ada#evil.example", "ada#pop.example.org:25", "ada#example.net:2110", "ada#tls://pop.example.org", "#pop.example.org"} {
		c.says("USER " + refused + "\r\n")
		c.line("-ERR")
	}
	c.says("CAPA\r\n")
	c.message()
	c.says("PASS x\r\n")
	c.line("-ERR")
	c.says("USER ada#lovelace#pop.a.example.net:2110\r\n")
	conn, err := r.server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := r.end("server", conn)
	s.says("+OK hello\r\n")
	s.hears("USER ada#lovelace\r\n")
	s.says("+OK password?\r\n")
	c.hears("+OK password?\r\n")
	// A program that asks for the password once more says the whole login again. The server knows nothing of the "#".
	r.transcript(c, s, `C PASS x y
s PASS x y
S -ERR no
c -ERR no
C USER grace#POP.a.example.net:2110
s USER grace
S +OK
c +OK
C USER grace#pop.b.example.net:2110
c -ERR *
C USER grace#pop.a.example.net
c -ERR *
C USER grace#
c -ERR *
C USER ada
s USER ada
S +OK
c +OK
C PASS x
s PASS x
S +OK
c +OK`)
	c.says("USER grace#pop.a.example.net:2110\r\nRETR 1\r\n")
	s.hears("USER grace\r\n")
	s.says("+OK\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + infected() + ".\r\n")
	c.hears("+OK\r\n")
	c.message()
	if all := r.sink.list(); len(all) < 2 || all[len(all)-1].Facts.User != "grace" {
		t.Errorf("servers that are not allowed were not recorded, or the mail not with its user: %+v", all)
	}
	c.conn.Close()
	if got := s.ended(); got != "" { // many servers let a mailbox be opened once, or a few times
		t.Errorf("%q followed", got)
	}
}

func TestConnectionWithoutDestination(t *testing.T) {
	r := newRig(t, eicar(), knobs{config: func(c *Config) { c.Upstream = "" }})
	c := r.dial()
	c.line("-ERR [SYS/PERM]")
	c.ended()
}

func TestServerThatCannotBeReached(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	r.server.Close()
	c := r.dial()
	c.line("-ERR [SYS/TEMP]")
	c.ended()
}

func TestClientGoneInTheMiddleOfAMessage(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	c.conn.Close()
	s.says("+OK\r\n" + head + "\r\n" + strings.Repeat("Hello, world\r\n", 100_000) + ".\r\n")
	s.ended()
	c, s = r.session()
	r.transcript(c, s, "C NOOP\ns NOOP\nS +OK\nc +OK")
}

func TestManySessions(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c, s := r.session()
			c.says("RETR 1\r\n")
			s.hears("RETR 1\r\n")
			s.says("+OK\r\n" + infected() + ".\r\n")
			if got := c.message(); strings.Contains(got, string(scan.EICAR())) {
				t.Error("the virus came through")
			}
		})
	}
}
