// Package network runs the real gateway between machines that know nothing of it: network namespaces with routing.
package network

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/test/harness"

	"golang.org/x/sys/unix"
)

// The machines' addresses. The servers' are public ones, which the gateway leads to; nothing leaves the namespaces.
const (
	clientAddr  = "10.7.1.2"
	routerAddr  = "10.7.1.1" // of the clients' router
	gatewayAddr = "10.7.1.9" // where it is not the router
	serverAddr  = "93.184.216.34"
	otherAddr   = "93.184.217.5" // a second server
	serverSix   = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
	serverName  = "www.example.com"
	transparent = "3129"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Clean()
	os.Exit(code)
}

// lab is the machines: c is the client, g the gateway, s the servers, r the router where the gateway is another machine.
type lab struct {
	t  *testing.T
	id string
}

// namespace returns the name of a machine's namespace.
func (l *lab) namespace(machine string) string { return l.id + machine }

// need skips the test where namespaces cannot be made, and says so.
func need(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: network namespaces need root")
	}
	if out, err := exec.Command("ip", "netns", "add", "lazaret-probe").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: this machine makes no network namespaces: %v: %s", err, out)
	}
	if err := exec.Command("ip", "netns", "del", "lazaret-probe").Run(); err != nil {
		t.Fatal(err)
	}
}

var labs struct {
	sync.Mutex
	n int
}

func newLab(t *testing.T, machines ...string) *lab {
	t.Helper()
	need(t)
	labs.Lock()
	labs.n++
	l := &lab{t: t, id: fmt.Sprintf("lz%d-%d", os.Getpid(), labs.n)}
	labs.Unlock()
	for _, m := range machines {
		l.host("ip", "netns", "add", l.namespace(m))
		t.Cleanup(func() {
			if err := exec.Command("ip", "netns", "del", l.namespace(m)).Run(); err != nil {
				t.Errorf("removing the namespace of %s: %v", m, err)
			}
		})
		l.must(m, "ip", "link", "set", "lo", "up")
	}
	return l
}

// host runs a command outside of the namespaces.
func (l *lab) host(args ...string) {
	l.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// run runs a command on a machine.
func (l *lab) run(machine string, args ...string) (string, error) {
	out, err := exec.Command("ip", append([]string{"netns", "exec", l.namespace(machine)}, args...)...).CombinedOutput()
	return string(out), err
}

func (l *lab) must(machine string, args ...string) string {
	l.t.Helper()
	out, err := l.run(machine, args...)
	if err != nil {
		l.t.Fatalf("on %s: %s: %v\n%s", machine, strings.Join(args, " "), err, out)
	}
	return out
}

// cable joins two machines, and gives each end its addresses.
func (l *lab) cable(a, ifA string, addrsA []string, b, ifB string, addrsB []string) {
	l.t.Helper()
	l.host("ip", "link", "add", ifA, "netns", l.namespace(a), "type", "veth", "peer", "name", ifB, "netns", l.namespace(b))
	for _, end := range []struct {
		m, iface string
		addrs    []string
	}{{a, ifA, addrsA}, {b, ifB, addrsB}} {
		l.must(end.m, "ip", "link", "set", end.iface, "up")
		for _, addr := range end.addrs {
			l.must(end.m, "ip", "addr", "add", addr, "dev", end.iface, "nodad")
		}
	}
}

// on runs f in a machine's namespace: sockets that it opens stay there. The thread is not used again.
func (l *lab) on(machine string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		ns, err := os.Open("/run/netns/" + l.namespace(machine))
		if err == nil {
			err = errors.Join(unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET), ns.Close())
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (l *lab) listen(machine, addr string) net.Listener {
	l.t.Helper()
	var ln net.Listener
	err := l.on(machine, func() (err error) {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		l.t.Fatalf("listening on %s: %v", addr, err)
	}
	return ln
}

// visits counts the addresses that a server is asked from.
type visits struct {
	mu   sync.Mutex
	from []string
}

func (v *visits) note(addr string) {
	host, _, _ := net.SplitHostPort(addr)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.from = append(v.from, host)
}

func (v *visits) last() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.from) == 0 {
		return ""
	}
	return v.from[len(v.from)-1]
}

// serve has the server answer on ports 80 and 443 of its addresses: /clean and /eicar.
func (l *lab) serve(ca *harness.CA, addrs ...string) *visits {
	l.t.Helper()
	v := &visits{}
	mux := http.NewServeMux()
	mux.HandleFunc("/clean", func(w http.ResponseWriter, r *http.Request) {
		v.note(r.RemoteAddr)
		fmt.Fprint(w, "harmless")
	})
	mux.HandleFunc("/eicar", func(w http.ResponseWriter, r *http.Request) {
		v.note(r.RemoteAddr)
		_, _ = w.Write(scan.EICAR())
	})
	leaf := ca.Leaf(l.t, nil, append([]string{serverName}, addrs...)...)
	for _, a := range addrs {
		for _, port := range []string{"80", "443"} {
			ln := l.listen("s", net.JoinHostPort(a, port))
			if port == "443" {
				ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{leaf}, NextProtos: []string{"http/1.1"}})
			}
			srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
			go func() { _ = srv.Serve(ln) }()
			l.t.Cleanup(func() { _ = srv.Close() })
		}
	}
	return v
}

