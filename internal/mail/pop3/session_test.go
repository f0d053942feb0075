package pop3

import (
	"strings"
	"testing"

	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
)

// transcript plays a conversation. Lines begin with who says what: "C" the client, "S" the server; "c" and "s" what they
// must hear. A line has its CRLF added; what ends in "*" is a prefix.
func (r *rig) transcript(client, server *end, text string) {
	r.t.Helper()
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		if l == "" {
			continue
		}
		who, what, _ := strings.Cut(l, " ")
		e := client
		if strings.EqualFold(who, "S") {
			e = server
		}
		switch {
		case who == "C", who == "S":
			e.says(what + "\r\n")
		case strings.HasSuffix(what, "*"):
			e.line(strings.TrimSuffix(what, "*"))
		default:
			e.hears(what + "\r\n")
		}
	}
}

func TestDialogueIsVerbatim(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	r.transcript(c, s, `
		C apop ada  c4c9334bac560ecc979e58001b3e22fb
		s apop ada  c4c9334bac560ecc979e58001b3e22fb
		S +OK maildrop has 2 messages
		c +OK maildrop has 2 messages
		C STAT
		s STAT
		S +OK 2 320 and more words
		c +OK 2 320 and more words
		C LIST 1
		s LIST 1
		S +OK 1 120
		c +OK 1 120
		C LIST
		s LIST
		S +OK 2 messages
		S 1 120
		S 2 200
		S .
		c +OK 2 messages
		c 1 120
		c 2 200
		c .
		C UIDL
		s UIDL
		S +OK
		S 1 ..dots
		S .
		c +OK
		c 1 ..dots
		c .
		C UIDL 2
		s UIDL 2
		S -ERR [X-WHAT] no
		c -ERR [X-WHAT] no
		C LANG
		s LANG
		S +OK
		S fr Français
		S .
		c +OK
		c fr Français
		c .
		C LANG fr
		s LANG fr
		S +OK fr
		c +OK fr
		C UTF8
		s UTF8
		S +OK
		c +OK
		C NOOP
		s NOOP
		S +OK
		c +OK
		C DELE 2
		s DELE 2
		S +OK gone
		c +OK gone
		C RSET
		s RSET
		S +OK back
		c +OK back
		C RETR 9
		s RETR 9
		S -ERR no such message
		c -ERR no such message
		C TOP 9 3
		s RETR 9
		S -ERR no such message
		c -ERR no such message
		C QUIT
		s QUIT
		S +OK bye
		c +OK bye`)
	if rest := c.ended() + s.ended(); rest != "" {
		t.Errorf("%q followed", rest)
	}
}

// Every form that a message has on the wire comes through as it is.
func TestCleanMessagesAreUntouched(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	for name, wire := range map[string]string{
		"ordinary":                        head + "\r\nHello\r\n",
		"empty":                           "",
		"stuffed dots":                    head + "\r\n..\r\n...\r\n..x\r\n",
		"dots that should have been two":  head + "\r\n.x\r\n. \r\n.\rx\r\n",
		"LF dot LF":                       head + "\r\nbefore\n.\nafter\r\n",
		"LF dot CRLF":                     head + "\r\nbefore\n.\r\nafter\r\n",
		"CRLF dot LF":                     head + "\r\nbefore\r\n.\nafter\r\n",
		"CR dot CR":                       head + "\r\nbefore\r.\rafter\r\n",
		"dot CR dot":                      head + "\r\n.\r.\r\n",
		"NUL":                             head + "\r\na\x00b\x00\r\n\x00\r\n",
		"8 bit":                           head + "\r\n\xff\xfe\x80\r\n",
		"a line of 4095 bytes before dot": head + "\r\n" + strings.Repeat("x", 4095) + ".\r\n.." + strings.Repeat("y", 4094) + ".\r\nz\r\n",
		"a line of 200,000 bytes":         head + "\r\n" + strings.Repeat("x", 200_000) + "\r\n",
		"no header":                       "\r\nbody\r\n",
		"no body":                         head,
		"bare LF":                         strings.ReplaceAll(head, "\r\n", "\n") + "\nHello\n\r\n",
	} {
		c.says("RETR 1\r\n")
		s.hears("RETR 1\r\n")
		s.says("+OK here it is\r\n" + wire + ".\r\n")
		t.Log(name)
		c.hears("+OK here it is\r\n" + wire + ".\r\n")
	}
	c.says("NOOP\r\n")
	s.hears("NOOP\r\n")
}

