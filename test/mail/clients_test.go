// Package mail runs the real gateway between real mail programs, a real mail server and a real scanner.
package mail

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lazaret/internal/scan"
	"lazaret/test/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Clean()
	os.Exit(code)
}

// mailOf returns a mail with an attachment.
func mailOf(subject string, attachment []byte) []byte {
	return []byte(crlf("Received: from a.example.org by b.example.org; Mon, 1 Jun 2026 10:00:00 +0200\n" +
		"From: Grace <grace@example.org>\nTo: ada@example.net\nDate: Mon, 1 Jun 2026 10:00:00 +0200\nMessage-ID: <" +
		strings.ReplaceAll(subject, " ", "-") + "@example.org>\nSubject: " + subject + "\nMIME-Version: 1.0\n" +
		"Content-Type: multipart/mixed; boundary=XX\n\n--XX\nContent-Type: text/plain\n\nHello,\n..two dots\n.one dot\n\nGrace\n" +
		"--XX\nContent-Type: application/octet-stream; name=a.bin\nContent-Transfer-Encoding: base64\n\n" +
		wrapped(attachment) + "--XX--\n"))
}

// wrapped returns base64 in lines.
func wrapped(b []byte) string {
	var out strings.Builder
	for s := base64.StdEncoding.EncodeToString(b); len(s) > 0; {
		n := min(76, len(s))
		out.WriteString(s[:n] + "\n")
		s = s[n:]
	}
	return out.String()
}

// secret is a line of the infected attachment, which must not come through.
var secret = wrapped(scan.EICAR())[:70]

// mailbox is two clean mails and an infected one between them.
func mailbox() [][]byte {
	return [][]byte{mailOf("first", []byte("nothing bad")), mailOf("second", scan.EICAR()), mailOf("third", bytes.Repeat([]byte("x y z "), 4000))}
}

// start runs the gateway with a clamd and these settings of [pop3].
func start(t *testing.T, d *dovecot, pop3 string) *harness.Gateway {
	t.Helper()
	clamd := harness.StartClamd(t)
	return harness.Start(t, harness.Settings{
		"pop3":      pop3,
		"[scanner]": fmt.Sprintf("type = \"clamd\"\naddress = %q\n", "unix:"+clamd.Socket),
	}, d.root)
}

