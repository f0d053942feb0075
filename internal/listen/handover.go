package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// handoverEnv tells a process which of its file descriptors are listening sockets of the one before it: "FD ADDRESS", one a
// line, where ADDRESS is what the settings call it.
const handoverEnv = "LAZARET_SOCKETS"

// handed holds the sockets that the process before this one left, until somebody asks for them.
var handed struct {
	once  sync.Once
	mu    sync.Mutex
	files map[string][]*os.File
	some  bool // there were any
	err   error
}

// Handover returns the sockets of ls as files for a process that is to take over: they become its file descriptors from
// first on, as exec.Cmd.ExtraFiles has it, and env goes into its environment. The caller closes the files.
func Handover(ls []*Listener, first int) (files []*os.File, env string, err error) {
	var lines []string
	for i, l := range ls {
		t, ok := l.Listener.(interface{ File() (*os.File, error) })
		if !ok {
			err = fmt.Errorf("%s is no socket that could be handed over", l.address)
			break
		}
		f, e := t.File()
		if e != nil {
			err = fmt.Errorf("handing %s over: %w", l.address, e)
			break
		}
		files = append(files, f)
		lines = append(lines, fmt.Sprintf("%d %s", first+i, l.address))
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close() // a duplicate that nobody uses
		}
		return nil, "", err
	}
	return files, handoverEnv + "=" + strings.Join(lines, "\n"), nil
}

// Taken says whether this process was given sockets of one before it, used by now or not.
func Taken() bool {
	readHanded()
	return handed.some
}

func readHanded() {
	handed.once.Do(func() {
		text := os.Getenv(handoverEnv)
		_ = os.Unsetenv(handoverEnv) // cannot fail for that name
		handed.files, handed.err = parseHanded(text, func(fd int, name string) *os.File {
			syscall.CloseOnExec(fd) // scanners that are started do not get the sockets
			return os.NewFile(uintptr(fd), name)
		})
		handed.some = len(handed.files) > 0
	})
}

// parseHanded reads what Handover wrote.
func parseHanded(text string, open func(fd int, name string) *os.File) (map[string][]*os.File, error) {
	files := map[string][]*os.File{}
	if text == "" {
		return files, nil
	}
	for _, line := range strings.Split(text, "\n") {
		number, address, ok := strings.Cut(line, " ")
		fd, err := strconv.Atoi(number)
		if !ok || err != nil || fd < firstFD || fd > 1<<16 {
			return nil, fmt.Errorf("%s has a line %q, which names no socket", handoverEnv, line)
		}
		files[address] = append(files[address], open(fd, address))
	}
	return files, nil
}

// fromBefore returns the sockets that the process before this one had for an address; none where there was none.
func fromBefore(address string) ([]net.Listener, error) {
	readHanded()
	handed.mu.Lock()
	defer handed.mu.Unlock()
	if handed.err != nil {
		return nil, handed.err
	}
	files := handed.files[address]
	delete(handed.files, address)
	var lns []net.Listener
	for _, f := range files {
		ln, err := net.FileListener(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("the socket of %s that was handed over: %w", address, err)
		}
		lns = append(lns, ln)
	}
	return lns, nil
}

// Stop ends accepting without closing anything: what was accepted is still given to Accept, and what waits in the socket is
// left to whoever else has it. Close is still to be called.
func (l *Listener) Stop() error {
	t, ok := l.Listener.(interface{ SetDeadline(t time.Time) error })
	if !ok {
		return fmt.Errorf("%s cannot be stopped without being closed", l.address)
	}
	l.stopping.Store(true)
	if err := t.SetDeadline(time.Now()); err != nil {
		return err
	}
	l.wg.Wait()
	return nil
}
