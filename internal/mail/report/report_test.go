package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// server is an SMTP server that keeps what it is sent.
type server struct {
	mu     sync.Mutex
	to     []string
	mails  []string
	refuse int // so many at first
}

func (s *server) NewSession(*smtp.Conn) (smtp.Session, error) { return s, nil }
func (s *server) Reset()                                      {}
func (s *server) Logout() error                               { return nil }
func (s *server) Mail(string, *smtp.MailOptions) error        { return nil }

func (s *server) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse > 0 {
		s.refuse--
		return &smtp.SMTPError{Code: 451, Message: "later"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *server) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, string(b))
	return err
}

func start(t *testing.T, s *server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(s)
	srv.Domain = "mail.example"
	go srv.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

func reporter(t *testing.T, change func(*Config)) (*Reporter, *bytes.Buffer) {
	t.Helper()
	cfg := Default()
	cfg.Notices, cfg.Faults = []string{"admin@example.org"}, []string{"root@example.org", "ops@example.org"}
	change(&cfg)
	var log bytes.Buffer // read after Close alone
	r, err := New(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r.wait = time.Millisecond
	return r, &log
}

// closed closes r, which must come to its end by itself.
func closed(t *testing.T, r *Reporter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r.Close(ctx)
	if ctx.Err() != nil {
		t.Fatal("it does not end")
	}
}

func notice(fields []byte) []byte { return append(fields, "Subject: a notice\r\n\r\nHello\r\n"...) }

func TestCopiesOfNotices(t *testing.T) {
	s := &server{}
	addr := start(t, s)
	r, _ := reporter(t, func(c *Config) { c.Server = addr })
	r.Notice("AAAA", notice)
	r.Notice("AAAA", notice) // TOP and RETR are about one notice
	r.Notice("BBBB", notice)
	closed(t, r)
	r.Notice("CCCC", notice) // too late, and no harm
	if len(s.mails) != 2 || strings.Join(s.to, " ") != "admin@example.org admin@example.org" {
		t.Fatalf("%d mails to %v", len(s.mails), s.to)
	}
	m, err := mail.ReadMessage(strings.NewReader(s.mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"To": "admin@example.org", "Subject": "a notice", "From": "Mail gateway <postmaster@"} {
		if got := m.Header.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := m.Header.Date(); err != nil || m.Header.Get("Message-Id") == "" {
		t.Errorf("%v, Message-ID %q", err, m.Header.Get("Message-Id"))
	}
}

// What a fault says comes from outside.
func TestFaults(t *testing.T) {
	s := &server{}
	addr := start(t, s)
	r, _ := reporter(t, func(c *Config) { c.Server = addr; c.From = "gw@example.org" })
	r.Fault("the gateway cannot do its work", []string{"clamd: \r\nBcc: x@example.org\r\n\r\n.\r\nQUIT", "full\x00"})
	closed(t, r)
	if len(s.mails) != 1 || strings.Join(s.to, " ") != "root@example.org ops@example.org" {
		t.Fatalf("%v to %v", s.mails, s.to)
	}
	m, err := mail.ReadMessage(strings.NewReader(s.mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(m.Body)
	if err != nil || !strings.Contains(string(body), "- clamd:   Bcc: x@example.org") || m.Header.Get("Bcc") != "" {
		t.Errorf("%s %v", body, err)
	}
	if !strings.HasSuffix(m.Header.Get("Subject"), ": the gateway cannot do its work") || m.Header.Get("Auto-Submitted") != "auto-generated" {
		t.Errorf("%v", m.Header)
	}
}

func TestServerThatRefusesAtFirst(t *testing.T) {
	s := &server{refuse: 2}
	addr := start(t, s)
	r, log := reporter(t, func(c *Config) { c.Server = addr })
	r.Notice("AAAA", notice)
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.mails)
		s.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not tried again")
		}
	}
	closed(t, r)
	if log.Len() != 0 {
		t.Error(log)
	}
}

func TestServerThatIsNotThereIsLogged(t *testing.T) {
	r, log := reporter(t, func(c *Config) { c.Server = "127.0.0.1:1" })
	r.Notice("AAAA", notice)
	closed(t, r)
	if !strings.Contains(log.String(), "AAAA") || !strings.Contains(log.String(), "[mail.report]") {
		t.Error(log)
	}
}

// Nobody is flooded, and nothing waits without an end.
func TestMailsAreBounded(t *testing.T) {
	r, log := reporter(t, func(c *Config) { c.PerHour = 5 })
	now := time.Now()
	r.now = func() time.Time { return now }
	var mails []string
	release := make(chan struct{})
	r.send = func(_ context.Context, l letter) error {
		<-release
		mails = append(mails, string(l.mail))
		return nil
	}
	for i := range 10 {
		r.Notice(fmt.Sprint("A", i), notice)
	}
	now = now.Add(61 * time.Minute)
	r.Notice("B", notice)
	close(release)
	closed(t, r)
	if len(mails) != 6 || !strings.Contains(mails[5], "\r\nX-Lazaret-Left-Out: 5 mails") || strings.Count(log.String(), "per_hour is used up") != 1 {
		t.Errorf("%d mails, the last %q\n%s", len(mails), mails[len(mails)-1], log)
	}

	// One that is too large says nothing of how many there were.
	r, log = reporter(t, func(*Config) {})
	r.Notice("large", func([]byte) []byte { return make([]byte, maxMail+1) })
	closed(t, r)
	if s := log.String(); !strings.Contains(s, "too large") || !strings.Contains(s, "notice large") || strings.Contains(s, "per_hour") || r.skipped != 0 {
		t.Errorf("%d left out: %s", r.skipped, s)
	}

	r, log = reporter(t, func(c *Config) { c.PerHour = 10_000 })
	release = make(chan struct{})
	r.send = func(context.Context, letter) error { <-release; return nil }
	for i := range maxWaiting + 50 {
		r.Notice(fmt.Sprint("C", i), notice)
	}
	if len(r.queue) > maxWaiting || len(r.known) > remembered {
		t.Errorf("%d wait", len(r.queue))
	}
	close(release)
	closed(t, r)
	if !strings.Contains(log.String(), "too many wait") {
		t.Error(log)
	}
}

func TestEndDoesNotWaitForServers(t *testing.T) {
	r, log := reporter(t, func(*Config) {})
	r.send = func(ctx context.Context, _ letter) error { <-ctx.Done(); return ctx.Err() }
	r.Notice("AAAA", notice)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Close(ctx)
	<-r.ended
	if !strings.Contains(log.String(), "AAAA") {
		t.Error(log)
	}
	r.send = nil // a panic is one mail's
	if err := r.once(t.Context(), letter{}); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Error(err)
	}
}

func TestProgram(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "mailer")
	text := "#!/bin/sh\nprintf '%s\\n' \"$@\" >" + dir + "/args\ncat >" + dir + "/mail\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	r, log := reporter(t, func(c *Config) { c.Program = []string{script, "-i", "$(id)", "--"} })
	r.Notice("AAAA", notice)
	closed(t, r)
	args, err1 := os.ReadFile(filepath.Join(dir, "args"))
	got, err2 := os.ReadFile(filepath.Join(dir, "mail"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err, log)
	}
	if string(args) != "-i\n$(id)\n--\nadmin@example.org\n" || !strings.HasSuffix(string(got), "Subject: a notice\n\nHello\n") || strings.Contains(string(got), "\r") {
		t.Errorf("%q %q", args, got)
	}

	r, log = reporter(t, func(c *Config) { c.Program = []string{"/bin/sh", "-c", "echo it is broken >&2; exit 3"} })
	r.Notice("AAAA", notice)
	closed(t, r)
	if !strings.Contains(log.String(), "it is broken") || !strings.Contains(log.String(), "exit status 3") {
		t.Error(log)
	}
}

func TestSettings(t *testing.T) {
	if r, err := New(Default(), nil); r != nil || err != nil {
		t.Error(r, err)
	}
	var none *Reporter
	none.Notice("A", notice)
	none.Fault("x", nil)
	none.Close(t.Context())
	for key, change := range map[string]func(*Config){
		"notices:":  func(c *Config) { c.Notices = []string{"Admin <a@example.org>"} },
		"faults:":   func(c *Config) { c.Faults = []string{"a@example.org\r\nBcc: b@example.org"} },
		"from:":     func(c *Config) { c.From = "a b" },
		"notices":   func(c *Config) { c.Notices = []string{"-oQ/tmp@example.org"} },
		"server:":   func(c *Config) { c.Server = "mail.example.org" },
		"program:":  func(c *Config) { c.Program = []string{"sendmail"} },
		"per_hour:": func(c *Config) { c.PerHour = 0 },
	} {
		cfg := Default()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), strings.TrimSpace(key)) {
			t.Errorf("%s %v", key, err)
		}
	}
	option := Default()
	if option.Faults = []string{"-bs"}; option.Validate() == nil {
		t.Error("an option is taken for a mailbox")
	}
	gone := Default()
	gone.Faults, gone.Program = []string{"root"}, []string{"/nonexistent/sendmail"}
	if _, err := New(gone, nil); err == nil || !strings.HasPrefix(err.Error(), "program: ") {
		t.Error(err)
	}
	cfg := Default()
	cfg.Notices = []string{"root", "root@localhost", "a.b+c@example.org"}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