func TestInfectedMessageIsReplaced(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + infected() + ".\r\n")
	got := c.message()
	if strings.Contains(got, string(scan.EICAR())) {
		t.Fatal("the virus came through")
	}
	kept, _, _ := strings.Cut(head, "Subject:")
	if !strings.HasPrefix(got, kept) {
		t.Errorf("the original's fields are not at the beginning:\n%s", got)
	}
	header, _, _ := strings.Cut(got, "\r\n\r\n")
	if !strings.Contains(header, "\r\nSubject: [Virus] found in a mail to you: Eicar-Test-Signature\r\n") || strings.Contains(header, "the subject") {
		t.Errorf("the subject is not the notice's:\n%s", header)
	}
	r.transcript(c, s, "C DELE 1\ns DELE 1\nS +OK\nc +OK")
}

// What follows a dot that only some take for the end is scanned with the rest.
func TestFalseEndsHideNothing(t *testing.T) {
	for _, dot := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", strings.Repeat("x", 4095) + ".\r\n"} {
		r := newRig(t, eicar(), knobs{})
		c, s := r.session()
		c.says("RETR 1\r\n")
		s.hears("RETR 1\r\n")
		s.says("+OK\r\n" + head + "\r\nHello" + dot + string(scan.EICAR()) + "\r\n.\r\n")
		if got := c.message(); strings.Contains(got, string(scan.EICAR())) {
			t.Errorf("%q: the virus came through", dot)
		}
		r.transcript(c, s, "C NOOP\ns NOOP\nS +OK\nc +OK")
	}
}

func TestTop(t *testing.T) {
	scanner := scantest.FindsEICAR()
	r := newRig(t, scanner, knobs{})
	c, s := r.session()
	t.Run("the whole is fetched and remembered for RETR", func(*testing.T) {
		c.says("TOP 1 2\r\n")
		s.hears("RETR 1\r\n")
		s.says("+OK 99 octets\r\n" + head + "\r\n..one\r\ntwo\r\nthree\r\n.\r\n")
		c.hears("+OK\r\n" + head + "\r\n..one\r\ntwo\r\n.\r\n")
		c.says("RETR 1\r\n")
		c.hears("+OK\r\n" + head + "\r\n..one\r\ntwo\r\nthree\r\n.\r\n")
	})
	t.Run("more lines than there are", func(*testing.T) {
		c.says("TOP 1 20\r\n")
		s.hears("RETR 1\r\n")
		s.says("+OK\r\n" + head + "\r\none\r\n.\r\n")
		c.hears("+OK\r\n" + head + "\r\none\r\n.\r\n")
	})
	t.Run("a virus behind the lines that are wanted", func(t *testing.T) {
		c.says("TOP 2 1\r\n")
		s.hears("RETR 2\r\n")
		s.says("+OK\r\n" + head + "\r\none\r\n" + string(scan.EICAR()) + "\r\n.\r\n")
		if got := c.message(); strings.Contains(got, "one") || !strings.Contains(got, "[Virus]") {
			t.Errorf("no notice: %s", got)
		}
		c.says("RETR 2\r\n")
		if got := c.message(); !strings.Contains(got, "Eicar-Test-Signature") {
			t.Errorf("no notice: %s", got)
		}
	})
	t.Run("a header alone is judged by itself", func(t *testing.T) {
		before := scanner.Calls()
		c.says("TOP 3 0\r\n")
		s.hears("TOP 3 0\r\n")
		s.says("+OK top\r\n" + head + "\r\n.\r\n")
		c.hears("+OK top\r\n" + head + "\r\n.\r\n")
		if scanner.Calls() == before {
			t.Error("nobody looked at it")
		}
		c.says("TOP 3 0\r\n")
		s.hears("TOP 3 0\r\n")
		s.says("+OK\r\n" + infected() + ".\r\n") // a server that gives more than was asked for
		if got := c.message(); strings.Contains(got, string(scan.EICAR())) {
			t.Error("the virus came through")
		}
	})
}

