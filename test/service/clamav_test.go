package service

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/clamd/supervise"
	"lazaret/test/harness"
)

// mark is what the mirror's signature finds.
const mark = "lazaret-served-by-the-mirror"

// supervised starts a gateway whose clamd has no signatures yet; freshclam fetches them from a server of ours.
func supervised(t *testing.T) *harness.Gateway {
	t.Helper()
	if _, err := supervise.FindProgram(); err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	if _, err := supervise.FindFreshclam(); err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	signatures := "Served:0:*:" + hex.EncodeToString([]byte(mark)) + "\nEicar-Test:0:0:" + hex.EncodeToString(scan.EICAR()) + "\n"
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "own.ndb", time.Time{}, strings.NewReader(signatures))
	}))
	t.Cleanup(mirror.Close)
	parent, err := os.MkdirTemp("", "lzr-managed")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil { // clamd and freshclam run as another user
		t.Fatal(err)
	}
	return harness.Start(t, harness.Settings{
		"clamav":           fmt.Sprintf("managed = true\nwithout_signatures = \"wait\"\ndatabase = %q\n", filepath.Join(parent, "db")),
		"clamav.freshclam": fmt.Sprintf("official = false\ncustom_urls = [%q]\n", mirror.URL+"/own.ndb"),
		"audit":            "level = \"debug\"\n",
	})
}

// clamdOf returns the process number of the clamd that g runs; 0: none.
func clamdOf(g *harness.Gateway) int {
	names, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(string(b))
		if len(f) > 3 && f[1] == "(clamd)" && f[2] != "Z" && f[3] == strconv.Itoa(g.PID()) {
			pid, _ := strconv.Atoi(f[0])
			return pid
		}
	}
	return 0
}

// judging is a steady load, of which every object is another one, so that no verdict is remembered.
type judging struct {
	clean, infected, refused, delivered atomic.Int64
	stop                                context.CancelFunc
	working                             sync.WaitGroup
}

func load(t *testing.T, g *harness.Gateway) *judging {
	t.Helper()
	var n atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := fmt.Sprintf("object %d\n%s\n", n.Add(1), strings.Repeat("nothing to see here ", 200))
		if r.URL.Path == "/bad" {
			text += mark
		}
		_, _ = io.WriteString(w, text) // the gateway may have enough of it
	}))
	t.Cleanup(origin.Close)
	proxy, err := url.Parse("http://" + g.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &judging{stop: cancel}
	for i := range 6 {
		path := []string{"/good", "/bad"}[i%2]
		s.working.Go(func() {
			tr := &http.Transport{Proxy: http.ProxyURL(proxy)}
			defer tr.CloseIdleConnections()
			c := &http.Client{Transport: tr, Timeout: time.Minute}
			for ctx.Err() == nil {
				s.once(ctx, c, origin.URL+path)
			}
		})
	}
	t.Cleanup(s.end)
	return s
}

func (s *judging) once(ctx context.Context, c *http.Client, address string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return
	}
	resp, err := c.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			s.refused.Add(1)
		}
		return
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it is read
	switch {
	case strings.Contains(string(body), mark):
		s.delivered.Add(1)
	case ctx.Err() != nil:
	case err == nil && resp.StatusCode == http.StatusOK && strings.HasSuffix(address, "/good"):
		s.clean.Add(1)
	case resp.StatusCode == http.StatusForbidden && strings.HasSuffix(address, "/bad"):
		s.infected.Add(1)
	default:
		s.refused.Add(1)
	}
}

func (s *judging) end() {
	s.stop()
	s.working.Wait()
}

// more waits until that many more objects of each sort were judged.
func (s *judging) more(t *testing.T, n int64) {
	t.Helper()
	clean, infected := s.clean.Load(), s.infected.Load()
	for end := time.Now().Add(time.Minute); s.clean.Load() < clean+n || s.infected.Load() < infected+n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nothing is judged any more: %d clean, %d infected, %d refused", s.clean.Load(), s.infected.Load(), s.refused.Load())
		}
	}
}

func TestKilledClamdUnderLoadLetsNothingThroughAndComesBack(t *testing.T) {
	g := supervised(t)
	s := load(t, g)
	for range 2 {
		s.more(t, 50)
		pid := clamdOf(g)
		if pid == 0 {
			t.Fatal("no clamd of the gateway runs")
		}
		refused := s.refused.Load()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); s.refused.Load() == refused; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nothing was refused while clamd was away: the load does not show what it is to show")
			}
		}
	}
	s.more(t, 50)
	s.end()
	if n := s.delivered.Load(); n > 0 {
		t.Errorf("%d infected objects were delivered", n)
	}
	t.Logf("%d clean, %d infected, %d refused while clamd was away", s.clean.Load(), s.infected.Load(), s.refused.Load())
}

func TestSignaturesAreReloadedUnderLoadWithoutAFailure(t *testing.T) {
	g := supervised(t)
	socket := filepath.Join(g.StateDir, "clamd", "clamd.sock")
	if note, err := os.ReadFile(filepath.Join(g.StateDir, "clamd", "elsewhere")); err == nil {
		socket = filepath.Join(string(note), "clamd.sock")
	}
	s := load(t, g)
	for range 5 {
		s.more(t, 20)
		loads := strings.Count(g.Log.String(), "clamd: Activating")
		if got, err := clamd.Command(t.Context(), "unix:"+socket, "RELOAD"); err != nil || got != "RELOADING" {
			t.Fatalf("RELOAD: %q, %v", got, err)
		}
		for end := time.Now().Add(time.Minute); strings.Count(g.Log.String(), "clamd: Activating") == loads; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("clamd did not load its signatures anew")
			}
		}
	}
	s.more(t, 20)
	s.end()
	if s.delivered.Load() > 0 || s.refused.Load() > 0 {
		t.Errorf("%d infected objects delivered, %d requests failed", s.delivered.Load(), s.refused.Load())
	}
	t.Logf("%d clean, %d infected, %d failed", s.clean.Load(), s.infected.Load(), s.refused.Load())
}
