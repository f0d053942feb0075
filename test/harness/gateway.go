// Package harness starts the real binary and the real peers that the tests in test/ put around it: everything on free
// loopback ports, in a temporary directory, and ended with the test.
package harness

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lazaret/test/ports"
)

var build struct {
	once sync.Once
	path string
	err  error
}

// Binary builds cmd/lazaret once for the test process, with the race detector, and returns its path.
func Binary(t testing.TB) string {
	t.Helper()
	build.once.Do(func() {
		if build.err = dependOnSources(); build.err != nil {
			return
		}
		dir, err := os.MkdirTemp("", "lazaret-test-")
		if err != nil {
			build.err = err
			return
		}
		build.path = filepath.Join(dir, "lazaret")
		cmd := exec.Command("go", "build", "-race", "-o", build.path, "lazaret/cmd/lazaret")
		if out, err := cmd.CombinedOutput(); err != nil {
			build.err = fmt.Errorf("building lazaret: %w\n%s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// dependOnSources lets "go test" know that what it says of these tests is true of these sources alone: it remembers results, and does not
// see that they are of a program which the tests build. It sees what they ask of the environment, where make puts the sources' digest,
// and which files they look at.
func dependOnSources() error {
	if os.Getenv("LAZARET_SOURCES") != "" {
		return nil
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("looking for the sources: %w", err)
	}
	root := strings.TrimSpace(string(out))
	for _, name := range []string{"cmd", "internal", "go.mod", "go.sum"} {
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && !strings.HasSuffix(path, "_test.go") {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("looking at the sources: %w", err)
		}
	}
	return nil
}

// Clean removes what Binary built; a package's TestMain calls it at the end.
func Clean() {
	if build.path != "" {
		_ = os.RemoveAll(filepath.Dir(build.path)) // a leftover in the temporary directory is no failure
	}
}

// Gateway is a running lazaret.
type Gateway struct {
	Proxy    string // host:port of the explicit proxy
	Admin    string // host:port
	POP3     string // host:port; it is listened on where the settings have a "pop3"
	StateDir string
	Config   string // the settings file
	Log      *Output
	cmd      *exec.Cmd
	done     chan struct{}
	exit     error
	program  string
}

// Output collects what a process prints. It is safe for use by many goroutines.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns everything so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Logs says whether the output has, or within ten seconds gets, a text: the log is written by a process of its own pace.
func (o *Output) Logs(text string) bool {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if strings.Contains(o.String(), text) {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// FreePort returns a loopback address that nobody listens on, see ports.Free.
func FreePort(t testing.TB) string {
	t.Helper()
	addr, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// Settings are what a test wants different from the defaults: the bodies of TOML tables, by table name. Keys that the
// harness sets itself (addresses, roots) come first in their tables.
type Settings map[string]string

// Start runs the gateway with these settings, with the origin's CA trusted and loopback destinations allowed, and waits
// until it is ready. Without a "[[scanner]]" in the settings the built-in signatures judge.
func Start(t testing.TB, s Settings, roots ...string) *Gateway {
	t.Helper()
	return StartProgram(t, Binary(t), s, roots...)
}

// StartProgram is Start with a copy of the program.
func StartProgram(t testing.TB, program string, s Settings, roots ...string) *Gateway {
	t.Helper()
	g := &Gateway{
		Proxy: FreePort(t), Admin: FreePort(t), POP3: FreePort(t), StateDir: filepath.Join(t.TempDir(), "state"), Log: &Output{},
		done: make(chan struct{}), program: program,
	}
	g.Config = filepath.Join(t.TempDir(), "lazaret.toml")
	if err := os.WriteFile(g.Config, []byte(g.settings(s, roots)), 0o600); err != nil {
		t.Fatal(err)
	}
	g.run(t)
	return g
}

// StartFile runs another gateway in the place of g, which ends, with these settings as its whole file.
func StartFile(t testing.TB, g *Gateway, settings string) *Gateway {
	t.Helper()
	g.stop(t)
	if err := os.WriteFile(g.Config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	next := &Gateway{Proxy: g.Proxy, Admin: g.Admin, POP3: g.POP3, StateDir: g.StateDir, Config: g.Config, Log: &Output{}, done: make(chan struct{}), program: g.program}
	next.run(t)
	return next
}

func (g *Gateway) run(t testing.TB) {
	t.Helper()
	g.cmd = exec.Command(g.program, "run", "--config", g.Config)
	g.cmd.Stdout, g.cmd.Stderr = g.Log, g.Log
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		g.exit = g.cmd.Wait()
		close(g.done)
	}()
	t.Cleanup(func() { g.stop(t) })
	g.waitReady(t)
}

func (g *Gateway) settings(s Settings, roots []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "state_dir = %q\n%s\n", g.StateDir, s[""])
	quoted := make([]string, len(roots))
	for i, r := range roots {
		quoted[i] = fmt.Sprintf("%q", r)
	}
	base := map[string]string{
		"web":     fmt.Sprintf("listen = [%q]\nallow_private_destinations = true\nconnect_ports = [\"1-65535\"]\n", g.Proxy),
		"web.tls": fmt.Sprintf("extra_roots = [%s]\n", strings.Join(quoted, ", ")),
		"admin":   fmt.Sprintf("listen = %q\n", g.Admin),
		"pop3":    "listen = []\n",
	}
	if _, ok := s["pop3"]; ok {
		base["pop3"] = fmt.Sprintf("listen = [%q]\n", g.POP3)
	}
	for _, name := range []string{"web", "web.tls", "admin", "pop3"} {
		fmt.Fprintf(&b, "[%s]\n%s%s\n", name, base[name], s[name])
	}
	for name, body := range s {
		if _, done := base[name]; done || name == "" {
			continue
		}
		// "[scanner]" becomes an array of tables.
		fmt.Fprintf(&b, "[%s]\n%s\n", name, body)
	}
	if _, ok := s["[scanner]"]; !ok {
		b.WriteString("[[scanner]]\ntype = \"signatures\"\n")
	}
	return b.String()
}

func (g *Gateway) waitReady(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.Admin+"/readyz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-g.done:
			t.Fatalf("the gateway ended: %v\n%s", g.exit, g.Log)
		case <-ctx.Done():
			t.Fatalf("the gateway is not ready: %v\n%s", err, g.Log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Signal sends the process a signal.
func (g *Gateway) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := g.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// Wait waits for the process to end, and returns how it did.
func (g *Gateway) Wait(t testing.TB, timeout time.Duration) error {
	t.Helper()
	select {
	case <-g.done:
		return g.exit
	case <-time.After(timeout):
		t.Fatalf("the gateway does not end\n%s", g.Log)
		return nil
	}
}

// PID returns the process's id.
func (g *Gateway) PID() int { return g.cmd.Process.Pid }

// stop ends the process as a service manager would, and looks for what must never be in a log.
func (g *Gateway) stop(t testing.TB) {
	select {
	case <-g.done:
	default:
		_ = g.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
		select {
		case <-g.done:
		case <-time.After(20 * time.Second):
			_ = g.cmd.Process.Kill()
			<-g.done
			t.Errorf("the gateway had to be killed")
		}
	}
	log := g.Log.String()
	if strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
		t.Errorf("the gateway's log has a race or a panic:\n%s", log)
	} else if t.Failed() {
		t.Logf("the gateway's log:\n%s", log)
	}
}

// CAFile returns the path of the gateway's CA certificate.
func (g *Gateway) CAFile() string { return filepath.Join(g.StateDir, "ca", "ca.pem") }

// Roots returns a pool that trusts the gateway's CA alone.
func (g *Gateway) Roots(t testing.TB) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(g.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		t.Fatal(errors.New("no certificate in " + g.CAFile()))
	}
	return pool
}
