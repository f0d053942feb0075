package mail

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lazaret/test/harness"
)

// nobody is whom the mailbox belongs to: Dovecot serves no mail as root.
const nobody = 65534

// The one user of the mail server.
const (
	user     = "ada"
	password = "lovelace"
)

// dovecot is Debian's Dovecot with a mailbox of one user.
type dovecot struct {
	host  string
	plain string // port
	tls   string // port of POP3S
	root  string // PEM file of the authority that signed its certificate
	dir   string
	cmd   *exec.Cmd
	log   *harness.Output
}

// startDovecot runs Dovecot, under the command given before it (such as "ip netns exec x"), on host, with the mails of the
// mailbox in their order. Ports of "" are free ones.
func startDovecot(t testing.TB, host, plain, tls string, mails [][]byte, under ...string) *dovecot {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: Dovecot's master process needs root")
	}
	if plain == "" {
		_, plain, _ = net.SplitHostPort(harness.FreePort(t))
		_, tls, _ = net.SplitHostPort(harness.FreePort(t))
	}
	// Its sockets must have short names, and its users must be able to enter.
	dir, err := os.MkdirTemp("", "lz-dovecot-")
	if err != nil {
		t.Fatal(err)
	}
	d := &dovecot{host: host, plain: plain, tls: tls, dir: dir, log: &harness.Output{}}
	t.Cleanup(func() { d.stop(t); os.RemoveAll(dir) })
	d.certificate(t)
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "mail", sub), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"mail", "mail/" + sub} {
			if err := os.Chown(filepath.Join(dir, p), nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.fill(t, mails)
	conf := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(conf, []byte(d.settings()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // Dovecot's own users go through it
		t.Fatal(err)
	}
	args := slices.Concat(under, []string{"dovecot", "-F", "-c", conf})
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("dovecot (Debian package dovecot-pop3d): %v", err)
	}
	d.wait(t, len(under) > 0)
	return d
}

// wait waits for its sockets.
func (d *dovecot) wait(t testing.TB, elsewhere bool) {
	t.Helper()
	for range 500 {
		if elsewhere {
			if _, err := os.Stat(filepath.Join(d.dir, "run", "anvil")); err == nil {
				return
			}
		} else if c, err := net.Dial("tcp", net.JoinHostPort(d.host, d.plain)); err == nil {
			c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	t.Fatalf("dovecot does not answer:\n%s\n%s", d.log, log)
}

func (d *dovecot) stop(t testing.TB) {
	if d.cmd == nil || d.cmd.Process == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	if log, err := os.ReadFile(filepath.Join(d.dir, "log")); err == nil && t.Failed() {
		t.Logf("dovecot's log:\n%s", log)
	}
	done := make(chan struct{})
	go func() { _ = d.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = d.cmd.Process.Kill()
		t.Error("dovecot had to be killed")
	}
}

// fill puts mails into the mailbox.
func (d *dovecot) fill(t testing.TB, mails [][]byte) {
	t.Helper()
	for i, m := range mails {
		name := filepath.Join(d.dir, "mail", "new", fmt.Sprintf("%d.M%d.host", 1_700_000_000+i, i))
		if err := os.WriteFile(name, m, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(name, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
}

// left counts the mails in the mailbox.
func (d *dovecot) left(t testing.TB) int {
	t.Helper()
	n := 0
	for _, sub := range []string{"cur", "new"} {
		list, err := os.ReadDir(filepath.Join(d.dir, "mail", sub))
		if err != nil {
			t.Fatal(err)
		}
		n += len(list)
	}
	return n
}

func (d *dovecot) settings() string {
	return fmt.Sprintf(`
protocols = pop3
base_dir = %[1]s/run
log_path = %[1]s/log
listen = %[2]s
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:%[1]s/mail
mail_fsync = never
disable_plaintext_auth = no
auth_mechanisms = plain login apop
auth_failure_delay = 0
ssl = yes
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/key.pem
pop3_uidl_format = %%08Xu%%08Xv
service pop3-login {
  chroot =
  inet_listener pop3 {
    port = %[3]s
  }
  inet_listener pop3s {
    port = %[4]s
    ssl = yes
  }
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  chroot =
}
passdb {
  driver = passwd-file
  args = scheme=PLAIN %[1]s/users
}
userdb {
  driver = static
  args = uid=%[5]d gid=%[5]d home=%[1]s
}
`, d.dir, d.host, d.plain, d.tls, nobody)
}

// certificate makes a certificate for the server.
func (d *dovecot) certificate(t testing.TB) {
	t.Helper()
	ca := harness.NewCA(t)
	d.root = ca.File
	leaf := ca.Leaf(t, nil, mailHost, "localhost")
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"users":    []byte(user + ":{PLAIN}" + password + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(d.dir, name), content, 0o644); err != nil { //nolint:gosec // Dovecot's own users read them
			t.Fatal(err)
		}
	}
}

// mailHost is the server's name.
const mailHost = "mail.example.net"

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