func run(t *testing.T, dir, input string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(input)
	cmd.Env = append(append(os.Environ(), "HOME="+dir), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// check looks at what a program has fetched: the clean mails as they were, the infected one replaced. Programs put headers
// of their own before a mail, and some end its lines in LF.
func check(t *testing.T, got, sent [][]byte) {
	t.Helper()
	if len(got) != len(sent) {
		t.Fatalf("%d mails were fetched, not %d", len(got), len(sent))
	}
	lf := func(b []byte) string { return strings.ReplaceAll(string(b), "\r\n", "\n") }
	for i := range sent {
		if i == 1 {
			text := lf(got[i])
			header, _, _ := strings.Cut(text, "\n\n")
			switch {
			case strings.Contains(text, secret):
				t.Errorf("the infected mail came through:\n%s", text)
			case !strings.Contains(text, "Eicar"), !strings.Contains(header, "From: Grace <grace@example.org>\n"), strings.Contains(header, "Subject: second"):
				t.Errorf("no proper notice:\n%s", text)
			}
			continue
		}
		if !strings.HasSuffix(strings.TrimRight(lf(got[i]), "\n"), strings.TrimRight(lf(sent[i]), "\n")) {
			t.Errorf("mail %d was changed:\n%s", i+1, got[i])
		}
	}
}

func maildir(t *testing.T, dir string) [][]byte {
	t.Helper()
	var out [][]byte
	list, err := filepath.Glob(filepath.Join(dir, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	// Their order is that of the numbers in their subjects.
	for i := range out {
		for j := range out[:i] {
			if order(out[i]) < order(out[j]) {
				out[i], out[j] = out[j], out[i]
			}
		}
	}
	return out
}

func order(mail []byte) int {
	for i, id := range []string{"<first@", "<second@", "<third@"} {
		if bytes.Contains(mail, []byte(id)) {
			return i
		}
	}
	return -1
}

func newMaildir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// mpopFile writes mpop's settings.
func mpopFile(t *testing.T, dir, host, port, box, more string) string {
	t.Helper()
	conf := filepath.Join(dir, "mpoprc")
	text := fmt.Sprintf("account default\nhost %s\nport %s\nuser %s\npassword %s\ndelivery maildir %s\nuidls_file %s/uidls\n%s", host, port, user, password, box, dir, more)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return conf
}

func TestMpopWithoutTLS(t *testing.T) {
	d := startDovecot(t, "127.0.0.1", "", "", mailbox())
	g := start(t, d, "upstream = \""+d.host+":"+d.plain+"\"\n")
	box, dir := newMaildir(t), t.TempDir()
	run(t, dir, "", nil, "mpop", "-C", mpopFile(t, dir, "127.0.0.1", port(g.POP3), box, "tls off\nauth user\nkeep off\nreceived_header off\n"))
	check(t, maildir(t, box), mailbox())
	if n := d.left(t); n != 0 {
		t.Errorf("%d mails are left on the server; all were to be deleted", n)
	}
	if !g.Log.Logs("a notice was given in the place of a mail") || !g.Log.Logs("grace@example.org") {
		t.Errorf("the log says nothing of the notice:\n%s", g.Log)
	}
}

func TestFetchmailWithSTLS(t *testing.T) {
	d := startDovecot(t, "127.0.0.1", "", "", mailbox())
	g := start(t, d, "upstream = \"localhost:"+d.plain+"\"\n")
	dir := t.TempDir()
	conf := filepath.Join(dir, "fetchmailrc")
	text := fmt.Sprintf("poll localhost service %s protocol pop3 user %s password %s fetchall\n  sslproto TLS1.2+ sslcertck sslcertfile %s\n  mda \"cat >>%s/box; echo =====END===== >>%s/box\"\n",
		port(g.POP3), user, password, g.CAFile(), dir, dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(t, dir, "", []string{"FETCHMAILHOME=" + dir, "LC_ALL=C"}, "fetchmail", "-v", "-f", conf)
	if !strings.Contains(out, "STLS") {
		t.Errorf("fetchmail did not use STLS:\n%s", out)
	}
	box, err := os.ReadFile(filepath.Join(dir, "box"))
	if err != nil {
		t.Fatal(err)
	}
	got := bytes.SplitAfter(box, []byte("=====END=====\n"))
	got = got[:len(got)-1]
	for i := range got {
		got[i] = bytes.TrimSuffix(got[i], []byte("=====END=====\n"))
		// fetchmail puts a line of its own into the header; what it got is looked at without.
		got[i] = cutField(got[i], "\tby ")
	}
	checkBodies(t, got, mailbox())
	if !g.Log.Logs(`"protocol":"pop3s"`) {
		t.Errorf("the gateway did not take it for TLS:\n%s", g.Log)
	}
}

// cutField is for programs that add fields: it leaves the mail from its own first field on.
func cutField(mail []byte, _ string) []byte {
	if i := bytes.Index(mail, []byte("Received: from a.example.org")); i >= 0 {
		return mail[i:]
	}
	return mail
}

// checkBodies is check for programs that add fields within the header.
func checkBodies(t *testing.T, got, sent [][]byte) {
	t.Helper()
	if len(got) != len(sent) {
		t.Fatalf("%d mails were fetched, not %d", len(got), len(sent))
	}
	body := func(b []byte) string {
		_, rest, _ := strings.Cut(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n\n")
		return strings.TrimRight(rest, "\n")
	}
	for i := range sent {
		if i == 1 {
			if strings.Contains(body(got[i]), secret) || !strings.Contains(body(got[i]), "Eicar") {
				t.Errorf("no proper notice:\n%s", got[i])
			}
			continue
		}
		if body(got[i]) != body(sent[i]) {
			t.Errorf("mail %d was changed:\n%q\n%q", i+1, body(got[i]), body(sent[i]))
		}
	}
}

func TestGetmailWithoutTLSFromAServerWithTLS(t *testing.T) {
	d := startDovecot(t, "127.0.0.1", "", "", mailbox())
	g := start(t, d, "upstream = \"tls://localhost:"+d.tls+"\"\n")
	box, dir := newMaildir(t), t.TempDir()
	conf := filepath.Join(dir, "getmailrc")
	text := fmt.Sprintf("[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = %s\nusername = %s\npassword = %s\n"+
		"[destination]\ntype = MDA_external\npath = /bin/sh\narguments = (\"-c\", \"f=$(mktemp %s/new/XXXXXXXX) && cat >$f\")\n"+
		"allow_root_commands = true\nunixfrom = false\n[options]\ndelivered_to = false\nreceived = false\nread_all = true\n", port(g.POP3), user, password, box)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "", nil, "getmail", "--getmaildir", dir, "--rcfile", conf)
	check(t, maildir(t, box), mailbox())
}

func TestCurlWithPOP3S(t *testing.T) {
	for _, up := range []string{"tls", "stls"} {
		t.Run(up, func(t *testing.T) {
			d := startDovecot(t, "127.0.0.1", "", "", mailbox())
			p := map[string]string{"tls": d.tls, "stls": d.plain}[up]
			secure := harness.FreePort(t)
			g := start(t, d, fmt.Sprintf("upstream = \"%s://localhost:%s\"\nlisten_tls = [%q]\n", up, p, secure))
			var got [][]byte
			for i := range mailbox() {
				out := run(t, t.TempDir(), "", nil, "curl", "-sS", "--cacert", g.CAFile(), "-u", user+":"+password,
					fmt.Sprintf("pop3s://localhost:%s/%d", port(secure), i+1))
				got = append(got, []byte(out))
			}
			check(t, got, mailbox())
			// Byte for byte: curl changes nothing.
			if string(got[0]) != string(mailbox()[0]) {
				t.Errorf("not byte for byte:\n%q\n%q", got[0], mailbox()[0])
			}
		})
	}
}
