package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"lazaret/internal/scan"

	"golang.org/x/sys/unix"
)

// filePath is where a program finds the file that it is started with as its fourth.
const filePath = "/proc/self/fd/3"

// lastWords is how long output is waited for after the whole process group is gone. There is only something to wait for
// when a process has left the group and keeps the output open.
const lastWords = 2 * time.Second

// run is one run of a program.
type run struct {
	program   string
	args      []string
	dir       string   // working directory, HOME and TMPDIR
	env       []string // besides what every run has
	stdin     *os.File // nil: /dev/null
	file      *os.File // nil: none
	maxOutput int
}

// result is what came of it.
type result struct {
	code   int
	signal syscall.Signal // what ended it, if not itself
	output []byte         // standard output and standard error, as they came
}

// how says in words how the program ended.
func (r result) how() string {
	if r.signal != 0 {
		return fmt.Sprintf("it was ended by a signal (%v)", r.signal)
	}
	return fmt.Sprintf("exit code %d, which is neither in clean_codes nor in infected_codes", r.code)
}

// errOverLong says that a program wrote more than it may.
var errOverLong = errors.New("its output has no end")

// do runs the program to its end, or kills it and its process group when ctx ends or the output gets too long.
func (r run) do(ctx context.Context) (result, error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		return result{}, fmt.Errorf("pipe: %w", err)
	}
	defer func() { _ = pr.Close() }()
	cmd := &exec.Cmd{
		Path: r.program, Args: append([]string{r.program}, r.args...), Dir: r.dir, Stdout: pw, Stderr: pw,
		Env: append([]string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "LC_ALL=C",
			"HOME=" + r.dir, "TMPDIR=" + r.dir,
		}, r.env...),
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if r.stdin != nil {
		cmd.Stdin = r.stdin
	}
	if r.file != nil {
		cmd.ExtraFiles = []*os.File{r.file}
	}
	ended := make(chan struct{})
	started := make(chan error, 1)
	go func() {
		defer close(ended)
		// The signal of Pdeathsig is sent when the thread ends that started the process: keep it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = pw.Close()
		started <- err
		if err == nil {
			exited(cmd.Process.Pid)
		}
	}()
	if err := <-started; err != nil {
		return result{}, startError(r.program, err)
	}
	return r.follow(ctx, cmd, pr, ended)
}

// exited waits until the process has exited, and leaves its number taken: its group can still be told by it.
func exited(pid int) {
	for {
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// follow reads the output of a started program until its end, and sees to it that the end comes.
func (r run) follow(ctx context.Context, cmd *exec.Cmd, pr *os.File, ended <-chan struct{}) (result, error) {
	type said struct {
		output []byte
		err    error
	}
	heard := make(chan said, 1)
	tooMuch := make(chan struct{})
	go func() {
		b, err := io.ReadAll(io.LimitReader(pr, int64(r.maxOutput)+1))
		if len(b) > r.maxOutput {
			close(tooMuch)
		}
		heard <- said{b, err}
	}()
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var cause error
	select {
	case <-ended:
	case <-ctx.Done():
		cause = ctx.Err()
	case <-tooMuch:
		cause = &scan.Error{Reason: scan.Unknown, Err: fmt.Errorf("%s: %w: more than %d bytes", r.program, errOverLong, r.maxOutput)}
	}
	kill() // the program, or what it has left behind
	if cause != nil {
		<-ended
		kill() // what it had started meanwhile
	}
	_ = cmd.Wait() // its state says how it ended
	_ = pr.SetReadDeadline(time.Now().Add(lastWords))
	h := <-heard
	switch {
	case cause != nil:
		return result{}, cause
	case len(h.output) > r.maxOutput:
		return result{}, &scan.Error{Reason: scan.Unknown, Err: fmt.Errorf("%s: %w: more than %d bytes", r.program, errOverLong, r.maxOutput)}
	case h.err != nil && !errors.Is(h.err, os.ErrDeadlineExceeded):
		return result{}, fmt.Errorf("%s: reading its output: %w", r.program, h.err)
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		return result{}, fmt.Errorf("%s: how it ended is not known", r.program)
	}
	out := result{code: status.ExitStatus(), output: h.output}
	if sig := status.Signal(); sig > 0 {
		out.signal = sig
	}
	return out, nil
}
