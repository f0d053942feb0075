package report

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// maxSaid is how much of what a program says is kept for the log.
const maxSaid = 1 << 10

// said keeps the beginning of what is written to it.
type said struct{ b []byte }

// Write implements io.Writer.
func (s *said) Write(p []byte) (int, error) {
	s.b = append(s.b, p[:min(len(p), maxSaid-len(s.b))]...)
	return len(p), nil
}

// run hands a mail to the program. Mails of the machine itself have LF alone, and so has it.
func (r *Reporter) run(ctx context.Context, l letter) error {
	args := append(append([]string(nil), r.cfg.Program[1:]...), l.to...)
	cmd := exec.CommandContext(ctx, r.cfg.Program[0], args...) //nolint:gosec // it is the administrator's, and the recipients are checked
	var out said
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(bytes.ReplaceAll(l.mail, []byte("\r\n"), []byte("\n"))), &out, &out
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	// The signal of Pdeathsig is sent when the thread ends that started the process: keep it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %w: %.200q", r.cfg.Program[0], errProgram, err, strings.TrimSpace(string(out.b)))
	}
	return nil
}
