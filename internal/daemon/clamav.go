package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/config"
	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/clamd/supervise"
	"lazaret/internal/spool"
)

// Times of looking for signatures that are to come.
const (
	arrivalEvery = 2 * time.Second
	arrivalLast  = 5 * time.Minute // the longest pause, after attempts that failed
)

// own is a clamd of ours.
type own struct {
	supervisor *supervise.Supervisor
	scanner    *clamd.Scanner
	dir        string
	database   string
	newest     atomic.Int64 // Unix time of the newest database file; 0: not looked at
}

// fromFiles completes a version by the age of the database's files, where clamd has not told one: it knows the date of
// ClamAV's own databases only.
func (o *own) fromFiles(v scan.Version) scan.Version {
	if at := o.newest.Load(); v.Updated.IsZero() && at > 0 {
		v.Updated = time.Unix(at, 0)
	}
	return v
}

func (o *own) look() {
	if at := supervise.Newest(o.database); !at.IsZero() {
		o.newest.Store(at.Unix())
	}
}

// besides returns a directory for a clamd of ours that does not disturb the one of e: after a reload the next one proves
// itself before that goes.
func (e *engines) besides(dir string) string {
	if e.own != nil && e.own.dir == dir {
		return filepath.Join(dir, "b")
	}
	return dir
}

// runsOwn says whether these settings have a clamd of ours run, or let one be run.
func runsOwn(cfg *config.Config) bool {
	return cfg.ClamAV.Managed == supervise.ManagedYes || cfg.ClamAV.Managed == supervise.ManagedAuto && len(cfg.Scanners) == 0
}

// startOwn starts a clamd of ours with its files in dir, and has it prove itself.
func startOwn(ctx context.Context, cfg *config.Config, dir string, pool *spool.Pool, log *slog.Logger) (*own, error) {
	sc := cfg.ClamAV.Config
	sc.Dir = dir
	sup, err := supervise.New(sc, log)
	if err != nil {
		return nil, err
	}
	give := func(err error) (*own, error) {
		closeSupervisor(sup, log)
		return nil, err
	}
	log.Info("starting clamd; it loads its signatures, which may take a minute", "database", sc.Database)
	if err := sup.Start(ctx); err != nil {
		return give(err)
	}
	s, err := sup.Scanner(clamd.WithLogger(log))
	if err != nil {
		return give(err)
	}
	if err := prove(ctx, pool, s); err != nil {
		closeScanner(s)
		return give(err)
	}
	o := &own{supervisor: sup, scanner: s, dir: sc.Dir, database: sc.Database}
	o.look()
	return o, nil
}

// without returns what stands in while a clamd of ours lacks its signatures, as lacking says, by policy; nil: nothing does,
// and others are to judge.
func without(cfg *config.Config, lacking error, log *slog.Logger) (*engines, error) {
	do := "put signatures into " + cfg.ClamAV.Database
	if cfg.ClamAV.Freshclam.Checks > 0 {
		do = "freshclam is to fetch them; if it cannot, its errors in this log say why, and " + do
	}
	switch cfg.ClamAV.WithoutSignatures {
	case supervise.Stop:
		return nil, fmt.Errorf("clamd: %w ([clamav] without_signatures is \"stop\")", lacking)
	case supervise.Wait:
		log.Error("clamd lacks its signatures: until they come nothing is judged, and nothing passes", "error", lacking, "do", do)
		return &engines{set: scan.NewSet(), degraded: true, lacking: lacking, words: "nothing yet: clamd waits for its signatures"}, nil
	}
	log.Warn("clamd lacks its signatures: until they come it does not judge", "error", lacking, "do", do)
	return nil, nil //nolint:nilnil // others judge
}

// freshness looks after the signatures of a clamd of ours, and after the age of all.
type freshness struct {
	d       *Daemon
	updater *supervise.Updater // nil: freshclam is not run
	end     context.CancelFunc
	running sync.WaitGroup
}

