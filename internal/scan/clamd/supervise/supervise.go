package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"lazaret/internal/scan/clamd"
	"lazaret/internal/units"
)

// Times of the supervision.
const (
	firstPause = time.Second      // before the first restart; doubled for each further one
	lastPause  = time.Minute      // the longest pause
	goodRun    = time.Minute      // after it the pauses begin anew
	checkEvery = 10 * time.Second // how often PING is asked
	hungAfter  = 3 * time.Minute  // without an answer clamd is ended, and started anew
	endTime    = 5 * time.Second  // how long clamd has to end by itself
)

// Supervisor runs a clamd.
type Supervisor struct {
	cfg     Config
	program string
	account *account
	dirs    dirs
	log     *slog.Logger

	stop   context.CancelFunc
	done   chan struct{} // closed when run has ended
	first  chan error    // what came of the first start: one value
	closed sync.Once

	mu       sync.Mutex
	state    State
	loads    int
	lastSaid []string // the latest errors that clamd has written
}

// State is what is known of the process.
type State struct {
	PID      int       // 0: it does not run at present
	Ready    bool      // it has answered
	Since    time.Time // of its start
	Restarts int
	Err      error // why it ended last
}

// New prepares a clamd according to cfg: it finds the program, checks that there are signatures, and writes the
// configuration. Its errors say what is missing and what to do. Start begins, Close ends.
func New(cfg Config, log *slog.Logger) (*Supervisor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Dir == "" {
		return nil, errors.New("dir: is missing")
	}
	if cfg.Database == "" {
		cfg.Database = UsualDatabase
	}
	if cfg.Program == "" {
		program, err := FindProgram()
		if err != nil {
			return nil, err
		}
		cfg.Program = program
	}
	if _, err := exec.LookPath(cfg.Program); err != nil {
		return nil, fmt.Errorf("program: %w", err)
	}
	if err := CheckDatabase(cfg.Database); err != nil {
		return nil, err
	}
	a, err := lookup(cfg.User)
	if err != nil {
		return nil, err
	}
	d, err := prepare(cfg.Dir, a)
	if err != nil {
		return nil, err
	}
	s := &Supervisor{cfg: cfg, program: cfg.Program, account: a, dirs: d, log: log, done: make(chan struct{}), first: make(chan error, 1)}
	if err := s.writeConf(); err != nil {
		return nil, errors.Join(err, d.release())
	}
	return s, nil
}

func (s *Supervisor) writeConf() error {
	text := s.cfg.clamdConf(s.dirs.socket(), s.dirs.temp())
	if err := os.WriteFile(s.dirs.conf(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("clamd's configuration: %w", err)
	}
	if err := s.account.own(s.dirs.conf()); err != nil {
		return fmt.Errorf("clamd's configuration: %w", err)
	}
	return nil
}

// Start runs clamd, and returns once it answers, or with the reason why it does not: it ended, ctx did, or the time for
// the start is over. After an error it does not run, and Close is still to be called. Start is called once.
func (s *Supervisor) Start(ctx context.Context) error {
	running, stop := context.WithCancel(context.Background())
	s.mu.Lock()
	s.stop = stop
	s.mu.Unlock()
	go s.run(running)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StartTimeout.Std())
	defer cancel()
	var err error
	select {
	case err = <-s.first:
	case <-ctx.Done():
		err = fmt.Errorf("clamd was started, and does not answer: %w", ctx.Err())
	}
	if err != nil {
		stop()
		<-s.done
	}
	return err
}

// Close ends clamd and waits for that. It may be called again.
func (s *Supervisor) Close() error {
	var err error
	s.closed.Do(func() {
		s.mu.Lock()
		stop := s.stop
		s.mu.Unlock()
		if stop != nil {
			stop()
			<-s.done
		}
		err = s.dirs.release()
	})
	return err
}

// Address returns where clamd listens, for clamd.Config.
func (s *Supervisor) Address() string { return "unix:" + s.dirs.socket() }

// State returns what is known of the process now.
func (s *Supervisor) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Loaded returns a word that changes whenever clamd loads signatures; empty while it has none. It is for
// clamd.WithLoaded.
func (s *Supervisor) Loaded() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.state.Ready {
		return ""
	}
	return "load " + strconv.Itoa(s.loads)
}

// ClientConfig returns the settings of a client for this clamd: its address, and the limits that it is known to have.
func (s *Supervisor) ClientConfig() clamd.Config {
	cfg := clamd.Default()
	cfg.Addresses = clamd.Addresses{s.Address()}
	cfg.MaxConnections = s.cfg.threads()
	// clamd gives up first, and says so.
	cfg.Timeout = s.cfg.Timeout + units.Duration(10*time.Second)
	cfg.MaxScanSize, cfg.MaxHTMLSize = s.cfg.maxObject(), s.cfg.maxHTML()
	return cfg
}

