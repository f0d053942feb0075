package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"lazaret/internal/daemon"
	"lazaret/internal/notice"
	"lazaret/internal/scan"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func scanCommand() *cobra.Command {
	var f flags
	var asJSON, quiet bool
	c := &cobra.Command{
		Use:   "scan FILE...",
		Short: "Scan files and folders through the same gate",
		Long: "Scan files and folders, or - for standard input, as the gateway would judge them. What is neither a file nor a\n" +
			"folder inside a folder, such as a symbolic link, is passed over, and named. What is called .eml, .nws, .mht or .mhtml is read\n" +
			"as a mail, whatever it looks like. Exit codes: 0 everything that was looked at is clean; 1 something is infected;\n" +
			"2 something could not be judged, or read, or the results not be written.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s := &fileScan{out: c.OutOrStdout(), errOut: c.ErrOrStderr(), json: asJSON, quiet: quiet}
			return s.run(c.Context(), &f, args)
		},
	}
	f.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line for each file")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "say nothing of clean files")
	return c
}

// fileScan is one run of the command.
type fileScan struct {
	out, errOut io.Writer
	json, quiet bool
	judge       *daemon.Judge
	bar         *progressbar.ProgressBar

	mu                              sync.Mutex
	clean, infected, incomplete, no int
	over                            int   // what is no file was passed over
	unsaid                          error // why not all results were written; nil: they were
}

func (s *fileScan) run(ctx context.Context, f *flags, args []string) error {
	cfg, _, err := f.load()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(s.errOut, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if s.judge, err = daemon.NewJudge(ctx, cfg, log); err != nil {
		return err
	}
	defer s.judge.Close()
	if _, degraded := s.judge.Engines(); degraded {
		fmt.Fprintln(s.errOut, "lazaret: no ClamAV is in service: the built-in signatures judge alone, and know little more than the EICAR test file")
	}
	if file, ok := s.errOut.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		s.bar = progressbar.NewOptions64(total(args), progressbar.OptionSetWriter(file), progressbar.OptionShowBytes(true),
			progressbar.OptionSetDescription("scanning"), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100e6))
	}
	s.files(ctx, args)
	if s.bar != nil {
		_ = s.bar.Finish() // a terminal that went away
	}
	if !s.json {
		s.say(fmt.Sprintf("%d clean, %d infected, %d not judged, %d not read, %d passed over", s.clean, s.infected, s.incomplete, s.no, s.over))
	}
	if s.unsaid != nil {
		fmt.Fprintln(s.errOut, "lazaret: results are missing, as they could not be written:", s.unsaid)
	}
	switch {
	case s.infected > 0:
		return exitCode(exitInfected)
	case s.incomplete > 0 || s.no > 0 || s.unsaid != nil || ctx.Err() != nil:
		return exitCode(exitError)
	}
	return nil
}

// files judges everything that the arguments name, as many at a time as there are processors.
func (s *fileScan) files(ctx context.Context, args []string) {
	paths := make(chan string)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for p := range paths {
				s.file(ctx, p)
			}
		})
	}
	for _, arg := range args {
		if arg == "-" {
			n, err := s.judge.Read(ctx, os.Stdin, "standard input")
			s.tell("-", n, err)
			continue
		}
		s.walk(ctx, arg, paths)
	}
	close(paths)
	wg.Wait()
}

func (s *fileScan) walk(ctx context.Context, root string, paths chan<- string) {
	// A link that is named itself is meant; links inside folders are not followed. What is named and cannot be looked at is
	// told: nobody may take it for clean.
	st, err := os.Stat(root)
	switch {
	case err != nil:
		s.tell(root, notice.Notice{}, err)
		return
	case st.Mode().IsRegular():
		paths <- root
		return
	case !st.IsDir():
		s.tell(root, notice.Notice{}, errors.New("it is neither a file nor a folder"))
		return
	}
	err = filepath.WalkDir(folder(root), func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			s.tell(path, notice.Notice{}, err)
		case d.Type().IsRegular():
			paths <- path
		case !d.IsDir():
			s.passOver(path, d.Type())
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		s.tell(root, notice.Notice{}, err)
	}
}

// folder returns the path of a folder in the form that makes WalkDir follow a link to it.
func folder(path string) string { return filepath.Clean(path) + string(filepath.Separator) }

func (s *fileScan) file(ctx context.Context, path string) {
	n, err := s.judge.File(ctx, path)
	s.tell(path, n, err)
	if s.bar != nil {
		_ = s.bar.Add64(n.Size) // a terminal that went away
	}
}

// result is a line of --json.
type result struct {
	File     string         `json:"file"`
	Outcome  string         `json:"outcome"`
	Reason   scan.Reason    `json:"reason,omitempty"`
	Detail   string         `json:"detail,omitempty"`
	Findings []scan.Finding `json:"findings,omitempty"`
	Size     int64          `json:"size"`
	SHA256   string         `json:"sha256,omitempty"`
	Error    string         `json:"error,omitempty"`
}

// passOver tells of what is no file inside a folder: nobody may take it for clean.
func (s *fileScan) passOver(path string, mode fs.FileMode) {
	what := "a device"
	switch {
	case mode&fs.ModeSymlink != 0:
		what = "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		what = "a named pipe"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over++
	s.line(result{File: path, Outcome: "passed-over", Detail: what}, fmt.Sprintf("%s: passed over: %s", path, what))
}

func (s *fileScan) tell(path string, n notice.Notice, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := result{File: path, Outcome: n.Verdict.Outcome.String(), Reason: n.Verdict.Reason, Detail: n.Verdict.Detail, Findings: n.Verdict.Findings, Size: n.Size, SHA256: n.SHA256}
	var line string
	switch {
	case err != nil:
		s.no++
		r.Error = err.Error()
		line = fmt.Sprintf("%s: not read: %v", path, err)
	case n.Verdict.Outcome == scan.Infected:
		s.infected++
		found := n.Verdict.Findings[0]
		line = fmt.Sprintf("%s: INFECTED: %s (%s)", path, found.Signature, found.Engine)
		if found.Path != "" {
			line += " in " + found.Path
		}
	case n.Verdict.Outcome == scan.Clean:
		s.clean++
		if s.quiet {
			return
		}
		line = path + ": clean"
	default:
		s.incomplete++
		line = fmt.Sprintf("%s: not judged: %s: %s", path, n.Verdict.Reason, n.Verdict.Detail)
	}
	s.line(r, line)
}

// line writes one result, as JSON or as text. The lock is held.
func (s *fileScan) line(r result, text string) {
	if s.bar != nil {
		_ = s.bar.Clear() // a terminal that went away
	}
	if s.json {
		s.noteWrite(json.NewEncoder(s.out).Encode(r))
		return
	}
	s.say(notice.Clean(text, 2000))
}

func (s *fileScan) say(text string) {
	_, err := fmt.Fprintln(s.out, text)
	s.noteWrite(err)
}

// noteWrite remembers the first failure: the exit code tells of it.
func (s *fileScan) noteWrite(err error) {
	if s.unsaid == nil {
		s.unsaid = err
	}
}

// total sums the sizes of the files up, as far as they can be seen.
func total(args []string) int64 {
	var sum int64
	for _, a := range args {
		if st, err := os.Stat(a); err == nil && st.IsDir() {
			a = folder(a)
		}
		_ = filepath.WalkDir(a, func(_ string, d fs.DirEntry, err error) error { // what cannot be seen is told when it is scanned
			if err == nil && d.Type().IsRegular() {
				if st, err := d.Info(); err == nil {
					sum += st.Size()
				}
			}
			return nil
		})
	}
	return sum
}
