package pop3

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// unstuff reads wire in pieces of n bytes.
func unstuff(wire []byte, n int) (text []byte, u *unstuffer, rest []byte) {
	u = &unstuffer{}
	dst := make([]byte, 7)
	for len(wire) > 0 && !u.done() {
		piece := wire[:min(n, len(wire))]
		taken, given := u.next(dst, piece)
		text = append(text, dst[:given]...)
		wire = wire[taken:]
	}
	return text, u, wire
}

// plainly is unstuff as RFC 1939 says it, for the whole at once.
func plainly(wire string) (text string, done bool) {
	wire = "\r\n" + wire
	body, _, done := strings.Cut(wire, "\r\n.\r\n")
	if done {
		body += "\r\n"
	}
	return strings.TrimPrefix(strings.ReplaceAll(body, "\r\n.", "\r\n"), "\r\n"), done
}

func TestUnstuffing(t *testing.T) {
	for _, c := range []struct{ wire, text string }{
		{".\r\n", ""},
		{"a\r\n.\r\n", "a\r\n"},
		{"..\r\n.\r\n", ".\r\n"},
		{".x\r\n.\r\n", "x\r\n"},
		{"a\n.\nb\r\n.\r\n", "a\n.\nb\r\n"},
		{"a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n"},
		{".\nb\r\n.\r\n", "\nb\r\n"},
		{".\r.\r\n.\r\n", "\r.\r\n"},
		{"\r\r\n.\r\n", "\r\r\n"},
		{"\x00\r\n.\r\n", "\x00\r\n"},
		{".\r\r\n.\r\n", "\r\r\n"},
	} {
		for n := 1; n < 6; n++ {
			text, u, rest := unstuff([]byte(c.wire+"more"), n)
			if string(text) != c.text || !u.done() || string(rest) != "more" {
				t.Errorf("%q in pieces of %d: %q, %v, rest %q", c.wire, n, text, u.done(), rest)
			}
		}
	}
}

func FuzzStuffing(f *testing.F) {
	for _, s := range []string{"a\r\n.\r\n", "..\r\n.x\r\n.\rx\r\n.\n.\r\n", "a\n.\nb\r\n.\r\nc", ".\r\n", ".", ".\r", "\r\r\n.\r\r\n.\r\n", "\x00.\r\n.\r\n"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, wire []byte, n int) {
		n = max(1, min(n, 50))
		text, u, rest := unstuff(wire, n)
		want, done := plainly(string(wire))
		if done != u.done() {
			t.Fatalf("%q: ended is %v", wire, u.done())
		}
		if !done {
			return
		}
		if string(text) != want {
			t.Fatalf("%q: %q, not %q", wire, text, want)
		}
		if u.at != int64(len(text)) {
			t.Fatalf("%q: %d bytes are %d", wire, len(text), u.at)
		}
		if len(u.odd) == maxOdd {
			return
		}
		st := stuffer{odd: u.odd}
		var out []byte
		for b := text; len(b) > 0; {
			k := min(n, len(b))
			out = st.append(out, b[:k])
			b = b[k:]
		}
		if out = st.end(out); !bytes.Equal(out, wire[:len(wire)-len(rest)]) {
			t.Fatalf("%q came back as %q", wire, out)
		}
	})
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{"RETR 1\r\n", "top 1 20", "USER a b\n", "", "  ", "AUTH PLAIN =\r\n", "APOP a b\r", "RETR 99999999999999999999", "LIST -1", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		c, err := parseCommand(line)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(c.line, []byte("\r\n")) || bytes.ContainsAny(c.line[:len(c.line)-2], "\r\n\x00") {
			t.Fatalf("%q is passed on as %q", line, c.line)
		}
		if c.verb == "" || c.verb != strings.ToUpper(c.verb) {
			t.Fatalf("%q: verb %q", line, c.verb)
		}
		c.reply()
		if n := c.number(); n < 0 {
			t.Fatalf("%q: number %d", line, n)
		}
		c.lines()
		again, err := parseCommand(c.line)
		if err != nil || again.verb != c.verb || !bytes.Equal(again.line, c.line) {
			t.Fatalf("%q is read again as %+v, %v", c.line, again, err)
		}
	})
}

func FuzzReplies(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "-ERR no\r\n", "+ \r\n", "SASL PLAIN X-PLUS\r\n", "+OKAY", "STLS"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if ok, err := status(line); ok && (err != nil || !bytes.HasPrefix(line, []byte("+OK"))) {
			t.Fatalf("%q is positive", line)
		}
		challenge(line)
		for _, tls := range []bool{true, false} {
			if out := strings.ToUpper(string(capability(line, tls))); strings.HasPrefix(out, "SASL") && strings.Contains(out+" ", "-PLUS ") {
				t.Fatalf("%q leaves %q", line, out)
			}
		}
		mechanism(line)
	})
}

