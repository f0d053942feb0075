package network

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lazaret/test/harness"
)

// sshAddr is where the server's SSH is.
const sshAddr = "93.184.216.77"

// TestSSHOnTheWebPort has real SSH on port 443: refused as the settings come, and passed through where policy says so,
// whether the client waits for the server (ssh-keyscan) or not (dbclient). The web is scanned all the same.
func TestSSHOnTheWebPort(t *testing.T) {
	l, g, _ := asRouter(t, "interfaces = [\"lan0\"]\nautomatic = true")
	l.must("s", "ip", "addr", "add", sshAddr+"/24", "dev", "s0")
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("dropbearkey", "-t", "ed25519", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("dropbearkey: %v\n%s", err, out)
	}
	server := exec.Command("ip", "netns", "exec", l.namespace("s"), "dropbear", "-F", "-E", "-s", "-r", key, "-p", sshAddr+":443", "-P", filepath.Join(dir, "pid"))
	log := &harness.Output{}
	server.Stdout, server.Stderr = log, log
	server.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = server.Process.Kill(), server.Wait() })
	waits := func() string {
		out, _ := l.run("c", "ssh-keyscan", "-T", "5", "-t", "ed25519", "-p", "443", sshAddr) // its exit code says nothing
		return out
	}
	speaks := func() string {
		out, _ := l.run("c", "timeout", "20", "dbclient", "-y", "-y", "-p", "443", "nobody@"+sshAddr, "true") // nobody may log in
		return out
	}
	for name, ask := range map[string]func() string{"waiting": waits, "speaking": speaks} {
		if out := ask(); strings.Contains(out, "ssh-ed25519 AAAA") || strings.Contains(out, "Permission denied") || strings.Contains(out, "auth") {
			t.Errorf("a %s client reached SSH, which is not allowed: %s", name, out)
		}
	}
	settings, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	settings = bytes.Replace(settings, []byte("[web.tls]\n"), []byte("[web.tls]\nother_protocols = \"tunnel\"\n"), 1)
	if err := os.WriteFile(g.config, settings, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if out := waits(); strings.Contains(out, "ssh-ed25519 AAAA") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("a client that waits for SSH is told %q; the server says\n%s", out, log)
		}
	}
	// A client that gets as far as being asked who it is has exchanged keys with the server.
	if out := speaks(); !strings.Contains(out, "auth") {
		t.Errorf("a client that speaks first is told %q; the server says\n%s", out, log)
	}
	g.await("the server speaks first")
	g.await("neither TLS nor HTTP: SSH")
	scanned(t, g)
}
