package quarantine

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/scan"

	"github.com/emersion/go-smtp"
)

// TestZipOpensWithEveryTool has Debian's unzip and 7z open it, which need the right password.
func TestZipOpensWithEveryTool(t *testing.T) {
	noise := make([]byte, 300<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	for name, content := range map[string][]byte{"empty": {}, "eicar": scan.EICAR(), "noise": noise, "text": bytes.Repeat([]byte("text\r\n"), 100_000)} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a.zip")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			when := time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC)
			if err := errors.Join(WriteZip(f, "Grüße.eml", when, ZipPassword, bytes.NewReader(content)), f.Close()); err != nil {
				t.Fatal(err)
			}
			packed, err := os.ReadFile(path)
			if err != nil || bytes.Contains(packed, scan.EICAR()[:30]) {
				t.Errorf("it is not encrypted: %v", err)
			}
			z, err := zip.OpenReader(path)
			if err != nil {
				t.Fatal(err)
			}
			if h := z.File[0]; len(z.File) != 1 || h.Name != "Grüße.eml" || h.UncompressedSize64 != uint64(len(content)) || !h.Modified.Equal(when) {
				t.Errorf("%+v", z.File[0].FileHeader)
			}
			z.Close()
			for _, tool := range [][]string{{"unzip", "-p", "-P"}, {"7z", "x", "-so", "-p"}} {
				for password, right := range map[string]bool{ZipPassword: true, "wrong": false} {
					args := append([]string{}, tool[1:]...)
					if tool[0] == "unzip" {
						args = append(args, password, path)
					} else {
						args[2] += password
						args = append(args, path)
					}
					got, err := exec.Command(tool[0], args...).Output()
					same := err == nil && bytes.Equal(got, content)
					if right && !same {
						t.Errorf("%s: %v, %d bytes of %d", tool[0], err, len(got), len(content))
					}
					if !right && same && len(content) > 0 {
						t.Errorf("%s opens it with another password", tool[0])
					}
				}
			}
			if out, err := exec.Command("unzip", "-t", "-P", ZipPassword, path).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("No errors")) {
				t.Errorf("unzip -t: %v %s", err, out)
			}
		})
	}
}

// mailbox is an SMTP server that keeps what it is sent.
type mailbox struct {
	mu       sync.Mutex
	from     string
	to       []string
	mail     []byte
	taken    int
	refuseTo string
}

func (m *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return m, nil }
func (m *mailbox) Reset()                                      {}
func (m *mailbox) Logout() error                               { return nil }

func (m *mailbox) Mail(from string, _ *smtp.MailOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.from, m.to = "<"+from+">", nil
	return nil
}

func (m *mailbox) Rcpt(to string, _ *smtp.RcptOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if to == m.refuseTo {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	m.to = append(m.to, to)
	return nil
}

func (m *mailbox) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mail = b
	m.taken++
	return nil
}

func smtpServer(t *testing.T, m *mailbox) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := smtp.NewServer(m)
	s.Domain = "mail.example"
	go s.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func TestSendingAgain(t *testing.T) {
	m := &mailbox{}
	addr := smtpServer(t, m)
	mail := "From: a@example\r\nSubject: dots\r\n\r\n.\r\n..\r\nbody without an end"
	d := Delivery{Server: addr, To: []string{"b@example", "c@example"}, Timeout: time.Minute}
	if err := d.Send(t.Context(), strings.NewReader(mail)); err != nil {
		t.Fatal(err)
	}
	if string(m.mail) != mail+"\r\n" || m.from != "<>" || strings.Join(m.to, " ") != "b@example c@example" {
		t.Errorf("%q from %s to %v", m.mail, m.from, m.to)
	}
	d.From = "postmaster@example"
	if err := d.Send(t.Context(), strings.NewReader(mail+"\r\n")); err != nil || m.from != "<postmaster@example>" {
		t.Errorf("%v from %s", err, m.from)
	}
}

func TestSendingFails(t *testing.T) {
	m := &mailbox{refuseTo: "nobody@example"}
	addr := smtpServer(t, m)
	ok := Delivery{Server: addr, To: []string{"b@example"}, Timeout: time.Minute}
	for name, c := range map[string]struct {
		change func(*Delivery)
		mail   io.Reader
	}{
		"an unknown recipient":       {func(d *Delivery) { d.To = append(d.To, "nobody@example") }, nil},
		"no recipient":               {func(d *Delivery) { d.To = nil }, nil},
		"a command in an address":    {func(d *Delivery) { d.To = []string{"b@example>\r\nRCPT TO:<x@example"} }, nil},
		"no server":                  {func(d *Delivery) { d.Server = "mail" }, nil},
		"nobody listens":             {func(d *Delivery) { d.Server = "127.0.0.1:1" }, nil},
		"TLS with one without":       {func(d *Delivery) { d.Server = "smtps://" + addr; d.Timeout = 5 * time.Second }, nil},
		"a mail that breaks off":     {nil, io.MultiReader(strings.NewReader("Subject: half\r\n\r\nhalf"), errReader{})},
		"a server that says nothing": {func(d *Delivery) { d.Server, d.Timeout = silent(t), 50*time.Millisecond }, nil},
	} {
		d := ok
		if c.change != nil {
			c.change(&d)
		}
		if c.mail == nil {
			c.mail = strings.NewReader("Subject: x\r\n\r\nx")
		}
		if err := d.Send(t.Context(), c.mail); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if m.taken != 0 {
		t.Errorf("the server has taken %d mails, the last one %q", m.taken, m.mail)
	}
}

func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestDescribeMail(t *testing.T) {
	for mail, want := range map[string]Entry{
		"From: A <a@x>\r\nTo: b@x,\r\n c@x\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Mon, 1 Jan 2026 00:00:00 +0000\r\n\r\nSubject: no": {
			From: "A <a@x>", To: "b@x, c@x", Subject: "Grüße", Date: "Mon, 1 Jan 2026 00:00:00 +0000",
		},
		"subject : =?iso-8859-15?Q?=A4?=\nSubject: second\n\n":           {Subject: "€"},
		"Subject: =?x-unknown?q?a?=\r\nFrom:\r\n\r\n":                    {Subject: "=?x-unknown?q?a?="},
		"garbage\r\nFrom: a\x1b[31m\x00\xff\r\n":                         {From: "a [31m \uFFFD"},
		"":                                                               {},
		"\r\nFrom: in the body\r\n":                                      {},
		"Subject: " + strings.Repeat("é", 2000) + "\r\n\r\n":             {Subject: strings.Repeat("é", 500)},
		"X: " + strings.Repeat("x", headBytes) + "\r\nFrom: far\r\n\r\n": {},
	} {
		var got Entry
		got.DescribeMail(strings.NewReader(mail))
		if got != want {
			t.Errorf("%.60q: %+v", mail, got)
		}
	}
}

func FuzzDescribeMail(f *testing.F) {
	f.Add([]byte("From: a\r\nTo: =?utf-8?b?w6k=?=\r\n\tx\r\n\r\n"))
	f.Add([]byte("Subject: =?iso-2022-jp?B?GyRC?=\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Entry
		e.DescribeMail(bytes.NewReader(b))
		for _, s := range []string{e.From, e.To, e.Subject, e.Date} {
			if len(s) > maxText || strings.ContainsAny(s, "\r\n\x00\x1b") {
				t.Fatalf("%q", s)
			}
		}
	})
}
