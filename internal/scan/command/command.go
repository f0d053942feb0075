package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/scan"
)

// Scanner runs a program for each object. It implements scan.Scanner, scan.Unpacker, scan.Versioner and scan.Closer.
type Scanner struct {
	name       string
	cfg        Config
	program    string
	names      pattern
	incomplete *regexp.Regexp // nil: every name is one of a virus
	slots      chan struct{}
	version    atomic.Pointer[scan.Version]
	closed     atomic.Bool
	stop       context.CancelFunc
	stopped    sync.WaitGroup
}

// Option changes what New makes.
type Option func(*Scanner)

// WithName has the Scanner be called name, rather than as its program.
func WithName(name string) Option { return func(s *Scanner) { s.name = name } }

// New returns a Scanner for cfg, or an error when cfg cannot be used or its program is not there. Close ends it.
func New(cfg Config, opts ...Option) (*Scanner, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	program, err := exec.LookPath(cfg.Command[0])
	if err != nil {
		return nil, fmt.Errorf("command: %w: install it, or write its whole path", err)
	}
	if program, err = filepath.Abs(program); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	names, err := parsePattern(cfg.NamePattern)
	if err != nil {
		return nil, fmt.Errorf("name_pattern: %w", err)
	}
	s := &Scanner{
		name: filepath.Base(program), cfg: cfg, program: program, names: names,
		slots: make(chan struct{}, cfg.processes()),
	}
	if cfg.IncompletePattern != "" {
		if s.incomplete, err = regexp.Compile(cfg.IncompletePattern); err != nil {
			return nil, fmt.Errorf("incomplete_pattern: %w", err)
		}
	}
	for _, o := range opts {
		o(s)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if len(cfg.VersionCommand) > 0 {
		s.stopped.Go(func() { s.followVersion(ctx) })
	}
	return s, nil
}

// Close ends the Scanner: scans under way go on to their end, later ones are Incomplete. It returns nil, and may be called
// again.
func (s *Scanner) Close() error {
	s.closed.Store(true)
	s.stop()
	s.stopped.Wait()
	return nil
}

// Name implements scan.Scanner.
func (s *Scanner) Name() string { return s.name }

// Unpacks implements scan.Unpacker, as configured.
func (s *Scanner) Unpacks() bool { return s.cfg.Unpacks }

// Scan implements scan.Scanner. Its errors carry their scan.Reason.
func (s *Scanner) Scan(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
	switch limit := int64(s.cfg.MaxSize); {
	case o == nil || o.Body == nil:
		return scan.Verdict{}, errors.New("an object without a body")
	case s.closed.Load():
		return scan.IncompleteVerdict(scan.Unavailable, "%s is closed", s.name), nil
	case limit > 0 && o.Body.Size() > limit:
		return scan.IncompleteVerdict(scan.TooLarge, "%s: %d bytes are more than max_size (%v)", s.name, o.Body.Size(), s.cfg.MaxSize), nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout.Std())
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return scan.Verdict{}, fmt.Errorf("waiting for one of %d processes: %w", cap(s.slots), ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		return scan.Verdict{}, err
	}
	r, err := s.run(ctx, o)
	if err != nil {
		return scan.Verdict{}, err
	}
	return s.verdict(r, o), nil
}

// run runs the program on o, in a directory of its own.
func (s *Scanner) run(ctx context.Context, o *scan.Object) (result, error) {
	dir, err := os.MkdirTemp(s.cfg.Dir, "lazaret-scan-")
	if err != nil {
		return result{}, fmt.Errorf("directory for a run: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file, err := o.Body.File()
	if err != nil {
		return result{}, fmt.Errorf("reading the object: %w", err)
	}
	defer func() { _ = file.Close() }()
	r := run{dir: dir, env: s.cfg.Environment, maxOutput: int(s.cfg.MaxOutput), program: s.program}
	object := filepath.Join(dir, "object")
	copied := false
	for _, a := range s.cfg.Command[1:] {
		if strings.Contains(a, FilePlace) {
			a = strings.ReplaceAll(a, FilePlace, filePath)
			r.file = file
		}
		if strings.Contains(a, CopyPlace) {
			a = strings.ReplaceAll(a, CopyPlace, object)
			copied = true
		}
		r.args = append(r.args, a)
	}
	switch {
	case copied:
		if err := copyTo(object, file); err != nil {
			return result{}, fmt.Errorf("copying the object: %w", err)
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return result{}, fmt.Errorf("reading the object: %w", err)
		}
	case r.file == nil:
		r.stdin = file
	}
	return r.do(ctx)
}

// copyTo writes what f gives to a new file for the owner alone.
func copyTo(path string, f *os.File) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, f)
	return errors.Join(err, out.Close())
}

// verdict returns what an exit code and an output say of o.
func (s *Scanner) verdict(r result, o *scan.Object) scan.Verdict {
	clean, infected := slices.Contains(s.cfg.CleanCodes, r.code), slices.Contains(s.cfg.InfectedCodes, r.code)
	if r.signal != 0 || (!clean && !infected) {
		return scan.IncompleteVerdict(scan.EngineError, "%s: %s; it said: %s", s.name, r.how(), excerpt(r.output))
	}
	name, named := s.names.find(r.output)
	switch {
	case named && s.incomplete != nil && s.incomplete.MatchString(name):
		reason := scan.TooLarge
		if strings.Contains(strings.ToLower(name), "encrypted") {
			reason = scan.Encrypted
		}
		return scan.IncompleteVerdict(reason, "%s: %s", s.name, name)
	case infected || named:
		// A code for clean beside a virus's name is no clear word: the name counts.
		if name == "" {
			name = "unknown"
		}
		return scan.InfectedVerdict(s.name, name, o.Path)
	}
	return scan.CleanVerdict()
}

// excerpt returns the beginning of an output for a log.
func excerpt(output []byte) string {
	const most = 200
	s := strings.Join(strings.Fields(string(output)), " ")
	if s == "" {
		return "nothing"
	}
	if len(s) > most {
		return printable(s[:most]) + "…"
	}
	return printable(s)
}

// Version implements scan.Versioner: what version_command printed last, as Engine and as Signatures; ok is false without
// one, and while it fails.
func (s *Scanner) Version() (scan.Version, bool) {
	if v := s.version.Load(); v != nil {
		return *v, true
	}
	return scan.Version{}, false
}

// followVersion runs version_command at intervals until ctx ends.
func (s *Scanner) followVersion(ctx context.Context) {
	for {
		s.version.Store(s.askVersion(ctx))
		select {
		case <-time.After(s.cfg.VersionRefresh.Std()):
		case <-ctx.Done():
			return
		}
	}
}

// askVersion runs version_command once, and returns nil when it fails or prints nothing.
func (s *Scanner) askVersion(ctx context.Context) *scan.Version {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout.Std())
	defer cancel()
	program, err := exec.LookPath(s.cfg.VersionCommand[0])
	if err != nil {
		return nil
	}
	dir, err := os.MkdirTemp(s.cfg.Dir, "lazaret-scan-")
	if err != nil {
		return nil
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r, err := run{program: program, args: s.cfg.VersionCommand[1:], dir: dir, env: s.cfg.Environment, maxOutput: int(s.cfg.MaxOutput)}.do(ctx)
	if err != nil || r.signal != 0 || r.code != 0 {
		return nil
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(r.output)), "\n")
	if line = printable(strings.TrimSpace(line)); line == "" {
		return nil
	}
	return &scan.Version{Engine: line, Signatures: line}
}

// startError returns why a program did not start.
func startError(program string, err error) error {
	reason := scan.EngineError
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, exec.ErrNotFound) {
		reason = scan.Unavailable
	}
	return &scan.Error{Reason: reason, Err: fmt.Errorf("%s does not start: %w", program, err)}
}