// Scanner returns a client for this clamd.
func (s *Supervisor) Scanner(opts ...clamd.Option) (*clamd.Scanner, error) {
	return clamd.New(s.ClientConfig(), append([]clamd.Option{clamd.WithLoaded(s.Loaded), clamd.WithLogger(s.log)}, opts...)...)
}

// run starts clamd again and again until ctx ends.
func (s *Supervisor) run(ctx context.Context) {
	defer close(s.done)
	pause := firstPause
	for {
		began := time.Now()
		err := s.once(ctx)
		s.mu.Lock()
		answered := s.loads > 0
		s.state = State{Restarts: s.state.Restarts + 1, Err: err}
		s.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if !answered {
			// It never worked: who started it decides.
			s.report(err)
			return
		}
		if time.Since(began) > goodRun {
			pause = firstPause
		}
		s.log.Error("clamd ended, and is started again", "error", err, "in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// report tells Start what came of it; later reports are for nobody.
func (s *Supervisor) report(err error) {
	select {
	case s.first <- err:
	default:
	}
}

// once runs clamd until it ends, or ctx does, and returns why.
func (s *Supervisor) once(ctx context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting clamd: %w", err)
	}
	cmd := exec.Command(s.program, "--config-file="+s.dirs.conf(), "--foreground") //nolint:gosec,noctx // the operator names it; ended below
	cmd.Stdout, cmd.Stderr = w, w
	cmd.Dir = s.dirs.root
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "TMPDIR=" + s.dirs.temp()}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// The signal is sent when the thread that started the process ends. So a thread is kept for that, in the goroutine below. clamd's
		// own User option is not used, because a change of user would cancel it.
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a Ctrl-C at the terminal is for us: scans under way are finished first
		Credential: s.account.credential(),
	}
	started, ended := make(chan error, 1), make(chan struct{})
	var how error
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = w.Close()
		started <- err
		if err == nil {
			how = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		_ = r.Close()
		return fmt.Errorf("starting clamd: %w", err)
	}
	s.mu.Lock()
	s.state.PID, s.state.Since, s.lastSaid = cmd.Process.Pid, time.Now(), nil
	s.mu.Unlock()
	var reading sync.WaitGroup
	reading.Go(func() { s.read(r) })
	watching, cancel := context.WithCancel(ctx)
	reading.Go(func() { s.watch(watching, cmd.Process) })
	defer reading.Wait()
	defer cancel()
	select {
	case <-ended:
		return s.because(how)
	case <-ctx.Done():
	}
	end(cmd.Process, ended)
	return ctx.Err()
}

// end has clamd end by itself, and ends it when it takes too long.
func end(p *os.Process, ended <-chan struct{}) {
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-ended:
		return
	case <-time.After(endTime):
	}
	_ = p.Kill()
	<-ended
}

// watch asks for PING: often until clamd answers, then at intervals; a clamd that does not answer for long is killed.
func (s *Supervisor) watch(ctx context.Context, p *os.Process) {
	every, last := 20*time.Millisecond, time.Now().Add(s.cfg.StartTimeout.Std())
	for {
		asking, cancel := context.WithTimeout(ctx, checkEvery)
		got, err := clamd.Command(asking, s.Address(), "PING")
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && got == "PONG":
			every, last = checkEvery, time.Now()
			s.ready()
		case time.Since(last) > hungAfter:
			s.log.Error("clamd does not answer any more, and is ended", "for", time.Since(last).Round(time.Second))
			_ = p.Kill()
			return
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return
		}
	}
}

// ready notes that clamd answers.
func (s *Supervisor) ready() {
	s.mu.Lock()
	was := s.state.Ready
	s.state.Ready = true
	if !was {
		s.loads++
	}
	pid, took := s.state.PID, time.Since(s.state.Since)
	s.mu.Unlock()
	if !was {
		s.log.Info("clamd runs", "pid", pid, "started_in", took.Round(time.Millisecond), "address", s.Address(), "database", s.cfg.Database)
		s.report(nil)
	}
}

// Reload has clamd read its signatures anew. It returns once clamd has said that it will; Loaded changes when it has.
func (s *Supervisor) Reload(ctx context.Context) error {
	got, err := clamd.Command(ctx, s.Address(), "RELOAD")
	if err == nil && got != "RELOADING" {
		err = fmt.Errorf("the reply is %q", got)
	}
	if err != nil {
		return fmt.Errorf("clamd was to load new signatures: %w: it notices them by itself within a minute", err)
	}
	return nil
}
