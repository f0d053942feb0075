package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// firstRetry is the pause after an update that failed; doubled for each further one, up to the usual time between checks.
const firstRetry = time.Minute

// Updater runs freshclam at its times, one run at a time.
type Updater struct {
	cfg      UpdateConfig
	program  string
	database string
	conf     string
	account  *account
	log      *slog.Logger
	changed  func()

	mu    sync.Mutex
	state UpdateState
}

// UpdateState is what is known of the updates.
type UpdateState struct {
	Last    time.Time // the end of the latest run; zero: there was none
	Success time.Time // the end of the latest run that worked
	Next    time.Time // when the next one is due
	Changed int       // how many runs brought something new
	Failed  int       // how many runs in a row have failed
	Err     error     // why the latest one failed, and what to do
	Until   time.Time // the mirror wants to be left alone until then; zero: it does not
}

// NewUpdater prepares freshclam according to cfg: it finds the program, makes the directory for signatures where there is
// none, and writes freshclam.conf into dir. Where we are root freshclam runs as the user of that name, clamav if empty.
// changed is called after each run that brought new signatures. Run begins.
func NewUpdater(cfg UpdateConfig, dir, database, user string, log *slog.Logger, changed func()) (*Updater, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Checks == 0 {
		return nil, errors.New("checks: is 0: freshclam is not to be run")
	}
	program := cfg.Program
	if program == "" {
		var err error
		if program, err = FindFreshclam(); err != nil {
			return nil, err
		}
	}
	if _, err := exec.LookPath(program); err != nil {
		return nil, fmt.Errorf("program: %w", err)
	}
	a, err := lookup(user)
	if err != nil {
		return nil, err
	}
	u := &Updater{cfg: cfg, program: program, database: database, account: a, log: log, changed: changed, conf: filepath.Join(database, ".lazaret-freshclam.conf")}
	if err := u.makeDatabase(); err != nil {
		return nil, err
	}
	if a.reaches(filepath.Join(dir, "x")) {
		u.conf = filepath.Join(dir, "freshclam.conf")
	}
	if err := u.writeConf(); err != nil {
		return nil, err
	}
	return u, nil
}

// makeDatabase makes the directory for signatures, and sees whether freshclam can write to it.
func (u *Updater) makeDatabase() error {
	if _, err := os.Stat(u.database); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(u.database, 0o755); err != nil { //nolint:gosec // signatures are no secret, and clamd may be another user
			return fmt.Errorf("database: %w", err)
		}
		if err := u.account.own(u.database); err != nil {
			return fmt.Errorf("database: %w", err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(u.database, &st); err != nil {
		return fmt.Errorf("database: %s: %w", u.database, err)
	}
	if u.account == nil {
		if err := unix.Access(u.database, unix.W_OK|unix.X_OK); err != nil {
			return fmt.Errorf("database: %s cannot be written by user %d: %w: name a directory of its own with [clamav] database, or set [clamav.freshclam] checks = 0 where the system's freshclam keeps it fresh", u.database, os.Geteuid(), err)
		}
		return nil
	}
	if st.Uid != u.account.uid || !u.account.reaches(filepath.Join(u.database, "x")) {
		return fmt.Errorf("database: %s does not belong to the user %s that freshclam runs as, or is out of its reach: chown it, or name another directory with [clamav] database", u.database, u.account.name)
	}
	return nil
}

func (u *Updater) writeConf() error {
	owner := "root" // it is looked up only by a freshclam that runs as root
	if u.account != nil {
		owner = u.account.name
	}
	// It may have the proxy's password in it, and what it was before may belong to others.
	if err := os.Remove(u.conf); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("freshclam's configuration: %w", err)
	}
	if err := os.WriteFile(u.conf, []byte(u.cfg.freshclamConf(u.database, owner)), 0o600); err != nil {
		return fmt.Errorf("freshclam's configuration: %w", err)
	}
	if err := u.account.own(u.conf); err != nil {
		return fmt.Errorf("freshclam's configuration: %w", err)
	}
	return nil
}

// State returns what is known of the updates now.
func (u *Updater) State() UpdateState {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// Run looks for new signatures at once, and then at the configured times, until ctx ends, which ends a run under way.
func (u *Updater) Run(ctx context.Context) {
	for {
		u.Update(ctx)
		timer := time.NewTimer(time.Until(u.State().Next))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Update runs freshclam once, and notes what came of it. It must not be called by two at once.
func (u *Updater) Update(ctx context.Context) {
	before := stamps(u.database)
	u.log.Debug("freshclam looks for new signatures", "database", u.database)
	said, err := u.once(ctx)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	changed := !maps.Equal(before, stamps(u.database))
	st := u.note(now, said, err, changed)
	switch {
	case err != nil:
		u.log.Error("the signatures could not be brought up to date", "error", st.Err, "failed_in_a_row", st.Failed, "next", st.Next.Format(time.RFC3339),
			"newest", Newest(u.database).Format(time.RFC3339))
	case changed:
		u.log.Info("new signatures have come", "database", u.database, "next", st.Next.Format(time.RFC3339))
	default:
		u.log.Info("the signatures are up to date", "database", u.database, "next", st.Next.Format(time.RFC3339))
	}
	if !st.Until.IsZero() {
		u.log.Warn("the mirror wants to be left alone for a while, and is", "until", st.Until.Format(time.RFC3339))
	}
	if changed && u.changed != nil {
		u.changed() // a run may bring one database and fail with another
	}
}

// note keeps what came of a run, and decides about the next one.
func (u *Updater) note(now time.Time, said output, err error, changed bool) UpdateState {
	usual := 24 * time.Hour / time.Duration(u.cfg.Checks)
	u.mu.Lock()
	defer u.mu.Unlock()
	st := &u.state
	st.Last, st.Err, st.Until = now, nil, said.until
	wait := usual
	if err != nil {
		st.Failed++
		st.Err = fmt.Errorf("%w: %s", err, said.advice())
		wait = min(usual, firstRetry<<min(st.Failed-1, 12))
	} else {
		st.Failed, st.Success = 0, now
	}
	if changed {
		st.Changed++
	}
	st.Next = now.Add(wait)
	if st.Until.After(st.Next) {
		st.Next = st.Until.Add(time.Minute)
	}
	return *st
}

// stamp is what a file of signatures looks like from outside.
type stamp struct {
	size int64
	time time.Time
}

func stamps(dir string) map[string]stamp {
	out := map[string]stamp{}
	for _, f := range signatureFiles(dir) {
		if st, err := os.Stat(f); err == nil {
			out[f] = stamp{st.Size(), st.ModTime()}
		}
	}
	return out
}

// once runs freshclam until it ends, its time is over, or ctx ends.
func (u *Updater) once(ctx context.Context) (output, error) {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.Timeout.Std())
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return output{}, fmt.Errorf("starting freshclam: %w", err)
	}
	cmd := exec.Command(u.program, "--config-file="+u.conf, "--stdout") //nolint:gosec,noctx // the operator names it; ended below
	cmd.Stdout, cmd.Stderr, cmd.Dir = w, w, "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Credential: u.account.credential()}
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		// The signal of Pdeathsig is sent when the thread that started the process ends: it is kept until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = w.Close()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		_ = r.Close()
		return output{}, fmt.Errorf("starting freshclam: %w", err)
	}
	read := make(chan output, 1)
	go func() { read <- u.read(r) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		// The children that test databases go with it.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended //nolint:errcheck // it was killed: how it ended says nothing
		err = fmt.Errorf("it took longer than %v ([clamav.freshclam] timeout): %w", u.cfg.Timeout, ctx.Err())
	}
	said := <-read
	if err == nil && said.failed() {
		err = errors.New("it ended well, but said otherwise")
	}
	if err != nil {
		return said, fmt.Errorf("freshclam: %w%s", err, said.quote())
	}
	return said, nil
}

// output is what freshclam has said that matters.
type output struct {
	errors []string
	all    string    // in lower case, the beginning of it
	until  time.Time // of a cool-down
}

// mostOutput bounds what is kept of freshclam's output, in bytes.
const mostOutput = 64 << 10

func (u *Updater) read(r *os.File) output {
	defer func() { _ = r.Close() }()
	var out output
	b := bufio.NewReaderSize(r, longestLine)
	for {
		line, more, err := b.ReadLine()
		for more && err == nil {
			_, more, err = b.ReadLine()
		}
		if text := strings.TrimSpace(string(line)); text != "" {
			u.log.Debug("freshclam: " + text)
			out.take(text)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_, _ = io.Copy(io.Discard, r) // it must not wait for a reader that is gone
			}
			return out
		}
	}
}