// More of the same head never takes back what was shared before, and a notice begins with it.
func FuzzSharedFields(f *testing.F) {
	for _, s := range []string{head, "From: a\r\n b\r\nDKIM-Signature: x\r\nTo: b\r\n\r\n", "From: a\n", "\r\nFrom: b\r\n", "From: a\r\n \r\nTo: b\r\n", "From a\r\n", "To: \x00\r\n"} {
		f.Add([]byte(s), 10)
	}
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		n = max(0, min(n, len(text)))
		part, all := shared(text[:n]), shared(text)
		if part > all || all > len(text) {
			t.Fatalf("%d of %d bytes are shared, then %d", part, n, all)
		}
		raw, _ := kept(text)
		if !bytes.HasPrefix(raw, text[:all]) {
			t.Fatalf("what is kept, %q, does not begin with what is shared, %q", raw, text[:all])
		}
		if bytes.Contains(raw, []byte("\r\n.")) || bytes.HasPrefix(raw, []byte(".")) || bytes.Contains(raw, []byte("\r\n\r\n")) {
			t.Fatalf("%q could end the header, or a reply", raw)
		}
	})
}

func TestShared(t *testing.T) {
	for name, c := range map[string]struct{ head, shared string }{
		"up to the subject":         {"From: a\r\nTo: b\r\nSubject: c\r\nDate: d\r\n", "From: a\r\nTo: b\r\n"},
		"up to MIME":                {"From: a\r\nMIME-Version: 1.0\r\nTo: b\r\n", "From: a\r\n"},
		"folded":                    {"Received: a\r\n\tb\r\n c\r\nContent-Type: x\r\n", "Received: a\r\n\tb\r\n c\r\n"},
		"nothing":                   {"Subject: a\r\n", ""},
		"a line that has not ended": {"From: a\r\nTo: b", "From: a\r\n"},
		"bare LF":                   {"From: a\r\nTo: b\nDate: c\r\n", "From: a\r\n"},
		"NUL":                       {"From: a\x00\r\n", ""},
		"no header":                 {"\r\nFrom: a\r\n", ""},
		"begins with white space":   {" From: a\r\n", ""},
	} {
		if got := c.head[:shared([]byte(c.head))]; got != c.shared {
			t.Errorf("%s: %q, not %q", name, got, c.shared)
		}
	}
}

func TestBeginning(t *testing.T) {
	msg := "A: b\r\nC: d\r\n\r\none\r\n" + strings.Repeat("x", 10_000) + "\r\nthree\r\nfour"
	for n, want := range []string{"A: b\r\nC: d\r\n\r\n", "A: b\r\nC: d\r\n\r\none\r\n", "A: b\r\nC: d\r\n\r\none\r\n" + strings.Repeat("x", 10_000) + "\r\n"} {
		b := &beginning{r: newReader(msg), lines: n}
		got, err := io.ReadAll(iotest.OneByteReader(b))
		if err != nil || string(got) != want {
			t.Errorf("%d lines: %.60q, %v", n, got, err)
		}
	}
	for _, n := range []int{4, 9} {
		if got, err := io.ReadAll(&beginning{r: newReader(msg), lines: n}); err != nil || string(got) != msg {
			t.Errorf("%d lines: %.60q, %v", n, got, err)
		}
	}
}

func TestConfig(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for want, change := range map[string]func(*Config){
		"upstream: ":                func(c *Config) { c.Upstream = "smtp://x:25" },
		"upstream: \"x:0\"":         func(c *Config) { c.Upstream = "x:0" },
		"listen_tls: a mail":        func(c *Config) { c.ListenTLS, c.Upstream = []string{":995"}, "x:110" },
		"tls_ports: 70000":          func(c *Config) { c.TLSPorts = []int{70000} },
		"login_servers: \"*\"":      func(c *Config) { c.LoginServers = []string{"*"} },
		"login_servers: with an":    func(c *Config) { c.LoginServers, c.Upstream = []string{"a"}, "b" },
		"allow_clients: \"x\"":      func(c *Config) { c.AllowClients = []string{"x"} },
		"keep_alive: is negative":   func(c *Config) { c.KeepAlive = -1 },
		"keep_alive_unit: \"word\"": func(c *Config) { c.KeepAliveUnit = "word" },
		"max_sessions: must":        func(c *Config) { c.MaxSessions = 0 },
		"min_rate: must":            func(c *Config) { c.MinRate = -1 },
	} {
		c := Default()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
	for s, want := range map[string]server{
		"a": {"a", 110, withoutTLS}, "a:1": {"a", 1, withoutTLS}, "tls://A": {"a", 995, fromTheStart}, "stls://a": {"a", 110, demandSTLS},
		"tls://[::1]:9": {"::1", 9, fromTheStart}, "pop3://a:2": {"a", 2, withoutTLS},
	} {
		if got, err := parseUpstream(s); err != nil || got != want {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}
