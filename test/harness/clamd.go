package harness

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lazaret/internal/scan"
)

// Clamd is Debian's clamd with a database of our own.
type Clamd struct {
	Socket string
	cmd    *exec.Cmd
	dir    string
}

// StartClamd runs clamd with a small database (EICAR and a few more signatures) on a unix socket, and waits for its PONG.
func StartClamd(t testing.TB, settings ...string) *Clamd {
	t.Helper()
	dir, err := os.MkdirTemp("", "lazaret-clamd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &Clamd{dir: dir, Socket: filepath.Join(dir, "clamd.ctl")}
	db := filepath.Join(dir, "db")
	if err := os.Mkdir(db, 0o755); err != nil {
		t.Fatal(err)
	}
	ndb := fmt.Sprintf("Eicar-Test-Signature:0:*:%s\nLazaret.Test.Other:0:*:%s\n", hex.EncodeToString(scan.EICAR()),
		hex.EncodeToString([]byte("lazaret-test-signature-other")))
	if err := os.WriteFile(filepath.Join(db, "test.ndb"), []byte(ndb), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := append([]string{
		"Foreground yes", "LocalSocket " + c.Socket, "DatabaseDirectory " + db, "User root", "LogFile " + filepath.Join(filepath.Dir(c.Socket), "clamd.log"), // which clamd locks
		"TemporaryDirectory " + dir, "AlertExceedsMax yes", "AlertEncrypted yes",
	}, settings...)
	if err := os.WriteFile(filepath.Join(dir, "clamd.conf"), []byte(strings.Join(conf, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Start(t)
	t.Cleanup(func() { c.Kill(t) })
	return c
}

// Start runs it (again).
func (c *Clamd) Start(t testing.TB) {
	t.Helper()
	_ = os.Remove(c.Socket) // left behind by a killed one
	out := &Output{}
	c.cmd = exec.Command("clamd", "--config-file="+filepath.Join(c.dir, "clamd.conf"))
	c.cmd.Stdout, c.cmd.Stderr = out, out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("clamd (Debian package clamav-daemon): %v", err)
	}
	for range 1500 {
		if pong(c.Socket) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("clamd does not answer:\n%s", out)
}

func pong(socket string) bool {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second)) // a socket's deadline does not fail
	if _, err := conn.Write([]byte("zPING\x00")); err != nil {
		return false
	}
	b := make([]byte, 5)
	n, err := conn.Read(b)
	return err == nil && strings.HasPrefix(string(b[:n]), "PONG")
}

// Kill ends it at once, as a crash would.
func (c *Clamd) Kill(t testing.TB) {
	t.Helper()
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Kill() // it may have ended already
	_ = c.cmd.Wait()
	c.cmd = nil
}
