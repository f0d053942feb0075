package spam

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lazaret/internal/units"
	"lazaret/test/ports"
)

// gtube is the text that every spam scanner knows (spamassassin.apache.org/gtube), in two halves: a file that has it whole
// is spam itself.
const gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

// program runs a scanner until the test ends, and waits until address takes connections.
func program(t *testing.T, network, address, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("NOT TESTED: %s is not installed", name)
	}
	var log output
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for limit := time.Now().Add(90 * time.Second); ; {
		c, err := net.Dial(network, address)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s has ended:\n%s", name, log.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(limit) {
			t.Fatalf("%s does not listen: %v\n%s", name, err, log.String())
		}
	}
}

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

const ham = "Received: from mx.example.org (mx.example.org [192.0.2.1]) by b.example.org; Mon, 1 Jun 2026 10:00:00 +0200\r\n" +
	"From: Grace <grace@example.org>\r\nTo: Ada <ada@example.net>\r\nDate: Mon, 1 Jun 2026 10:00:00 +0200\r\nMessage-ID: <1@example.org>\r\n" +
	"Subject: The minutes of our meeting\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nHello Ada,\r\n\r\nthe minutes are ready.\r\n\r\nGrace\r\n"

func TestRealSpamd(t *testing.T) {
	dir, err := os.MkdirTemp("", "lz-spamd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	program(t, "unix", socket, "spamd", "-L", "-x", "-m", "2", "--min-children", "1", "-s", "stderr", "--socketpath", socket, "--socketmode", "0600", "-H", dir)
	pool := newPool(t)
	for _, command := range []string{commandSymbols, commandCheck, commandHeaders, commandProcess} {
		cfg := spamdConfig("unix:" + socket)
		cfg.Command, cfg.Mark, cfg.Subject, cfg.Timeout = command, markAll, "[SPAM]", units.Duration(90*time.Second)
		c := newChecker(t, cfg)
		r := c.Check(context.Background(), Message{Body: blob(t, pool, ham)})
		if r.State != Ham || r.Err != nil {
			t.Errorf("%s: ham is %+v", command, r)
		}
		spam := strings.Replace(ham, "the minutes are ready.", gtube, 1)
		b := blob(t, pool, spam)
		r = c.Check(context.Background(), Message{Body: b})
		if r.State != Spam || r.Score < 100 || r.Required != 5 || command == commandSymbols && !strings.Contains(strings.Join(r.Symbols, " "), "GTUBE") {
			t.Fatalf("%s: spam is %+v", command, r)
		}
		at := strings.Index(spam, "Subject:")
		marked, err := c.Mark(pool, b, r, at)
		if err != nil {
			t.Fatal(err)
		}
		got := text(t, marked)
		_ = marked.Close()
		_, body, _ := strings.Cut(spam, "\r\n\r\n")
		if !strings.HasPrefix(got, spam[:at]+"X-Spam-") || !strings.HasSuffix(got, "\r\n\r\n"+body) || !strings.Contains(got, "\r\nSubject: [SPAM] The minutes") {
			t.Errorf("%s: marked:\n%s", command, got)
		}
		if command != commandCheck && !strings.Contains(got, "GTUBE") {
			t.Errorf("%s: no rules:\n%s", command, got)
		}
	}
}

func TestRealRspamd(t *testing.T) {
	dir, err := os.MkdirTemp("", "lz-rspamd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	address, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "rspamd.conf")
	tld := filepath.Join(dir, "tld") // the whole list takes long to compile
	if err := os.WriteFile(tld, []byte("org\nnet\ncom\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := `options { url_tld = "` + tld + `"; pidfile = "` + dir + `/pid"; dns { nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; } filters = ""; enable_test_patterns = true; }
logging { type = "console"; level = "info"; }
metric { name = "default"; actions { reject = 15; add_header = 6; greylist = 4; } }
worker "normal" { bind_socket = "` + address + `"; count = 1; }
`
	if err := os.WriteFile(conf, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	program(t, "tcp", address, "rspamd", "-f", "-i", "-c", conf, "--var", "RUNDIR="+dir, "--var", "DBDIR="+dir, "--var", "LOGDIR="+dir)
	cfg := spamdConfig("http://" + address)
	cfg.Type, cfg.Timeout = typeRspamd, units.Duration(60*time.Second)
	c, pool := newChecker(t, cfg), newPool(t)
	if r := c.Check(context.Background(), Message{Body: blob(t, pool, ham)}); r.State != Ham {
		t.Errorf("ham is %+v", r)
	}
	spam := strings.Replace(ham, "the minutes are ready.", gtube, 1)
	if r := c.Check(context.Background(), Message{Body: blob(t, pool, spam)}); r.State != Spam {
		t.Errorf("spam is %+v", r)
	}
	c.Close()
}