// take notes one line.
func (o *output) take(line string) {
	if len(o.all) < mostOutput {
		o.all += strings.ToLower(line) + "\n"
	}
	if strings.HasPrefix(line, "ERROR:") && len(o.errors) < mostSaid {
		o.errors = append(o.errors, line)
	}
	if _, when, ok := strings.Cut(line, "cool-down until after: "); ok {
		if t, err := time.ParseInLocation(time.DateTime, strings.TrimSpace(when), time.Local); err == nil {
			// A mirror that asks for years is asked again tomorrow: freshclam remembers by itself, and does not ask before.
			o.until = minTime(t, time.Now().Add(24*time.Hour))
		}
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// failed says whether freshclam said that something went wrong, which its exit status does not always tell.
func (o output) failed() bool {
	return !o.until.IsZero() || strings.Contains(o.all, "error: update failed")
}

func (o output) quote() string {
	if len(o.errors) == 0 {
		return ""
	}
	return "; it said: " + strings.Join(o.errors, "; ")
}

// advice says what to do about a run that failed.
func (o output) advice() string {
	for _, a := range []struct{ sign, do string }{
		{"cool-down", "the mirror limits how often it is asked: wait, lower [clamav.freshclam] checks, and let several machines share a private mirror"},
		{"error code 429", "the mirror limits how often it is asked: wait, lower [clamav.freshclam] checks, and let several machines share a private mirror"},
		{"error code 403", "the mirror refuses this address or this version of freshclam: update ClamAV, or see whether the address is blocked"},
		{"couldn't resolve", "the mirror's name cannot be resolved: see that DNS works for this machine, or set [clamav.freshclam] proxy or private_mirrors"},
		{"could not resolve", "the mirror's name cannot be resolved: see that DNS works for this machine, or set [clamav.freshclam] proxy or private_mirrors"},
		{"couldn't connect", "the mirror cannot be reached: see that this machine may connect to it, or set [clamav.freshclam] proxy or private_mirrors"},
		{"timeout was reached", "the mirror cannot be reached: see that this machine may connect to it, or set [clamav.freshclam] proxy or private_mirrors"},
		{"file not found", "the server has no such file: see [clamav.freshclam] private_mirrors and custom_urls"},
		{"can't create", "the directory cannot be written: see whom [clamav] database belongs to, and whether the disk is full"},
		{"no space left", "the disk is full: make room"},
		{"database test failed", "what the server gave is no database that loads: see custom_urls, and whether ClamAV is up to date"},
		{"failed to load new database", "what the server gave is no database that loads: see custom_urls, and whether ClamAV is up to date"},
	} {
		if strings.Contains(o.all, a.sign) {
			return a.do
		}
	}
	return "the old signatures stay in use; the log at level debug has all that freshclam says"
}
