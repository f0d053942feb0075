package listen

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// firstFD is the first file descriptor that systemd passes (sd_listen_fds(3)).
const firstFD = 3

// passed holds the sockets that systemd passed to this process until somebody asks for them.
var passed struct {
	once  sync.Once
	mu    sync.Mutex
	files map[string][]*os.File
	err   error
}

// fromSystemd returns the sockets that systemd passed under a name, each time it is asked: they stay open here, so that a
// reload or a service that takes its listeners anew finds them again.
func fromSystemd(name string) ([]net.Listener, error) {
	passed.once.Do(func() {
		passed.files, passed.err = parseListenFDs(os.Getenv, os.Getpid(), func(fd int, name string) *os.File {
			syscall.CloseOnExec(fd) // scanners that are started do not get the sockets
			return os.NewFile(uintptr(fd), name)
		})
		for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			_ = os.Unsetenv(v) // cannot fail for these names
		}
	})
	passed.mu.Lock()
	defer passed.mu.Unlock()
	if passed.err != nil {
		return nil, passed.err
	}
	files := passed.files[name]
	if len(files) == 0 {
		return nil, fmt.Errorf("systemd passed no socket named %q (it passed %s): set FileDescriptorName=%s in the .socket unit, and start the service by it", name, names(passed.files), name)
	}
	var lns []net.Listener
	for _, f := range files {
		ln, err := net.FileListener(f)
		if err == nil {
			if _, ok := ln.(*net.TCPListener); !ok {
				err = fmt.Errorf("it is of type %s, not a TCP listener", ln.Addr().Network())
				_ = ln.Close()
			}
		}
		if err != nil {
			for _, l := range lns {
				_ = l.Close()
			}
			return nil, fmt.Errorf("the socket %q that systemd passed: %w", name, err)
		}
		lns = append(lns, ln)
	}
	return lns, nil
}

// parseListenFDs reads the environment of sd_listen_fds(3): which file descriptors are sockets for this process, by name.
// Sockets without a name are called "unknown", as systemd does.
func parseListenFDs(env func(string) string, pid int, open func(fd int, name string) *os.File) (map[string][]*os.File, error) {
	if env("LISTEN_FDS") == "" {
		return nil, nil
	}
	if env("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil // for another process, of which this one inherited the environment
	}
	n, err := strconv.Atoi(env("LISTEN_FDS"))
	if err != nil || n < 0 || n > 1024 {
		return nil, fmt.Errorf("LISTEN_FDS=%q is not a number of sockets", env("LISTEN_FDS"))
	}
	var labels []string
	if s := env("LISTEN_FDNAMES"); s != "" {
		labels = strings.Split(s, ":")
	}
	if labels != nil && len(labels) != n {
		return nil, fmt.Errorf("LISTEN_FDNAMES=%q has %d names for %d sockets", env("LISTEN_FDNAMES"), len(labels), n)
	}
	files := map[string][]*os.File{}
	for i := range n {
		name := "unknown"
		if labels != nil {
			name = labels[i]
		}
		files[name] = append(files[name], open(firstFD+i, name))
	}
	return files, nil
}

func names(files map[string][]*os.File) string {
	if len(files) == 0 {
		return "none at all"
	}
	var out []string
	for n := range files {
		out = append(out, strconv.Quote(n))
	}
	return strings.Join(out, ", ")
}
