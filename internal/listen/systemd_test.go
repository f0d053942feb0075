package listen

import (
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestMainAsService is what the test below starts again with sockets passed: it takes one and answers on it.
func TestMainAsService(t *testing.T) {
	if os.Getenv("LISTEN_TEST_CHILD") == "" {
		t.Skip("started by TestSocketsOfSystemd only")
	}
	// systemd sets LISTEN_PID between fork and exec, which a test cannot do.
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	for range 2 { // a reload finds them again
		ls, err := Listen(t.Context(), "systemd:web", Default(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(ls) != 2 {
			t.Fatalf("%d sockets of that name, want 2", len(ls))
		}
		for _, l := range ls {
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "served")
			_, _ = c.Close(), l.Close()
		}
	}
	if _, err := Listen(t.Context(), "systemd:mail", Default(), Options{}); err == nil || !strings.Contains(err.Error(), `"web"`) {
		t.Errorf("a name that was not passed: %v", err)
	}
	if os.Getenv("LISTEN_FDS") != "" {
		t.Error("children would inherit LISTEN_FDS")
	}
}

func TestSocketsOfSystemd(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMainAsService$", "-test.v")
	cmd.Env = append(os.Environ(), "LISTEN_TEST_CHILD=1", "LISTEN_FDS=3", "LISTEN_FDNAMES=web:admin:web")
	var addrs []string
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		addrs = append(addrs, ln.Addr().String())
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, addr := range []string{addrs[0], addrs[2]} {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(c); err != nil || string(b) != "served" {
				t.Errorf("read %q, %v", b, err)
			}
			_ = c.Close()
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the service: %v\n%s", err, out.String())
	}
}
