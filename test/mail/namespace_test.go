package mail

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lazaret/test/harness"
)

// machines are network namespaces: c, the client; g, the gateway and router; s, the server.
type machines struct{ c, g, s string }

const (
	clientAddr = "10.9.1.2"
	serverAddr = "10.9.2.2"
)

func newMachines(t *testing.T) machines {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: network namespaces need root")
	}
	id := fmt.Sprintf("lzm%d", os.Getpid())
	m := machines{id + "c", id + "g", id + "s"}
	for i, n := range []string{m.c, m.g, m.s} {
		if out, err := exec.Command("ip", "netns", "add", n).CombinedOutput(); err != nil {
			if i == 0 {
				t.Skipf("NOT TESTED: this machine makes no network namespaces: %v: %s", err, out)
			}
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() {
			if err := exec.Command("ip", "netns", "del", n).Run(); err != nil {
				t.Error(err)
			}
		})
		m.in(t, n, "ip", "link", "set", "lo", "up")
	}
	link := func(a, nameA, addrA, b, nameB, addrB string) {
		m.in(t, a, "ip", "link", "add", nameA, "type", "veth", "peer", "name", nameB, "netns", b)
		m.in(t, a, "ip", "addr", "add", addrA+"/24", "dev", nameA)
		m.in(t, b, "ip", "addr", "add", addrB+"/24", "dev", nameB)
		m.in(t, a, "ip", "link", "set", nameA, "up")
		m.in(t, b, "ip", "link", "set", nameB, "up")
	}
	link(m.c, "eth0", clientAddr, m.g, "lan", "10.9.1.1")
	link(m.s, "eth0", serverAddr, m.g, "wan", "10.9.2.1")
	m.in(t, m.c, "ip", "route", "add", "default", "via", "10.9.1.1")
	m.in(t, m.s, "ip", "route", "add", "default", "via", "10.9.2.1")
	m.in(t, m.g, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
	return m
}

// in runs a command on a machine.
func (m machines) in(t *testing.T, machine string, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", machine}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %v\n%s", machine, args, err, out)
	}
	return string(out)
}

// gateway runs the gateway on g.
func (m machines) gateway(t *testing.T, settings string) (log *harness.Output, ca string) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "lazaret.toml")
	settings = fmt.Sprintf("state_dir = %q\n", filepath.Join(dir, "state")) + settings
	if err := os.WriteFile(conf, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	log = &harness.Output{}
	cmd := exec.Command("ip", "netns", "exec", m.g, harness.Binary(t), "run", "--config", conf)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		_ = cmd.Wait()
		if strings.Contains(log.String(), "DATA RACE") || strings.Contains(log.String(), "panic") || t.Failed() {
			t.Errorf("the gateway's log:\n%s", log)
		}
	})
	for range 1000 {
		if strings.Contains(log.String(), "objects are judged by") {
			return log, filepath.Join(dir, "state", "ca", "ca.pem")
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("the gateway is not ready:\n%s", log)
	return nil, ""
}

// What P3Scan's users have: traffic is redirected to port 8110, and nobody knows of it.
func TestRedirectedMpop(t *testing.T) {
	m := newMachines(t)
	d := startDovecot(t, serverAddr, "110", "995", mailbox(), "ip", "netns", "exec", m.s)
	clamd := harness.StartClamd(t)
	log, ca := m.gateway(t, fmt.Sprintf("[web]\nlisten = []\n[web.tls]\nextra_roots = [%q]\n[pop3]\nlisten = [\"0.0.0.0:8110\"]\n[[scanner]]\ntype = \"clamd\"\naddress = %q\n",
		d.root, "unix:"+clamd.Socket))
	m.in(t, m.g, "nft", "add table ip t; add chain ip t p { type nat hook prerouting priority dstnat; }; add rule ip t p iifname lan tcp dport { 110, 995 } redirect to :8110")
	hosts := "/etc/netns/" + m.c
	if err := os.MkdirAll(hosts, 0o755); err != nil { //nolint:gosec // "ip netns exec" mounts it
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(hosts) })
	// Nobody is asked for names: what is not in the file does not exist.
	if err := os.WriteFile(hosts+"/resolv.conf", []byte("nameserver 127.0.0.1\n"), 0o644); err != nil { //nolint:gosec // the same
		t.Fatal(err)
	}
	if err := os.WriteFile(hosts+"/hosts", []byte(serverAddr+" "+mailHost+"\n"), 0o644); err != nil { //nolint:gosec // the same
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ port, more string }{
		"plain": {"110", "tls off\nauth user\n"},
		"STLS":  {"110", "tls on\ntls_starttls on\ntls_trust_file " + ca + "\n"},
		"POP3S": {"995", "tls on\ntls_starttls off\ntls_trust_file " + ca + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			box, dir := newMaildir(t), t.TempDir()
			conf := mpopFile(t, dir, mailHost, c.port, box, c.more+"keep on\nreceived_header off\n")
			m.in(t, m.c, "mpop", "-C", conf)
			check(t, maildir(t, box), mailbox())
		})
	}
	if !strings.Contains(log.String(), `"client":"`+clientAddr+`"`) || !strings.Contains(log.String(), "pop3://"+mailHost+":995/2") {
		t.Errorf("the log does not name the client, or the server:\n%s", log)
	}

	t.Run("a server whose certificate is another's is not talked to", func(t *testing.T) {
		if err := os.WriteFile(hosts+"/hosts", []byte(serverAddr+" other.example.net\n"), 0o644); err != nil { //nolint:gosec // the same
			t.Fatal(err)
		}
		dir := t.TempDir()
		conf := mpopFile(t, dir, "other.example.net", "995", newMaildir(t), "tls on\ntls_starttls off\ntls_trust_file "+ca+"\n")
		out, err := exec.Command("ip", "netns", "exec", m.c, "mpop", "-C", conf).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "[SYS/PERM]") {
			t.Errorf("mpop: %v\n%s", err, out)
		}
	})
	t.Run("the gateway itself is no destination", func(t *testing.T) {
		conf := mpopFile(t, t.TempDir(), "10.9.1.1", "8110", newMaildir(t), "tls off\nauth user\n")
		out, err := exec.Command("ip", "netns", "exec", m.c, "mpop", "-C", conf).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "[SYS/PERM]") {
			t.Errorf("mpop: %v\n%s", err, out)
		}
	})
}
