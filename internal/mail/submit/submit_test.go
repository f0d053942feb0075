package submit

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emersion/go-smtp"
)

// mailbox is an SMTP server that keeps what it is sent.
type mailbox struct {
	mu       sync.Mutex
	from     string
	to       []string
	mail     []byte
	taken    int
	refuseTo string
	hello    string // what the last client called itself
}

func (m *mailbox) NewSession(c *smtp.Conn) (smtp.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hello = c.Hostname()
	return m, nil
}

func (m *mailbox) Reset()        {}
func (m *mailbox) Logout() error { return nil }

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
	if m.hello == "localhost" || !strings.ContainsAny(m.hello, ".:") { // Postfix's reject_non_fqdn_helo_hostname
		t.Errorf("the gateway calls itself %q", m.hello)
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
		"an empty recipient":         {func(d *Delivery) { d.To = append(d.To, "") }, nil},
		"a name with its address":    {func(d *Delivery) { d.To = []string{"Ada\t<b@example>"} }, nil},
		"NUL in an address":          {func(d *Delivery) { d.From = "a\x00@example" }, nil},
		"a port alone":               {func(d *Delivery) { d.Server = d.Server[strings.IndexByte(d.Server, ':'):] }, nil},
		"no server":                  {func(d *Delivery) { d.Server = "mail" }, nil},
		"nobody listens":             {func(d *Delivery) { d.Server = "127.0.0.1:1" }, nil},
		"TLS with one without":       {func(d *Delivery) { d.Server = "smtps://" + addr; d.Timeout = 5 * time.Second }, nil},
		"a mail that breaks off":     {nil, io.MultiReader(strings.NewReader("Subject: half\r\n\r\nhalf"), iotest.ErrReader(io.ErrUnexpectedEOF))},
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
