package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// said is what a program says.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// runWithPipe starts the gateway with settings that come out of a pipe.
func runWithPipe(t *testing.T, settings string) (*exec.Cmd, *said) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out := &said{}
	cmd := exec.Command(self)
	cmd.Args = []string{"lazaret", "run", "-c", "/dev/fd/3"}
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{r}, out, out
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+t.TempDir()) // in case the settings are not read
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, settings); err != nil {
		t.Error(err)
	}
	_ = w.Close() // nothing is lost: all was written
	return cmd, out
}

// TestSettingsFromAPipe holds the gateway to settings that can be read only once: it must never run with its defaults in their place.
func TestSettingsFromAPipe(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	settings := "state_dir = '" + state + "'\n[web]\nlisten = ['127.0.0.1:0']\n[admin]\nlisten = '127.0.0.1:0'\n"
	cmd, out := runWithPipe(t, settings)
	defer cmd.Process.Kill() //nolint:errcheck // it has ended unless the test failed
	says := func(what string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !strings.Contains(out.String(), what); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it never said %q, but:\n%s", what, out)
			}
		}
	}
	says("127.0.0.1:")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(state, "ca", "ca.pem")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it does not run by its settings:\n%s", out)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	says("is a pipe, which cannot be read again")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("its end: %v\n%s", err, out)
	}
}
