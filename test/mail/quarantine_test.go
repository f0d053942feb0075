package mail

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lazaret/internal/quarantine"
	"lazaret/test/harness"
)

// lazaret runs the command beside the gateway.
func lazaret(t *testing.T, g *harness.Gateway, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(harness.Binary(t), append(args, "-c", g.Config)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// TestQuarantine: what a mail program has deleted from the server is in the quarantine, byte for byte, and its notice says
// under which reference.
func TestQuarantine(t *testing.T) {
	d := startDovecot(t, "127.0.0.1", "", "", mailbox())
	g := start(t, d, "upstream = \""+d.host+":"+d.plain+"\"\n")
	box, dir := newMaildir(t), t.TempDir()
	run(t, dir, "", nil, "mpop", "-C", mpopFile(t, dir, "127.0.0.1", port(g.POP3), box, "tls off\nauth user\nkeep off\nreceived_header off\n"))
	got := maildir(t, box)
	check(t, got, mailbox())
	if n := d.left(t); n != 0 {
		t.Fatalf("%d mails are left on the server", n)
	}

	var e quarantine.Entry
	if list := lazaret(t, g, "quarantine", "list", "--json"); bytes.Count(list, []byte("\n")) != 1 || json.Unmarshal(list, &e) != nil {
		t.Fatalf("%s", list)
	}
	if e.Protocol != "pop3" || e.User != user || !strings.HasPrefix(e.Client, "127.0.0.1") || e.From != "Grace <grace@example.org>" || e.To != "ada@example.net" ||
		e.Subject != "second" || !strings.Contains(e.Signature, "Eicar") || e.Size != int64(len(mailbox()[1])) {
		t.Errorf("%+v", e)
	}
	if !bytes.Contains(got[1], []byte(e.ID)) {
		t.Errorf("the notice does not say %s:\n%s", e.ID, got[1])
	}
	if !g.Log.Logs(`"quarantine":"`+e.ID) && !g.Log.Logs("quarantine="+e.ID) {
		t.Errorf("the log does not say %s", e.ID)
	}
	released := filepath.Join(dir, "released.eml")
	lazaret(t, g, "quarantine", "release", e.ID, "-o", released)
	if b, err := os.ReadFile(released); err != nil || !bytes.Equal(b, mailbox()[1]) {
		t.Errorf("the mail is not what it was: %v\n%s", err, b)
	}
	err := filepath.WalkDir(filepath.Join(g.StateDir, "quarantine"), func(path string, f os.DirEntry, err error) error {
		if err != nil || f.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, word := range []string{password, secret} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%s has %q in it", path, word)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNothingIsLostWhenTheQuarantineIsFull: an infected mail that cannot be kept stays on the server.
func TestNothingIsLostWhenTheQuarantineIsFull(t *testing.T) {
	d := startDovecot(t, "127.0.0.1", "", "", mailbox())
	clamd := harness.StartClamd(t)
	g := harness.Start(t, harness.Settings{
		"pop3":       "upstream = \"" + d.host + ":" + d.plain + "\"\n",
		"quarantine": "min_free = \"1000000 GiB\"\n",
		"[scanner]":  "type = \"clamd\"\naddress = \"unix:" + clamd.Socket + "\"\n",
	}, d.root)
	box, dir := newMaildir(t), t.TempDir()
	conf := mpopFile(t, dir, "127.0.0.1", port(g.POP3), box, "tls off\nauth user\nkeep off\nreceived_header off\n")
	cmd := exec.Command("mpop", "-C", conf)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("is held back")) {
		t.Errorf("mpop was not told: %v\n%s", err, out)
	}
	if n := d.left(t); n == 0 {
		t.Error("the infected mail is gone, and was not kept")
	}
	for _, b := range maildir(t, box) {
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("the infected mail came through:\n%s", b)
		}
	}
	if !g.Log.Logs("could not be kept") {
		t.Errorf("the log says nothing of it")
	}
}
