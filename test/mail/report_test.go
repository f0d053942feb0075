package mail

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/test/harness"

	"github.com/emersion/go-smtp"
)

// office is the mail server that administrators have.
type office struct {
	mu    sync.Mutex
	to    []string
	mails []string
}

func (o *office) NewSession(*smtp.Conn) (smtp.Session, error) { return o, nil }
func (o *office) Reset()                                      {}
func (o *office) Logout() error                               { return nil }
func (o *office) Mail(string, *smtp.MailOptions) error        { return nil }

func (o *office) Rcpt(to string, _ *smtp.RcptOptions) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to = append(o.to, to)
	return nil
}

func (o *office) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mails = append(o.mails, string(b))
	return err
}

func (o *office) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.mails)
}

// TestHTMLSendersAndCopies: HTML is disarmed, mails of listed senders are marked, and administrators get a copy of the notice.
func TestHTMLSendersAndCopies(t *testing.T) {
	html := []byte("Received: from a by b\r\nFrom: Grace <grace@example.org>\r\nTo: ada@example.net\r\nSubject: html\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/html; charset=utf-8\r\n\r\n<p>Hello<script>x()</script><img src=\"https://x.example/?ada\"></p>\r\n")
	box := [][]byte{
		html, mailOf("second", scan.EICAR()), mailOf("third", []byte("nothing")),
		[]byte("From: " + string(scan.EICAR()) + " <grace@example.org>\r\nTo: ada@example.net\r\nSubject: fourth\r\n\r\nHello\r\n"),
	}
	o := &office{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(o)
	server.Domain = "office.example"
	go server.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { server.Close() })
	d := startDovecot(t, "127.0.0.1", "", "", box)
	g := startWith(t, d, harness.Settings{
		"mail.html":   "disarm = \"all\"\n",
		"mail.spam":   "senders = [\".example.org\"]\nsubject = \"[SPAM]\"\n",
		"mail.report": fmt.Sprintf("notices = [\"admin@example.org\"]\nserver = %q\n", l.Addr()),
	})
	got := fetch(t, g, 1)
	if bytes.Contains(got, []byte("script")) || bytes.Contains(got, []byte("x.example")) || !bytes.Contains(got, []byte("<p>Hello")) {
		t.Errorf("the HTML is:\n%s", got)
	}
	if !bytes.Contains(got, []byte("\r\nSubject: [SPAM] html\r\n")) || !bytes.Contains(got, []byte("X-Spam-Flag: YES\r\n")) {
		t.Errorf("the sender is listed:\n%s", got)
	}
	if got := fetch(t, g, 2); !bytes.Contains(got, []byte("Eicar")) || bytes.Contains(got, []byte(secret)) {
		t.Errorf("no notice:\n%s", got)
	}
	if got := fetch(t, g, 4); !bytes.Contains(got, []byte("Eicar")) || bytes.Contains(got, scan.EICAR()) {
		t.Errorf("the notice repeats what was found in From:\n%s", got)
	}
	for end := time.Now().Add(time.Minute); o.count() < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("copies do not come:\n%s", g.Log)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.mails[0]; !strings.Contains(c, "Eicar") || !strings.Contains(c, "To: admin@example.org\r\n") || strings.Join(o.to, " ") != "admin@example.org admin@example.org" || strings.Contains(c, secret) {
		t.Errorf("the copy to %v:\n%s", o.to, c)
	}
	if c := o.mails[1]; !strings.Contains(c, "Eicar") || strings.Contains(c, string(scan.EICAR())) {
		t.Errorf("the copy repeats what was found in From:\n%s", c)
	}
}
