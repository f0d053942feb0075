package spam

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// checked says what a Checker says of a mail with this header.
func checked(t testing.TB, c *Checker, fields string) Result {
	t.Helper()
	b, err := newPool(t).Of([]byte(fields + "\r\nHello\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	return c.Check(t.Context(), Message{Body: b})
}

func TestListedSenders(t *testing.T) {
	cfg := Default()
	cfg.Senders = []string{"Ada@Example.org", "@bad.example", "*.worse.example", ".worst.example"}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for fields, want := range map[string]State{
		"From: Ada <ada@example.org>\r\n":                             Spam,
		"From: ADA@EXAMPLE.ORG\r\n":                                   Spam,
		"From: grace@example.org\r\n":                                 NotChecked,
		"From: x.ada@example.org\r\n":                                 NotChecked,
		"From: grace@bad.example\r\n":                                 Spam,
		"From: grace@mail.bad.example\r\n":                            NotChecked,
		"From: grace@notbad.example\r\n":                              NotChecked,
		"From: grace@a.b.worse.example\r\n":                           Spam,
		"From: grace@worst.example\r\n":                               Spam,
		"From: =?utf-8?q?=22x=22_=3Cada=40example=2Eorg=3E?=\r\n":     Spam,
		"From: grace@example.org\r\nSender: <ada@example.org>\r\n":    Spam,
		"From: grace@example.org\r\nReturn-Path: <x@bad.example>\r\n": Spam,
		"From: a@example.net,\r\n ada@example.org\r\n":                Spam,
		"To: ada@example.org\r\nSubject: ada@example.org\r\n":         NotChecked,
		"Subject: nobody\r\n":                                         NotChecked,
		// RFC 5322 (3.2.2, 3.4.1) has quotes and comments in addresses; names are names.
		"From: \"ada\"@example.org\r\n":                                      Spam,
		"From: ada@(c)example.org\r\n":                                       Spam,
		"From: ada (a \\) (nested) one) @ example.org (too)\r\n":             Spam,
		"From: Ada <\"ada\"@(c)example.org>\r\n":                             Spam,
		"From: \"ada@example.org via list\" <list@good.example>\r\n":         NotChecked,
		"From: =?big5?q?ada=40example=2Eorg?= <list@good.example>\r\n":       NotChecked,
		"From: list@good.example (ada@example.org)\r\n":                      NotChecked,
		"From: \"(\" <ada@example.org>\r\n":                                  Spam,
		"From: those: \"ada\"@example.org, x@y.example;\r\n":                 Spam,
		"From: ada@example.org via list <list@good.example>\r\n":             Spam, // no address list: whatever looks like one
		"From: x <ada@example.org\r\n":                                       Spam,
		"From: good@good.example\r\nFrom: \"ada\"@(x)example.org\r\n":        Spam,
		"From: " + strings.Repeat("x@y.example, ", 30) + "a@bad.example\r\n": Spam,
	} {
		if got := checked(t, c, fields); got.State != want || got.Err != nil || got.Fault != nil {
			t.Errorf("%.80q: %+v", fields, got)
		}
	}
	if s := c.Stats(); s.Spam == 0 || s.Skipped == 0 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
	for _, bad := range []string{"", "a b", "a@", "@", "<a@b>", "a@b@c", ".", "*"} {
		cfg.Senders = []string{bad}
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), "senders: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A header may be all that there is of a mail (RFC 5322, 3.5).
func TestSenderOfAMailThatIsAHeader(t *testing.T) {
	cfg := Default()
	cfg.Senders = []string{"ada@example.org"}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pool := newPool(t)
	for mail, want := range map[string]Result{
		"To: x@example.net\r\nFrom: ada@example.org\r\n": {State: Spam},
		"From: ada@example.org":                          {State: Spam},
		"From: grace@example.org\r\n":                    {State: NotChecked},
		strings.Repeat("X-Long: x\r\n", maxHeader/10):    {State: NotChecked, Fault: errNoHeader},
	} {
		got := c.Check(t.Context(), Message{Body: blob(t, pool, mail)})
		if got.State != want.State || !errors.Is(got.Fault, want.Fault) {
			t.Errorf("%.40q: %+v", mail, got)
		}
	}
}

// Whoever opens a FIFO waits for somebody to write into it: every check would.
func TestSendersFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{fifo, dir, "/dev/zero"} {
		cfg := Default()
		cfg.SendersFile = file
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "senders_file: ") || !strings.Contains(err.Error(), "regular file") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestSendersFileIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "senders")
	write := func(text string, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if when := time.Now().Add(-age); os.Chtimes(file, when, when) != nil {
			t.Fatal("the time cannot be set")
		}
	}
	cfg := Default()
	cfg.SendersFile = file
	if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), "senders_file: ") {
		t.Errorf("no file: %v", err)
	}
	write("# those\nada@example.org # herself\n\n", time.Hour)
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.senders.now = func() time.Time { now = now.Add(2 * time.Second); return now }
	const ada, grace = "From: ada@example.org\r\n", "From: grace@example.org\r\n"
	if a, g := checked(t, c, ada), checked(t, c, grace); a.State != Spam || g.State != NotChecked {
		t.Errorf("%+v %+v", a, g)
	}
	write("grace@example.org\n", time.Minute)
	if a, g := checked(t, c, ada), checked(t, c, grace); a.State != NotChecked || g.State != Spam {
		t.Errorf("after a change: %+v %+v", a, g)
	}
	// A file that cannot be used takes nobody off the list.
	write("grace@example.org\nno sender at all\n", 0)
	if g := checked(t, c, grace); g.State != Spam || g.Fault == nil || !strings.HasPrefix(g.Fault.Error(), "senders_file: ") || !strings.Contains(g.Fault.Error(), ":2: ") {
		t.Errorf("%+v", g)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if g := checked(t, c, grace); g.State != Spam || g.Fault == nil {
		t.Errorf("%+v", g)
	}
}

func FuzzSender(f *testing.F) {
	for _, s := range []string{"ada@example.org", ".example.org", "*.x", "@y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := sender(s)
		if err != nil {
			return
		}
		again, err := sender(e)
		if err != nil || again != e || strings.ContainsAny(e, " \r\n\t<>") {
			t.Fatalf("%q: %q, %q, %v", s, e, again, err)
		}
	})
}
