package mail

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"lazaret/internal/quarantine"
	"lazaret/test/harness"
)

// TestOriginalOfAStrippedMailIsKept: what attachment rules take out of a mail is in the quarantine, whole, under the
// reference of the note, with the login of an AUTH exchange.
func TestOriginalOfAStrippedMailIsKept(t *testing.T) {
	box := [][]byte{mailOf("first", program())}
	d := startDovecot(t, "127.0.0.1", "", "", box)
	g := startWith(t, d, harness.Settings{"mail.attachments": "strip = [\"executable\"]\n"})
	got := []byte(run(t, t.TempDir(), "", nil, "curl", "-sS", "--login-options", "AUTH=PLAIN", "-u", user+":"+password, "pop3://127.0.0.1:"+port(g.POP3)+"/1"))
	if bytes.Equal(got, box[0]) {
		t.Fatal("the mail was not changed: nothing is tested")
	}
	var e quarantine.Entry
	if list := lazaret(t, g, "quarantine", "list", "--json"); bytes.Count(list, []byte("\n")) != 1 || json.Unmarshal(list, &e) != nil {
		t.Fatalf("%s", list)
	}
	if !strings.Contains(e.Rule, "mail.attachments") || e.User != user || e.Size != int64(len(box[0])) {
		t.Errorf("%+v", e)
	}
	if !bytes.Contains(got, []byte(e.ID)) {
		t.Errorf("the note does not say %s:\n%s", e.ID, got)
	}
	if strings.Contains(g.Log.String(), password) {
		t.Error("the password is in the log")
	}
}

// talk is a session by hand.
type talk struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func talkTo(t *testing.T, address string) *talk {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	k := &talk{t, c, bufio.NewReader(c)}
	k.line()
	return k
}

func (k *talk) line() string {
	k.t.Helper()
	if err := k.c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		k.t.Fatal(err)
	}
	s, err := k.r.ReadString('\n')
	if err != nil {
		k.t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

func (k *talk) says(format string, args ...any) string {
	k.t.Helper()
	if _, err := fmt.Fprintf(k.c, format+"\r\n", args...); err != nil {
		k.t.Fatal(err)
	}
	return k.line()
}

// count logs in and returns how many mails there are.
func (k *talk) count() string {
	k.t.Helper()
	k.says("USER %s", user)
	k.says("PASS %s", password)
	return strings.Fields(k.says("STAT") + " ? ?")[1]
}

// TestReloadLeavesSessionsAlone: new settings of [pop3] are for new sessions; one under way goes on as it began.
func TestReloadLeavesSessionsAlone(t *testing.T) {
	one := startDovecot(t, "127.0.0.1", "", "", mailbox()[:1])
	three := startDovecot(t, "127.0.0.1", "", "", mailbox())
	g := startWith(t, one, nil)
	before := talkTo(t, g.POP3)
	if n := before.count(); n != "1" {
		t.Fatalf("%s mails before the reload", n)
	}
	settings, err := os.ReadFile(g.Config)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(settings), one.host+":"+one.plain, three.host+":"+three.plain, 1)
	if changed == string(settings) {
		t.Fatal("nothing was changed")
	}
	if err := os.WriteFile(g.Config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Signal(t, syscall.SIGHUP)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		after := talkTo(t, g.POP3)
		n := after.count()
		after.says("QUIT")
		if n == "3" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a new session still sees %s mails", n)
		}
	}
	if got := before.says("STAT"); !strings.HasPrefix(got, "+OK 1 ") {
		t.Errorf("the session under way: %s", got)
	}
	if got := before.says("QUIT"); !strings.HasPrefix(got, "+OK") {
		t.Errorf("QUIT: %s", got)
	}
}
