package signatures

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/scan"
)

// name is what the engine is called in findings and logs.
const name = "signatures"

// version changes when the same signatures could judge differently.
const version = "Lazaret signatures 1"

const defaultPoll = 10 * time.Second

// Engine is the built-in scanner. It is a scan.Scanner, scan.Versioner, scan.Unpacker and scan.Closer, for use by many
// goroutines.
type Engine struct {
	cfg Config
	log *slog.Logger
	db  atomic.Pointer[database]

	mu      sync.Mutex // held while files are looked at
	tried   []source   // what was loaded, or could not be
	pending []source   // what was seen to be different at the last look
	told    string     // the error that was logged last
	loaded  bool       // what is in use came from files

	closed   atomic.Bool
	stop     chan struct{}
	stopped  chan struct{}
	stopOnce sync.Once
}

// New loads the signatures that cfg names and returns the engine, which from then on looks at the files for changes until it
// is closed. It returns an error that names the file and the line where a file cannot be read, or is broken as a whole;
// single lines that cannot be used are reported in log and by Loaded.
func New(cfg Config, log *slog.Logger) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, log: log, stop: make(chan struct{}), stopped: make(chan struct{})}
	if err := e.Reload(); err != nil {
		return nil, err
	}
	if cfg.Poll > 0 && len(cfg.Paths) > 0 {
		go e.watch(time.Duration(cfg.Poll))
	} else {
		close(e.stopped)
	}
	return e, nil
}

// Name implements scan.Scanner.
func (e *Engine) Name() string { return name }

// Unpacks implements scan.Unpacker: the engine opens no archive.
func (e *Engine) Unpacks() bool { return false }

// Version implements scan.Versioner.
func (e *Engine) Version() (scan.Version, bool) {
	r := e.db.Load().report
	return scan.Version{Engine: version, Signatures: r.Digest, Updated: r.Updated}, true
}

// Loaded returns what the signatures in use were loaded from, and what of it is not used. It must not be changed.
func (e *Engine) Loaded() Loaded { return *e.db.Load().report }

// Close ends the looking for changes. Scans that run go on; later ones fail.
func (e *Engine) Close() error {
	e.closed.Store(true)
	e.stopOnce.Do(func() { close(e.stop) })
	<-e.stopped
	return nil
}

// Reload reads the files now, whether they changed or not. When that fails, what was loaded before stays in use, and the
// error says what is wrong.
func (e *Engine) Reload() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reload()
}

// errAllGone says that there is no file any more: more likely a mount that is gone, or an update that went wrong, than what
// somebody wants.
var errAllGone = errors.New("all signature files are gone; put them back, or remove paths from the configuration")

// reload is Reload, with the lock held.
func (e *Engine) reload() error {
	var db *database
	var sources []source
	err := errChanging
	for try := 0; try < 3 && errors.Is(err, errChanging); try++ {
		db, sources, err = load(e.cfg)
	}
	e.pending = nil
	if err == nil && len(sources) == 0 && e.loaded {
		err = errAllGone
	}
	if err != nil {
		return fmt.Errorf("signatures: %w", err)
	}
	if len(sources) == 0 && len(e.cfg.Paths) > 0 {
		e.log.Warn("there is no signature file in the paths; only the EICAR test file is known", "paths", e.cfg.Paths)
	}
	e.loaded = len(sources) > 0
	e.db.Store(db)
	e.tried, e.told = sources, ""
	db.report.log(e.log)
	return nil
}

// watch looks at the files every so often until the engine is closed.
func (e *Engine) watch(every time.Duration) {
	defer close(e.stopped)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
			e.look()
		}
	}
}

// look loads the files when they changed. They are loaded when they have stayed the same between two looks, so that what is
// being written is not read by half.
func (e *Engine) look() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, err := e.cfg.list(nil)
	if err != nil {
		e.failed(fmt.Errorf("signatures: %w", err))
		return
	}
	switch {
	case slices.Equal(now, e.tried):
		e.pending, e.told = nil, ""
	case e.pending == nil || !slices.Equal(now, e.pending):
		e.pending = now
	default:
		if err := e.reload(); err != nil {
			if !errors.Is(err, errChanging) {
				e.tried = now
			}
			e.failed(err)
		}
	}
}

// failed reports an error once, however often it is met again.
func (e *Engine) failed(err error) {
	if text := err.Error(); text != e.told {
		e.told = text
		e.log.Error("signatures could not be loaded; those loaded before stay in use", "error", err)
	}
}

var errClosed = errors.New("the engine is closed")

// Scan implements scan.Scanner. It returns the first signature that is found.
func (e *Engine) Scan(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
	if e.closed.Load() {
		return scan.Verdict{}, errClosed
	}
	if err := ctx.Err(); err != nil {
		return scan.Verdict{}, err
	}
	return e.db.Load().judge(ctx, o)
}
