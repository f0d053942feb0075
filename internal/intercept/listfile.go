package intercept

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// The bounds of a tunnel file, and how often it is looked at.
const (
	maxListFile   = 16 << 20
	listFileEvery = 2 * time.Second
)

// listFile is a tunnel list in a file, read again when the file changes. A file that cannot be used leaves the list as it
// was, and is reported once for each of its states.
type listFile struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	list   *hostList
	looked time.Time
	state  fileState
}

// fileState is what tells one content of a file from another.
type fileState struct {
	size  int64
	mtime time.Time
	inode any
}

// newListFile reads the file at path; the empty path is no file, and its list is nil.
func newListFile(path string, log *slog.Logger) (*listFile, error) {
	f := &listFile{path: path, log: log}
	if path == "" {
		return f, nil
	}
	st, list, err := f.read()
	if err != nil {
		return nil, err
	}
	f.state, f.list, f.looked = st, list, time.Now()
	return f, nil
}

// current returns the list, after a look at the file where the last one was a while ago.
func (f *listFile) current() *hostList {
	if f.path == "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < listFileEvery {
		return f.list
	}
	f.looked = time.Now()
	st, err := os.Stat(f.path)
	if err == nil && stateOf(st) == f.state {
		return f.list
	}
	if err != nil && f.state == (fileState{}) {
		return f.list // reported already
	}
	now, list, err := f.read()
	f.state = now
	if err != nil {
		f.log.Error("the tunnel file cannot be used; the list stays as it was", "file", f.path, "error", err)
		return f.list
	}
	f.log.Info("the tunnel file was read again", "file", f.path)
	f.list = list
	return list
}

// read reads the whole file. Any wrong line makes it unusable, as a list of which a part counts surprises.
func (f *listFile) read() (fileState, *hostList, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return fileState{}, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fileState{}, nil, err
	}
	st := stateOf(info)
	if info.Size() > maxListFile {
		return st, nil, fmt.Errorf("%s is larger than %d bytes", f.path, maxListFile)
	}
	list, _ := parseHosts(nil)
	var errs []error
	sc := bufio.NewScanner(file)
	for n := 1; sc.Scan(); n++ {
		line, _, _ := strings.Cut(sc.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := list.add(line); err != nil && len(errs) < 20 {
			errs = append(errs, fmt.Errorf("%s:%d: %w", f.path, n, err))
		}
	}
	return st, list, errors.Join(append(errs, sc.Err())...)
}