// gateway is a gateway on machine g.
type gateway struct {
	l      *lab
	config string
	state  string
	log    *harness.Output
	cmd    *exec.Cmd
}

// gateway writes the settings and starts one.
func (l *lab) gateway(ca *harness.CA, admin, redirect string) *gateway {
	l.t.Helper()
	dir := l.t.TempDir()
	g := &gateway{l: l, config: filepath.Join(dir, "lazaret.toml"), state: filepath.Join(dir, "state"), log: &harness.Output{}}
	settings := fmt.Sprintf(`state_dir = %q
[web]
listen = []
transparent = [":%s"]
allow_clients = ["10.7.1.0/24", "fd07::/64"]
[web.tls]
extra_roots = [%q]
hello_timeout = "2s"
[pop3]
listen = []
[admin]
listen = %q
[[scanner]]
type = "signatures"
[redirect]
%s
`, g.state, transparent, ca.File, admin, redirect)
	if err := os.WriteFile(g.config, []byte(settings), 0o600); err != nil {
		l.t.Fatal(err)
	}
	g.start()
	l.t.Cleanup(func() {
		g.stop()
		if l.t.Failed() {
			l.t.Logf("the gateway's log:\n%s", g.log)
		}
	})
	return g
}

func (g *gateway) start() {
	g.l.t.Helper()
	g.cmd = exec.Command("ip", "netns", "exec", g.l.namespace("g"), harness.Binary(g.l.t), "run", "--config", g.config)
	g.cmd.Stdout, g.cmd.Stderr = g.log, g.log
	g.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	before := strings.Count(g.log.String(), "objects are judged by")
	if err := g.cmd.Start(); err != nil {
		g.l.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); strings.Count(g.log.String(), "objects are judged by") == before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.l.t.Fatalf("the gateway does not start:\n%s", g.log)
		}
	}
}

// await waits for a line of the log.
func (g *gateway) await(text string) {
	g.l.t.Helper()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(g.log.String(), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.l.t.Fatalf("the log lacks %s:\n%s", text, g.log)
		}
	}
}

// stop ends the gateway, as a service manager would.
func (g *gateway) stop() {
	if g.cmd == nil {
		return
	}
	_ = g.cmd.Process.Signal(unix.SIGTERM) // ip has become the gateway itself
	_ = g.cmd.Wait()                       // how it ends is not this test's matter
	g.cmd = nil
}

// lazaret runs a command of the gateway's program on its machine.
func (g *gateway) lazaret(args ...string) (string, error) {
	return g.l.run("g", append([]string{harness.Binary(g.l.t)}, args...)...)
}

// curl fetches on the client's machine, and returns status, the address that answered, and the body.
func (g *gateway) curl(args ...string) (status, remote, body string) {
	out, err := g.l.run("c", append([]string{
		"curl", "-sS", "-g", "--noproxy", "*", "-m", "20", "--cacert", filepath.Join(g.state, "ca", "ca.pem"), "-w", "\n%{http_code} %{remote_ip}",
	}, args...)...)
	i := strings.LastIndexByte(out, '\n')
	if err != nil || i < 0 {
		return "failed", "", out
	}
	status, remote, _ = strings.Cut(out[i+1:], " ")
	return status, remote, out[:i]
}
