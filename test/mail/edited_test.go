package mail

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lazaret/internal/mail/header"
	"lazaret/internal/scan"
	"lazaret/test/harness"
)

// startWith runs the gateway with a clamd and these tables besides.
func startWith(t *testing.T, d *dovecot, tables harness.Settings) *harness.Gateway {
	t.Helper()
	clamd := harness.StartClamd(t)
	s := harness.Settings{
		"pop3":      "upstream = \"" + d.host + ":" + d.plain + "\"\n",
		"[scanner]": fmt.Sprintf("type = \"clamd\"\naddress = %q\n", "unix:"+clamd.Socket),
	}
	for k, v := range tables {
		s[k] = v
	}
	return harness.Start(t, s, d.root)
}

// fetch gets a mail as it comes from the gateway.
func fetch(t *testing.T, g *harness.Gateway, number int) []byte {
	t.Helper()
	return []byte(run(t, t.TempDir(), "", nil, "curl", "-sS", "-u", user+":"+password, fmt.Sprintf("pop3://127.0.0.1:%s/%d", port(g.POP3), number)))
}

// TestNoticeOfTheTutorial: subject, text for a deleted mail and template as P3Scan's sample settings have them.
func TestNoticeOfTheTutorial(t *testing.T) {
	template := filepath.Join(t.TempDir(), "p3scan-fr.mail")
	text := "MIME-Version: 1.0\nContent-Transfer-Encoding: 8bit\nContent-Type: text/plain;\n\tcharset=\"iso-8859-1\"\n\n" +
		"Bonjour %USERNAME%.\n\nUn message de %MAILFROM% \xe0 %MAILTO%, du %MAILDATE%, sujet %SUBJECT%, contenait %VIRUSNAME%.\n" +
		"%PROTOCOL% de %SERVERIP%:%SERVERPORT% vers %CLIENTIP%.\n%MAILFILE%\n.\n"
	if err := os.WriteFile(template, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDovecot(t, "127.0.0.1", "", "", mailbox())
	g := startWith(t, d, harness.Settings{
		"quarantine": "enabled = false\n",
		"mail.notice": fmt.Sprintf("subject = \"[virus] dans un message pour vous:\"\ndeleted = \"Pour information, le message a été détruit.\"\ntemplate = %q\n",
			template),
	})
	box, dir := newMaildir(t), t.TempDir()
	run(t, dir, "", nil, "mpop", "-C", mpopFile(t, dir, "127.0.0.1", port(g.POP3), box, "tls off\nauth user\nkeep on\nreceived_header off\n"))
	all := maildir(t, box)
	if len(all) != 3 {
		t.Fatalf("%d mails were fetched", len(all))
	}
	got := all[1]
	m, err := mail.ReadMessage(bytes.NewReader(got))
	if err != nil {
		t.Fatalf("%v:\n%s", err, got)
	}
	if s := header.Decode(m.Header.Get("Subject")); !strings.HasPrefix(s, "[virus] dans un message pour vous: ") || !strings.Contains(s, "Eicar") {
		t.Errorf("subject %q", s)
	}
	for _, want := range []string{
		"Bonjour ada.", "Grace <grace@example.org> =C3=A0 ada@example.net", "1 Jun 2026", "sujet second", "Eicar", "POP3 de 127.0.0.1:" + d.plain + " vers 127.0.0.1",
		"Pour information, le message a =C3=A9t=C3=A9 d=C3=A9truit.",
	} {
		if !strings.Contains(strings.ReplaceAll(strings.ReplaceAll(string(got), "\r\n", "\n"), "=\n", ""), want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if lf := strings.ReplaceAll(string(mailbox()[0]), "\r\n", "\n"); string(all[0]) != lf && string(all[0]) != string(mailbox()[0]) {
		t.Errorf("the clean mail was changed:\n%s", all[0])
	}
	if bytes.Contains(got, []byte(secret)) || m.Header.Get("Message-Id") != "<second@example.org>" {
		t.Errorf("no proper notice:\n%s", got)
	}
}

func TestBuiltInNoticeInFrench(t *testing.T) {
	d := startDovecot(t, "127.0.0.1", "", "", mailbox())
	g := startWith(t, d, harness.Settings{"mail.notice": "recipients = [\"example.net = fr\"]\n"})
	got := strings.ReplaceAll(string(fetch(t, g, 2)), "=\r\n", "")
	for _, want := range []string{"multipart/alternative", "text/plain; charset=utf-8", "text/html; charset=utf-8", "Content-Language: fr", "Objet", "Eicar", "<html lang=3D\"fr\">"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

// program returns the beginning of a Windows program.
func program() []byte {
	b := make([]byte, 512)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], 0x80)
	copy(b[0x80:], "PE\x00\x00\x4c\x01")
	binary.LittleEndian.PutUint16(b[0x80+20:], 0xe0)
	return b
}

func TestAttachmentRules(t *testing.T) {
	box := [][]byte{
		mailOf("first", program()),
		mailOf("second", []byte("nothing")),
		mailOf("third", scan.EICAR()),
		bytes.Replace(mailOf("fourth", program()), []byte("Content-Transfer-Encoding: base64"), []byte("Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64"), 1),
	}
	d := startDovecot(t, "127.0.0.1", "", "", box)
	g := startWith(t, d, harness.Settings{"mail.attachments": "strip = [\"executable\"]\n"})
	part := wrapped(program())
	part = crlf(part[:60])
	if !bytes.Contains(box[0], []byte(part)) {
		t.Fatal("the test sees nothing")
	}
	got := fetch(t, g, 1)
	if bytes.Contains(got, []byte(part)) || !strings.Contains(strings.ReplaceAll(string(got), "=\r\n", ""), "a.bin") || !bytes.Contains(got, []byte(".one dot\r\n\r\nGrace\r\n")) {
		t.Errorf("no program was taken out, or more than that:\n%s", got)
	}
	if got := fetch(t, g, 2); string(got) != string(box[1]) {
		t.Errorf("another mail was changed:\n%s", got)
	}
	if got := fetch(t, g, 3); !bytes.Contains(got, []byte("Eicar")) {
		t.Errorf("a virus is named first:\n%s", got)
	}
	if got := fetch(t, g, 4); bytes.Contains(got, []byte(part)) || !bytes.Contains(got, []byte("Subject: [Not delivered]")) {
		t.Errorf("a mail that parsers disagree about came through:\n%s", got)
	}
	for _, want := range []string{"an attachment was taken out", `"rule":"executable"`, "two fields content-transfer-encoding"} {
		if !strings.Contains(g.Log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, g.Log)
		}
	}
}

// startSpamd runs Debian's spamd with the rules that need no network, and returns its socket.
func startSpamd(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/usr/sbin/spamd"); err != nil {
		t.Skip("NOT TESTED: spamd is not installed")
	}
	dir, err := os.MkdirTemp("", "lz-spamd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	log := &harness.Output{}
	cmd := exec.Command("/usr/sbin/spamd", "-L", "-x", "-m", "2", "--min-children", "1", "-s", "stderr", "--socketpath", socket, "--socketmode", "0600", "-H", dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	for limit := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			_ = c.Close()
			return socket
		}
		if time.Now().After(limit) {
			t.Fatalf("spamd does not listen:\n%s", log)
		}
	}
}

func TestSpam(t *testing.T) {
	gtube := "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
	spam := bytes.Replace(mailOf("first", []byte("x")), []byte("Hello,"), []byte(gtube), 1)
	marked := bytes.Replace(spam, []byte("Subject: "), []byte("X-Provider: spam\r\nSubject: "), 1)
	box := [][]byte{spam, mailOf("second", []byte("x")), marked, bytes.Replace(mailOf("third", scan.EICAR()), []byte("Hello,"), []byte(gtube), 1)}
	d := startDovecot(t, "127.0.0.1", "", "", box)
	socket := startSpamd(t)
	g := startWith(t, d, harness.Settings{"mail.spam": fmt.Sprintf("type = \"spamd\"\naddress = %q\nsubject = \"[SPAM]\"\nskip_marked = \"X-Provider: spam\"\ntimeout = \"90s\"\n", "unix:"+socket)})
	before, after, _ := strings.Cut(string(spam), "Subject: ")
	got := string(fetch(t, g, 1))
	fields := strings.TrimSuffix(strings.TrimPrefix(got, before), "Subject: [SPAM] "+after)
	if !strings.HasPrefix(fields, "X-Spam-Flag: YES\r\nX-Spam-Score: ") || !strings.Contains(fields, "GTUBE") || strings.Contains(fields, "\r\n\r\n") {
		t.Errorf("spam was not marked, or changed otherwise:\n%s", got)
	}
	for i, why := range map[int]string{2: "ham", 3: "what the provider marked"} {
		if got := fetch(t, g, i); string(got) != string(box[i-1]) {
			t.Errorf("%s was changed:\n%s", why, got)
		}
	}
	if got := string(fetch(t, g, 4)); !strings.Contains(got, "Eicar") || strings.Contains(got, "X-Spam") {
		t.Errorf("an infected mail:\n%s", got)
	}
}

func TestSpamScannerThatIsDownHoldsUpNoMail(t *testing.T) {
	d := startDovecot(t, "127.0.0.1", "", "", mailbox()[:1])
	g := startWith(t, d, harness.Settings{"mail.spam": "type = \"spamd\"\naddress = \"unix:/nonexistent/spamd\"\nmark = \"all\"\n"})
	if got := fetch(t, g, 1); string(got) != string(mailbox()[0]) {
		t.Errorf("the mail was changed:\n%s", got)
	}
	if !strings.Contains(g.Log.String(), "a mail was not checked for spam") {
		t.Errorf("the log says nothing:\n%s", g.Log)
	}
}