// startSignatures has freshclam run, where this gateway's clamd depends on it, and watches ages and arrivals.
func (d *Daemon) startSignatures(cfg *config.Config, e *engines) {
	ctx, end := context.WithCancel(context.Background())
	s := &freshness{d: d, end: end}
	if e.own != nil || e.lacking != nil {
		s.updater = s.newUpdater(ctx, cfg)
		d.updates.Store(s.updater)
	}
	d.freshness = s
	s.run(ctx, "the watch of the signatures' age", s.watchAge)
	s.run(ctx, "the watch for signatures to come", s.awaitArrival)
	if s.updater != nil {
		s.run(ctx, "the update of signatures", s.updater.Run)
	}
}

func (s *freshness) run(ctx context.Context, what string, f func(context.Context)) {
	s.running.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				s.d.fail(fmt.Errorf("%s panicked: %v", what, p))
			}
		}()
		f(ctx)
	})
}

func (s *freshness) close() {
	if s != nil {
		s.end()
		s.running.Wait()
	}
}

func (s *freshness) newUpdater(ctx context.Context, cfg *config.Config) *supervise.Updater {
	c := cfg.ClamAV
	if c.Freshclam.Checks == 0 {
		s.d.log.Info("freshclam is not run: [clamav.freshclam] checks is 0", "database", c.Database)
		return nil
	}
	if pid := supervise.OtherFreshclam(); pid != 0 && c.Database == supervise.UsualDatabase {
		s.d.log.Info("freshclam runs already, and keeps the signatures fresh", "pid", pid, "database", c.Database)
		return nil
	}
	u, err := supervise.NewUpdater(c.Freshclam, cfg.StateDir, c.Database, c.User, s.d.log, func() { s.changed(ctx) })
	if err != nil {
		s.d.log.Error("freshclam cannot be run: the signatures stay as they are", "error", err)
		return nil
	}
	return u
}

// changed has clamd load what freshclam has brought. A clamd that waits for its first signatures is started by awaitArrival.
func (s *freshness) changed(ctx context.Context) {
	if o := s.d.engines.Load().own; o != nil {
		o.look()
		if err := o.supervisor.Reload(ctx); err != nil {
			s.d.log.Warn("new signatures", "error", err)
		}
	}
}

// awaitArrival has clamd take over once it has the signatures that it lacked at the start, or once there is one: a clamd that
// starts after us when the machine does, or is installed later.
func (s *freshness) awaitArrival(ctx context.Context) {
	pause := arrivalEvery
	for {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = arrivalEvery
		if !s.arrived(ctx) {
			continue
		}
		if err := s.d.takeOver(ctx); err != nil {
			pause = arrivalLast
			s.d.log.Error("there is a clamd, or there are signatures for one, now; and it cannot be used", "error", err, "tried_again_in", pause)
		}
	}
}

// arrived says whether there is something now that was not there when the engines were selected.
func (s *freshness) arrived(ctx context.Context) bool {
	e := s.d.engines.Load()
	s.d.reloading.Lock()
	cfg := s.d.config
	s.d.reloading.Unlock()
	switch {
	case e.lacking != nil:
		return supervise.CheckDatabase(cfg.ClamAV.Database) == nil
	case !e.degraded || len(cfg.Scanners) > 0:
		return false
	case len(supervise.Find(ctx, supervise.UsualAddresses())) > 0:
		return true
	}
	_, err := supervise.FindProgram()
	return err == nil && runsOwn(cfg) && supervise.CheckDatabase(cfg.ClamAV.Database) == nil
}

// takeOver selects the engines anew, now that what was lacking is there, and puts them in force.
func (d *Daemon) takeOver(ctx context.Context) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	old := d.engines.Load()
	if old.lacking == nil && !old.degraded {
		return nil
	}
	e, err := selectEngines(ctx, d.config, clamdDir(d.config), d.pool, d.log)
	if err != nil {
		return err
	}
	if e.degraded || e.lacking != nil {
		e.close()
		return errors.New("it does not work: the warnings above say why")
	}
	d.engines.Store(e)
	d.gate.Use(e.set, d.config.Policy, e.degraded)
	old.retire()
	d.log.Info("a better scanner is there now: objects are judged by", "engines", e.words)
	return nil
}
