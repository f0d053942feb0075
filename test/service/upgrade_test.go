// Package service tests the gateway as a service: reloads and upgrades under load, what a service manager is told.
package service

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lazaret/test/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Clean()
	os.Exit(code)
}

// stream asks without pause until it is stopped, and counts.
type stream struct {
	wg        sync.WaitGroup
	stop      chan struct{}
	ok        atomic.Int64
	mu        sync.Mutex
	failures  []string
	transport []*http.Transport
}

func (s *stream) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, fmt.Sprintf(format, args...))
}

// start has n clients ask; with keep they keep their connections.
func (s *stream) start(t *testing.T, g *harness.Gateway, target string, n int, keep bool) {
	t.Helper()
	proxy, err := url.Parse("http://" + g.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	roots := g.Roots(t)
	for range n {
		tr := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: !keep}
		s.transport = append(s.transport, tr)
		client := &http.Client{Transport: tr, Timeout: time.Minute}
		s.wg.Go(func() {
			for {
				select {
				case <-s.stop:
					return
				default:
				}
				resp, err := client.Get(target)
				if err != nil {
					s.fail("%s: %v", target, err)
					continue
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close() // it was read
				if err != nil || resp.StatusCode != http.StatusOK || string(body) != "harmless" {
					s.fail("%s: %s, %d bytes, %v", target, resp.Status, len(body), err)
					continue
				}
				s.ok.Add(1)
			}
		})
	}
}

// startPlain has a client ask over connections that it keeps, with a pause between two requests, and without the second try
// that Go's client makes where a connection was closed under its request.
func (s *stream) startPlain(g *harness.Gateway, target string) {
	s.wg.Go(func() {
		var c net.Conn
		var br *bufio.Reader
		for {
			select {
			case <-s.stop:
				if c != nil {
					_ = c.Close() // idle
				}
				return
			case <-time.After(5 * time.Millisecond):
			}
			if c == nil {
				var err error
				if c, err = net.Dial("tcp", g.Proxy); err != nil {
					s.fail("connecting: %v", err)
					continue
				}
				br = bufio.NewReader(c)
			}
			_, werr := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
			resp, err := http.ReadResponse(br, nil)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
			}
			if err != nil || werr != nil || resp.StatusCode != http.StatusOK {
				s.fail("%s over a kept connection: %v, %v", target, werr, err)
			} else {
				s.ok.Add(1)
			}
			if err != nil || resp.Close {
				_ = c.Close() // it has ended
				c = nil
			}
		}
	})
}

// more waits until n more requests were answered.
func (s *stream) more(t *testing.T, n int64) {
	t.Helper()
	want := s.ok.Load() + n
	for deadline := time.Now().Add(time.Minute); s.ok.Load() < want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d requests were answered", s.ok.Load())
		}
	}
}

var successor = regexp.MustCompile(`"another process has taken over[^}]*"pid":(\d+)`)

// TestReloadAndUpgradeLoseNothing sends requests without pause while the settings are read again and the program is started
// anew, and counts what fails.
func TestReloadAndUpgradeLoseNothing(t *testing.T) {
	harmless := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "harmless") })
	plain, secure := harness.NewPlainOrigin(t, harmless), harness.NewOrigin(t, harmless)
	g := harness.Start(t, harness.Settings{"audit": "record_clean = false\n"}, secure.CA.File)
	s := &stream{stop: make(chan struct{})}
	s.start(t, g, plain.URL+"/x", 2, true)
	s.start(t, g, plain.URL+"/x", 2, false)
	for range 4 {
		s.startPlain(g, plain.URL+"/x")
	}
	s.start(t, g, secure.URL+"/x", 2, true)
	s.start(t, g, secure.URL+"/x", 2, false)
	s.more(t, 100)
	for range 3 {
		g.Signal(t, syscall.SIGHUP)
		s.more(t, 100)
	}
	pid := g.PID()
	t.Cleanup(func() {
		if pid == g.PID() {
			return // nothing has taken over: the harness ends it
		}
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Signal(syscall.SIGTERM) // it may have ended
		}
	})
	const upgrades = 2
	for i := range upgrades {
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if found := successor.FindAllStringSubmatch(g.Log.String(), -1); len(found) > i {
				next, err := strconv.Atoi(found[i][1])
				if err != nil || next == pid {
					t.Fatalf("the successor is %v: %v", found[i], err)
				}
				pid = next
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("nothing has taken over")
			}
		}
		s.more(t, 200)
	}
	// Those that were taken over from have gone.
	for deadline := time.Now().Add(time.Minute); strings.Count(g.Log.String(), `"the gateway has ended"`) < upgrades; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process that was taken over from goes on")
		}
	}
	s.more(t, 100)
	close(s.stop)
	s.wg.Wait()
	for _, tr := range s.transport {
		tr.CloseIdleConnections()
	}
	if len(s.failures) > 0 {
		t.Errorf("of %d requests %d failed:\n%s", s.ok.Load()+int64(len(s.failures)), len(s.failures), strings.Join(s.failures[:min(10, len(s.failures))], "\n"))
	}
	t.Logf("%d requests, %d failures, over 3 reloads and %d upgrades", s.ok.Load(), len(s.failures), upgrades)
}

// TestUpgradeToAProgramThatTookThePlace puts a new file in the place of the program, as a package does: for the sandbox it is
// another one.
func TestUpgradeToAProgramThatTookThePlace(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	top, err := os.MkdirTemp(wd, "installed") // what is below the temporary folder may be written to
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	program := filepath.Join(top, "lazaret", "lazaret")
	if err := os.Mkdir(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	install := func() {
		t.Helper()
		b, err := os.ReadFile(harness.Binary(t))
		if err == nil {
			err = os.WriteFile(program+".new", b, 0o755)
		}
		if err == nil {
			err = os.Rename(program+".new", program)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	install()
	g := harness.StartProgram(t, program, harness.Settings{"sandbox": "mode = \"auto\"\n"})
	install()
	g.Signal(t, syscall.SIGUSR2)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if found := successor.FindStringSubmatch(g.Log.String()); found != nil {
			pid, err := strconv.Atoi(found[1])
			if err != nil {
				t.Fatal(err)
			}
			_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
			break
		}
		if strings.Contains(g.Log.String(), `"nothing has taken over`) || time.Now().After(deadline) {
			t.Fatalf("the new program did not take over:\n%s", g.Log.String())
		}
	}
	if !strings.Contains(g.Log.String(), "Landlock (version") {
		t.Log("NOT TESTED with Landlock: this kernel lacks it")
	}
}