func TestCapabilities(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	r.transcript(c, s, `
		C CAPA
		s CAPA
		S +OK
		S TOP
		S X-COMPRESS DEFLATE
		S SASL PLAIN SCRAM-SHA-256-PLUS SCRAM-SHA-256
		S stls
		S PIPELINING
		S .
		c +OK
		c TOP
		c SASL PLAIN SCRAM-SHA-256
		c stls
		c PIPELINING
		c .
		C AUTH
		s AUTH
		S +OK
		S PLAIN
		S SCRAM-SHA-1-PLUS
		S .
		c +OK
		c PLAIN
		c .
		C AUTH SCRAM-SHA-1-PLUS
		c -ERR this mechanism is bound*`)
}

func TestAuthIsOpaque(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	r.transcript(c, s, `
		C AUTH CRAM-MD5
		s AUTH CRAM-MD5
		S + PDE4OTYuNjk3MTcwOTUyQG1haWw+
		c + PDE4OTYuNjk3MTcwOTUyQG1haWw+
		C dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw
		s dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw
		S +
		c +
		C *
		s *
		S -ERR given up
		c -ERR given up
		C AUTH PLAIN AGFkYQBsb3ZlbGFjZQ==
		s AUTH PLAIN AGFkYQBsb3ZlbGFjZQ==
		S +OK in
		c +OK in`)
}

func TestPipelining(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	c.says("UIDL 1\r\nTOP 1 1\r\nRETR 2\r\nDELE 1\r\nQUIT\r\n")
	s.hears("UIDL 1\r\n")
	s.says("+OK 1 a\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\none\r\ntwo\r\n.\r\n")
	s.hears("RETR 2\r\n")
	s.says("+OK\r\n" + infected() + ".\r\n")
	s.hears("DELE 1\r\n")
	s.says("+OK\r\n")
	s.hears("QUIT\r\n")
	s.says("+OK bye\r\n")
	c.hears("+OK 1 a\r\n+OK\r\n" + head + "\r\none\r\n.\r\n")
	c.message()
	c.hears("+OK\r\n+OK bye\r\n")
}

func TestCommandsThatMeanSomethingElseToTheServer(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	for _, line := range []string{"USER a\rDELE 1", "RETR 1\x00", " RETR 1", "", "XTND XMIT", "RETR\v1"} {
		c.says(line + "\r\n")
		if line == "RETR\v1" { // white space to some; the reply is taken for a message, as it would be
			s.hears(line + "\r\n")
			s.says("-ERR what\r\n")
		}
		c.line("-ERR")
	}
	// A bare LF ends a command for the gateway as for servers: two commands, two replies.
	c.says("STAT\nNOOP\n")
	s.hears("STAT\r\n")
	s.says("+OK 0 0\r\n")
	s.hears("NOOP\r\n")
	s.says("+OK\r\n")
	c.hears("+OK 0 0\r\n+OK\r\n")
	c.says(strings.Repeat("x", maxLine+clientBuffer))
	c.line("-ERR")
	c.ended()
}

func TestRepliesThatCannotBeMatchedEndTheSession(t *testing.T) {
	for _, reply := range []string{"what\r\n", "+OK\r\n+OK again\r\n", "* OK IMAP\r\n"} {
		r := newRig(t, eicar(), knobs{})
		c, s := r.session()
		c.says("NOOP\r\n")
		s.hears("NOOP\r\n")
		s.says(reply)
		c.says("STAT\r\n")
		if got := c.ended(); !strings.Contains(got, "-ERR "+temporary) {
			t.Errorf("%q: the client heard %q", reply, got)
		}
	}
}

// CVE-2011-0411 and its kin: what came without TLS must not be taken for something that came with it.
func TestCommandInjectionBehindSTLS(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	c.says("STLS\r\nUSER mallory\r\n")
	c.line("-ERR")
	if got := c.ended() + s.ended(); got != "" {
		t.Errorf("%q followed", got)
	}
}

func TestResponseInjectionBehindSTLS(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	c.says("STLS\r\n")
	s.hears("STLS\r\n")
	s.says("+OK begin TLS\r\n+OK injected\r\n")
	if got := c.ended(); !strings.HasPrefix(got, "-ERR "+temporary) || strings.Contains(got, "injected") {
		t.Errorf("the client heard %q", got)
	}
}

func TestServerThatRefusesSTLS(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	r.transcript(c, s, "C STLS\ns STLS\nS -ERR no\nc -ERR no\nC NOOP\ns NOOP\nS +OK\nc +OK")
}
