package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lazaret/internal/listen"
)

const (
	// readyEnv is the file descriptor on which a process that takes over says that it serves.
	readyEnv = "LAZARET_READY"
	// generationEnv tells the processes of a row of upgrades apart, so that two clamds have two folders.
	generationEnv = "LAZARET_GENERATION"
	// upgradeTime is how long the next process may take to be ready: its clamd may have signatures to load.
	upgradeTime = 5 * time.Minute
	readyByte   = '!'
)

// Upgrade starts the program anew, with the same arguments and the sockets that are open, and waits until it serves. Then
// this gateway accepts nothing more, and is to be closed; pid is the process that has taken over. On an error everything
// stays as it was.
func (d *Daemon) Upgrade(ctx context.Context) (pid int, err error) {
	d.reloading.Lock() // two upgrades, or an upgrade and a reload, would be in each other's way
	defer d.reloading.Unlock()
	program, err := programFile()
	if err != nil {
		return 0, err
	}
	ready, signal, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer ready.Close()
	const extra = 3 // the first of exec.Cmd.ExtraFiles
	files, env, err := listen.Handover(d.at.all(), extra+1)
	if err != nil {
		return 0, errors.Join(err, signal.Close())
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, os.Args[1:]...) //nolint:gosec // this program itself, as it was started
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = append([]*os.File{signal}, files...)
	cmd.Env = append(ownEnvironment(), env, readyEnv+"="+strconv.Itoa(extra), generationEnv+"="+strconv.Itoa(generation()+1))
	cmd.Env = append(cmd.Env, passphraseForSuccessor()...)
	cmd.SysProcAttr = siblingOfOurs()
	err = cmd.Start()
	for _, f := range cmd.ExtraFiles {
		_ = f.Close() // the other process has them, or nobody needs them
	}
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", program, err)
	}
	if err := awaitReady(ctx, ready); err != nil {
		_ = cmd.Process.Kill() // it may have ended already
		_ = cmd.Wait()         // as it was killed, or failed; its log says why
		return 0, fmt.Errorf("the new process does not serve: %w", err)
	}
	var errs []error
	for _, l := range d.at.all() {
		errs = append(errs, l.Stop())
	}
	if err := errors.Join(errs...); err != nil {
		d.log.Error("a listener was not stopped", "error", err)
	}
	pid = cmd.Process.Pid
	d.successor = pid
	return pid, cmd.Process.Release()
}

// siblingOfOurs has a process that takes over under a service manager be the manager's own child from its first moment, as
// this one is. systemd looks at that once, when it is told of the main process; of one that was not its child then it does not
// wait for the end: to stop it, it kills it at once, and what is under way is cut off.
func siblingOfOurs() *syscall.SysProcAttr {
	if os.Getenv("NOTIFY_SOCKET") == "" || os.Getppid() != 1 {
		return nil
	}
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_PARENT}
}

// ownEnvironment returns the environment without what is for this process alone.
func ownEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WATCHDOG_PID=") })
}

// awaitReady waits for the other process's word.
func awaitReady(ctx context.Context, r *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) }) // a pipe takes it
	defer stop()
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return errors.New("it has ended; its log says why")
	case b[0] != readyByte:
		return errors.New("it says something unknown")
	}
	return nil
}

// tellReady says to the process before this one, where there is one, that this one serves.
func (d *Daemon) tellReady() {
	text := os.Getenv(readyEnv)
	if text == "" {
		return
	}
	_ = os.Unsetenv(readyEnv) // cannot fail for that name
	fd, err := strconv.Atoi(text)
	if err == nil {
		f := os.NewFile(uintptr(fd), "ready")
		_, err = f.Write([]byte{readyByte})
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		d.log.Error("the process before this one could not be told that this one serves", "error", err)
	}
}

// generation returns how many upgrades led to this process.
func generation() int {
	n, err := strconv.Atoi(os.Getenv(generationEnv))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// programFile returns where this program is now: a new version may have been put in its place.
func programFile() (string, error) {
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		return path, nil
	}
	return os.Executable()
}
