// Package peers runs what the benchmark compares, and what that needs, as child processes on free loopback ports with
// settings of their own: clamd, c-icap, Squid, lazaret. It touches no process that it has not started.
package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"lazaret/bench/internal/proc"
)

// starts carries the starting of processes to one thread that lives as long as this process: Linux ends a child with
// Pdeathsig when the thread that has started it ends.
var starts = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

// Child is a process that this package has started.
type Child struct {
	name string
	log  string // file with what it prints
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; valid after done
}

// Start runs a program, whose output goes to name.log in dir. It ends with this process at the latest.
func Start(name, dir string, program string, args ...string) (*Child, error) {
	cmd := exec.Command(program, args...)
	return start(name, dir, cmd)
}

func start(name, dir string, cmd *exec.Cmd) (*Child, error) {
	c := &Child{name: name, log: filepath.Join(dir, name+".log"), cmd: cmd, done: make(chan struct{})}
	f, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = f
	}
	cmd.Stderr = f
	// A group of its own: a Ctrl-C on the terminal is for the benchmark, which ends its children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	starts() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// PID returns the process's id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Running reports whether the process has not ended.
func (c *Child) Running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// Fault describes with the end of the log what is wrong with c.
func (c *Child) Fault(what string) error {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return fmt.Errorf("%s: %s (and its log cannot be read: %w)", c.name, what, err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	lines = lines[max(0, len(lines)-15):]
	return fmt.Errorf("%s: %s. Its last words:\n    %s", c.name, what, strings.Join(lines, "\n    "))
}

// WaitReady calls probe until it returns nil. It returns an error when the process ends, or is not ready in time.
func (c *Child) WaitReady(ctx context.Context, timeout time.Duration, probe func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := probe()
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return c.Fault(fmt.Sprintf("ended at the start (%v)", c.err))
		case <-ctx.Done():
			return c.Fault(fmt.Sprintf("is not ready after %v (%v)", timeout, err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the process with SIGTERM and then, together with what it leaves behind, with SIGKILL.
func (c *Child) Stop() {
	family, err := proc.Tree(c.PID())
	if err != nil {
		family = nil // the process itself is ended all the same
	}
	if c.Running() {
		_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
		select {
		case <-c.done:
		case <-time.After(5 * time.Second):
			_ = c.cmd.Process.Kill() // as above
			<-c.done
		}
	}
	for _, p := range family {
		if p.PID != c.PID() && p.Alive() {
			_ = syscall.Kill(p.PID, syscall.SIGKILL) // as above
		}
	}
}

// ask sends a request over a new connection and returns nil when the answer begins with want.
func ask(network, addr, request, want string) error {
	conn, err := net.DialTimeout(network, addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	b := make([]byte, len(want))
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	if string(b) != want {
		return errors.New("the answer begins with " + fmt.Sprintf("%q", b))
	}
	return nil
}
