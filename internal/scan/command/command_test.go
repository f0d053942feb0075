package command_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/command"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"
)

// engineArg has the test binary be a scanner program: "binary engine STATE [FILE]". STATE is a directory: its file "fault"
// says how to fail, and each failure adds a byte to its file "met".
const engineArg = "engine"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == engineArg {
		os.Exit(engine(os.Args[2], os.Args[3:]))
	}
	os.Exit(m.Run())
}

// engine is the scanner program.
func engine(state string, files []string) int {
	fault := read(state, "fault")
	if fault != "" {
		f, err := os.OpenFile(filepath.Join(state, "met"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return 99
		}
		_, _ = f.Write([]byte{'.'})
		_ = f.Close()
	}
	in := io.Reader(os.Stdin)
	if len(files) == 1 {
		f, err := os.Open(files[0])
		if err != nil {
			fmt.Println(err)
			return 2
		}
		in = f
	}
	piece := 1 << 20
	if fault == scantest.Fragmented.String() {
		piece = 7
	}
	content, err := slowly(in, piece)
	if err != nil {
		fmt.Println(err)
		return 2
	}
	code, said := 0, ""
	if bytes.Contains(content, scan.EICAR()) {
		code, said = 1, "object: Eicar-Test FOUND\n"
	}
	return fail(state, fault, code, said)
}

func slowly(r io.Reader, piece int) ([]byte, error) {
	var out []byte
	b := make([]byte, piece)
	for {
		n, err := r.Read(b)
		out = append(out, b[:n]...)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// fail ends the program with the given verdict, or in the way that fault names.
func fail(state, fault string, code int, said string) int {
	die := func() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Hour)
	}
	switch fault {
	case scantest.Fragmented.String():
		for _, c := range said {
			fmt.Print(string(c))
			time.Sleep(time.Millisecond)
		}
		return code
	case scantest.LostBefore.String():
		die()
	case scantest.LostWithin.String():
		fmt.Print("object: Ei")
		die()
	case scantest.LostAfter.String():
		// The verdict is there, and so is a process that goes on and keeps the output open.
		linger(state)
	case scantest.Garbage.String():
		fmt.Print("\xff\xfe\x00garbage")
		return 77
	case scantest.UnknownReply.String():
		fmt.Println("object: PROBABLY FINE")
		return 3
	case scantest.OverLong.String():
		for {
			fmt.Println(strings.Repeat("object: OK ", 1000))
		}
	case scantest.Stall.String():
		linger(state)
		time.Sleep(time.Hour)
	case scantest.ErrorReply.String():
		fmt.Fprintln(os.Stderr, "ERROR: Can't allocate memory")
		return 2
	case scantest.SizeLimit.String():
		fmt.Println("object: Heuristics.Limits.Exceeded.MaxFileSize FOUND")
		return 1
	case scantest.Restart.String():
		if len(read(state, "met"))%2 == 1 {
			die()
		}
	}
	fmt.Print(said)
	return code
}

// linger starts a process that stays, and notes its number.
func linger(state string) {
	cmd := exec.Command("sleep", "600")
	cmd.Stdout = os.Stdout
	if err := cmd.Start(); err == nil {
		_ = os.WriteFile(filepath.Join(state, "lingering"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
	}
}

func read(dir, name string) string {
	b, _ := os.ReadFile(filepath.Join(dir, name))
	return string(b)
}

func write(t testing.TB, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fake returns the settings of a Scanner that runs engine with the object at the given place, and its state directory.
func fake(t testing.TB, place string) (cfg command.Config, state string) {
	t.Helper()
	state = t.TempDir()
	program := filepath.Join(state, "scanner")
	if err := os.Symlink(self(t), program); err != nil {
		t.Fatal(err)
	}
	cfg = command.Default()
	cfg.Command = []string{program, engineArg, state}
	if place != "" {
		cfg.Command = append(cfg.Command, place)
	}
	cfg.NamePattern = ".*: (.*) FOUND"
	cfg.Dir = t.TempDir()
	// The race detector has a program wait for a second before it ends.
	cfg.Environment = []string{"GORACE=atexit_sleep_ms=0"}
	return cfg, state
}

func self(t testing.TB) string {
	t.Helper()
	p, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newScanner(t testing.TB, cfg command.Config) *command.Scanner {
	t.Helper()
	s, err := command.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	for name, place := range map[string]string{"standard input": "", "open file": command.FilePlace, "copy": command.CopyPlace} {
		t.Run(name, func(t *testing.T) {
			scantest.Run(t, scantest.Harness{
				New: func(t *testing.T) scan.Scanner {
					cfg, _ := fake(t, place)
					return newScanner(t, cfg)
				},
				Large:  3 << 20,
				Faulty: func(t *testing.T, f scantest.Fault) *scantest.Faulty { return faulty(t, place, f) },
			})
		})
	}
}

func faulty(t *testing.T, place string, f scantest.Fault) *scantest.Faulty {
	cfg, state := fake(t, place)
	s := newScanner(t, cfg)
	heal := func() { write(t, state, "fault", "") }
	if f == scantest.Absent {
		if err := os.Remove(cfg.Command[0]); err != nil {
			t.Fatal(err)
		}
		heal = func() {
			if err := os.Symlink(self(t), cfg.Command[0]); err != nil {
				t.Error(err)
			}
		}
	} else {
		write(t, state, "fault", f.String())
	}
	return &scantest.Faulty{Scanner: s, Met: func() int { return len(read(state, "met")) }, Heal: heal}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// gone says whether a process has ended.
func gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// TestGroupIsKilled looks after the processes that a program has started: when it is ended, and when it has ended.
func TestGroupIsKilled(t *testing.T) {
	for _, f := range []scantest.Fault{scantest.Stall, scantest.LostAfter} {
		t.Run(f.String(), func(t *testing.T) {
			cfg, state := fake(t, "")
			write(t, state, "fault", f.String())
			s := newScanner(t, cfg)
			defer func() { _ = s.Close() }()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan scan.Verdict, 1)
			o := scantest.Object(t, scantest.Pool(t), scan.EICAR())
			go func() { done <- scan.Ask(ctx, s, o) }()
			pid := 0
			eventually(t, "it starts another process", func() bool {
				pid, _ = strconv.Atoi(read(state, "lingering"))
				return pid > 0
			})
			if f == scantest.Stall {
				if gone(pid) {
					t.Fatal("it ended by itself: nothing is tested")
				}
				cancel()
			}
			v := <-done
			if f == scantest.LostAfter && v.Outcome != scan.Infected {
				t.Errorf("%+v", v)
			}
			eventually(t, "the other process is gone", func() bool { return gone(pid) })
			eventually(t, "nothing is left on disk", func() bool {
				entries, err := os.ReadDir(cfg.Dir)
				return err == nil && len(entries) == 0
			})
		})
	}
}

// script returns a Scanner that runs a program of the shell's language, for what the program does is the point.
func script(t *testing.T, text string, change func(*command.Config)) *command.Scanner {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "scanner.sh")
	write(t, dir, "scanner.sh", "#!/bin/sh\n"+text)
	cfg := command.Default()
	cfg.Command = []string{"/bin/sh", path}
	cfg.Dir = dir
	if change != nil {
		change(&cfg)
	}
	return newScanner(t, cfg)
}

func TestVerdicts(t *testing.T) {
	named := func(p string) func(*command.Config) {
		return func(c *command.Config) { c.NamePattern = p }
	}
	for _, c := range []struct {
		name, script string
		change       func(*command.Config)
		outcome      scan.Outcome
		reason       scan.Reason
		signature    string
	}{
		{"clean", "exit 0", nil, scan.Clean, "", ""},
		{"infected, no pattern", "echo x: Y FOUND; exit 1", nil, scan.Infected, "", "unknown"},
		{"infected, no match", "echo nothing of use; exit 1", named(".*: (.*) FOUND"), scan.Infected, "", "unknown"},
		{"infected, named", "echo x: Y.Z-1 FOUND; exit 1", named(".*: (.*) FOUND"), scan.Infected, "", "Y.Z-1"},
		{"infected, named on stderr", "echo x: Y FOUND >&2; exit 1", named(".*: (.*) FOUND"), scan.Infected, "", "Y"},
		{"infected, second line", "echo hello; echo x: Y FOUND; exit 1", named(".*: (.*) FOUND"), scan.Infected, "", "Y"},
		{"infected, second group", "echo 'virus Y in x'; exit 1", named(`(virus) (\S+) in/2`), scan.Infected, "", "Y"},
		{"infected, whole match", "echo Y.Z; exit 1", named(`[A-Z.]+`), scan.Infected, "", "Y.Z"},
		{"infected, whole match picked", "echo 'a Y b'; exit 1", named(`a (Y) b/0`), scan.Infected, "", "a Y b"},
		{"infected, empty name", "echo 'x:  FOUND'; exit 1", named(".*: (.*) FOUND"), scan.Infected, "", "unknown"},
		{"infected, name to confuse a terminal", `printf 'x: \033[31mY FOUND\n'; exit 1`, named(".*: (.*) FOUND"), scan.Infected, "", "?[31mY"},
		{"clean code with a name", "echo x: Y FOUND; exit 0", named(".*: (.*) FOUND"), scan.Infected, "", "Y"},
		{"encrypted", "echo x: Heuristics.Encrypted.Zip FOUND; exit 1", named(".*: (.*) FOUND"), scan.Incomplete, scan.Encrypted, ""},
		{"too large", "echo x: Heuristics.Limits.Exceeded.MaxScanSize FOUND; exit 1", named(".*: (.*) FOUND"), scan.Incomplete, scan.TooLarge, ""},
		{"unlisted code", "exit 2", nil, scan.Incomplete, scan.EngineError, ""},
		{"unlisted code with a name", "echo x: Y FOUND; exit 2", named(".*: (.*) FOUND"), scan.Incomplete, scan.EngineError, ""},
		{"program not found by it", "no-such-program-at-all", nil, scan.Incomplete, scan.EngineError, ""},
		{"signal", "kill -SEGV $$", nil, scan.Incomplete, scan.EngineError, ""},
		{"other codes", "exit 7", func(c *command.Config) { c.CleanCodes, c.InfectedCodes = []int{7, 8}, []int{0} }, scan.Clean, "", ""},
		{"zero is infected", "exit 0", func(c *command.Config) { c.CleanCodes, c.InfectedCodes = []int{7, 8}, []int{0} }, scan.Infected, "", "unknown"},
		{"too large for it", "exit 0", func(c *command.Config) { c.MaxSize = 10 }, scan.Incomplete, scan.TooLarge, ""},
		{"slow", "sleep 600", func(c *command.Config) { c.Timeout = units.Duration(50 * time.Millisecond) }, scan.Incomplete, scan.Timeout, ""},
		{"endless line", "tr '\\0' x </dev/zero", nil, scan.Incomplete, scan.Unknown, ""},
		{"long output, then clean", "head -c 100000 /dev/zero; exit 0", nil, scan.Incomplete, scan.Unknown, ""},
		{"exactly as much output as it may", "head -c 65536 /dev/zero; exit 0", nil, scan.Clean, "", ""},
		{"input not read", "exec <&-; exit 0", nil, scan.Clean, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := script(t, c.script, c.change)
			defer func() { _ = s.Close() }()
			v := scan.Ask(t.Context(), s, scantest.Object(t, scantest.Pool(t), scantest.Text(200_000)))
			if v.Outcome != c.outcome || v.Reason != c.reason {
				t.Errorf("%+v, want %v %q", v, c.outcome, c.reason)
			}
			if c.signature != "" && (len(v.Findings) != 1 || v.Findings[0].Signature != c.signature) {
				t.Errorf("findings %+v, want %q", v.Findings, c.signature)
			}
		})
	}
}

// TestProgramSeesNothingOfOurs looks at what a program gets: environment, descriptors, directory, arguments.
func TestProgramSeesNothingOfOurs(t *testing.T) {
	t.Setenv("LAZARET_SECRET", "do-not-pass-on")
	report := filepath.Join(t.TempDir(), "report")
	ours, err := os.Create(filepath.Join(t.TempDir(), "open-in-our-process"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ours.Close() }()
	s := script(t, `{ env; echo "cwd=$(pwd)"; ls -l /proc/$$/fd; echo "arg=$1"; } >`+report, func(c *command.Config) {
		c.Command = append(c.Command, "a b; echo $HOME `id` {file}")
		c.Environment = []string{"EXTRA=yes"}
	})
	defer func() { _ = s.Close() }()
	if v := scan.Ask(t.Context(), s, scantest.Object(t, scantest.Pool(t), []byte("x"))); v.Outcome != scan.Clean {
		t.Fatalf("%+v", v)
	}
	got := read(filepath.Dir(report), "report")
	for _, want := range []string{"EXTRA=yes", "LANG=C", "cwd=/", "lazaret-scan-", "arg=a b; echo $HOME `id` /proc/self/fd/3"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in what it sees:\n%s", want, got)
		}
	}
	if strings.Contains(got, "do-not-pass-on") {
		t.Error("our environment is passed on")
	}
	if strings.Contains(got, "open-in-our-process") || strings.Contains(got, "socket:") {
		t.Errorf("our descriptors are passed on:\n%s", got)
	}
}

// TestObjectIsNotChangedThroughTheCopy has a program write to what it was given.
func TestObjectIsNotChangedThroughTheCopy(t *testing.T) {
	for _, place := range []string{command.FilePlace, command.CopyPlace} {
		s := script(t, `echo harmful >>"$1"; echo more >"$1"; exit 0`, func(c *command.Config) { c.Command = append(c.Command, place) })
		o := scantest.Object(t, scantest.Pool(t), scantest.Text(1000))
		if v := scan.Ask(t.Context(), s, o); v.Outcome != scan.Clean {
			t.Errorf("%s: %+v", place, v)
		}
		scantest.CheckUnchanged(t, o)
		_ = s.Close()
	}
}

func TestNoMoreProcessesThanConfigured(t *testing.T) {
	dir := t.TempDir()
	s := script(t, `mkdir "`+dir+`/$$"; ls "`+dir+`" | wc -l; sleep 0.02; rmdir "`+dir+`/$$"; exit 1`, func(c *command.Config) {
		c.MaxProcesses = 2
		c.NamePattern = "[0-9]+"
	})
	defer func() { _ = s.Close() }()
	p := scantest.Pool(t)
	var wg sync.WaitGroup
	for range 12 {
		o := scantest.Object(t, p, []byte("x"))
		wg.Go(func() {
			v := scan.Ask(t.Context(), s, o)
			if v.Outcome != scan.Infected || (v.Findings[0].Signature != "1" && v.Findings[0].Signature != "2") {
				t.Errorf("%+v", v)
			}
		})
	}
	wg.Wait()
}

// TestRealClamscan is P3Scan's configuration with ClamAV's own program, on a small database.
func TestRealClamscan(t *testing.T) {
	if _, err := exec.LookPath("clamscan"); err != nil {
		t.Skip("no clamscan on this machine (Debian: clamav)")
	}
	db := t.TempDir()
	sum := md5.Sum(scan.EICAR())
	write(t, db, "test.hdb", hex.EncodeToString(sum[:])+":68:Eicar-Test\n")
	write(t, db, "test.ndb", "Eicar-Body:0:*:"+hex.EncodeToString(scan.EICAR())+"\n")
	for _, place := range []string{command.FilePlace, command.CopyPlace, "-"} {
		t.Run(place, func(t *testing.T) {
			cfg := command.Default()
			cfg.Command = []string{"clamscan", "--no-summary", "-i", "--alert-exceeds-max=yes", "--max-filesize=1M", "-d", db, place}
			cfg.NamePattern = ".*: (.*) FOUND"
			cfg.Dir = t.TempDir()
			cfg.VersionCommand = []string{"clamscan", "--version", "-d", db}
			s := newScanner(t, cfg)
			defer func() { _ = s.Close() }()
			if s.Name() != "clamscan" {
				t.Errorf("the name is %q", s.Name())
			}
			p := scantest.Pool(t)
			if err := scan.Prove(t.Context(), p, s); err != nil {
				t.Error(err)
			}
			v := scan.Ask(t.Context(), s, scantest.Object(t, p, append(scantest.Text(500_000), scan.EICAR()...)))
			if v.Outcome != scan.Infected || v.Findings[0].Signature != "Eicar-Body.UNOFFICIAL" || v.Findings[0].Engine != "clamscan" {
				t.Errorf("at the end of a file on disk: %+v", v)
			}
			v = scan.Ask(t.Context(), s, scantest.Object(t, p, append(scantest.Text(2<<20), scan.EICAR()...)))
			if v.Outcome != scan.Incomplete || v.Reason != scan.TooLarge {
				t.Errorf("above --max-filesize: %+v", v)
			}
			eventually(t, "the version is known", func() bool {
				v, ok := s.Version()
				return ok && strings.HasPrefix(v.Engine, "ClamAV ") && v.Signatures != ""
			})
		})
	}
}

func TestVersionCommandThatFailsIsNoVersion(t *testing.T) {
	state := t.TempDir()
	cfg := command.Default()
	cfg.Command = []string{"true"}
	cfg.VersionCommand = []string{"cat", filepath.Join(state, "version")}
	cfg.VersionRefresh = units.Duration(time.Second)
	s := newScanner(t, cfg)
	defer func() { _ = s.Close() }()
	write(t, state, "version", "scanner 1\nmore\n")
	eventually(t, "the version is known", func() bool { v, ok := s.Version(); return ok && v.Engine == "scanner 1" })
	if err := os.Remove(filepath.Join(state, "version")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is unknown again", func() bool { _, ok := s.Version(); return !ok })
	none := newScanner(t, command.Config{
		Command: []string{"true"}, CleanCodes: []int{0}, InfectedCodes: []int{1}, Timeout: cfg.Timeout, MaxOutput: cfg.MaxOutput,
	})
	defer func() { _ = none.Close() }()
	if _, ok := none.Version(); ok {
		t.Error("without version_command there is a version")
	}
}
