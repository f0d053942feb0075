package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"lazaret/internal/config"
	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/clamd/supervise"
	"lazaret/internal/scan/command"
	"lazaret/internal/scan/signatures"
	"lazaret/internal/spool"
	"lazaret/internal/units"
)

// build makes the engine of one [[scanner]].
func build(c config.Scanner, log *slog.Logger) (scan.Scanner, error) {
	switch s := c.Settings.(type) {
	case clamd.Config:
		return clamd.New(s, clamd.WithLogger(log))
	case command.Config:
		return command.New(s)
	case signatures.Config:
		return signatures.New(s, log)
	}
	return nil, fmt.Errorf("there is no scanner of type %q", c.Type)
}

// found returns the best engine that is there without being configured: a clamd that answers and proves itself; else a clamd
// of our own, with its files in clamdDir; else the built-in signatures, which is degraded.
func found(ctx context.Context, clamdDir string, pool *spool.Pool, log *slog.Logger) (*engines, error) {
	if e := runningClamd(ctx, pool, log); e != nil {
		return e, nil
	}
	if e := ownClamd(ctx, clamdDir, max(units.MiB, min(pool.Config().MaxObject, 2*units.GiB)), pool, log); e != nil {
		return e, nil
	}
	s, err := signatures.New(signatures.Default(), log)
	if err != nil {
		return nil, fmt.Errorf("the built-in signatures: %w", err)
	}
	if err := prove(ctx, pool, s); err != nil {
		closeScanner(s)
		return nil, err
	}
	return one(s, true), nil
}

// one returns a set of one required engine.
func one(s scan.Scanner, degraded bool) *engines {
	e := &engines{set: scan.NewSet(scan.Member{Scanner: s, Required: true}), degraded: degraded}
	e.words = describe(e.set)
	return e
}

func runningClamd(ctx context.Context, pool *spool.Pool, log *slog.Logger) *engines {
	for _, address := range supervise.Find(ctx, supervise.UsualAddresses()) {
		cfg := clamd.Default()
		cfg.Addresses = clamd.Addresses{address}
		s, err := clamd.New(cfg, clamd.WithLogger(log))
		if err == nil {
			if err = prove(ctx, pool, s); err == nil {
				return one(s, false)
			}
			closeScanner(s)
		}
		log.Warn("a clamd that runs is not used", "address", address, "error", err)
	}
	return nil
}

func ownClamd(ctx context.Context, dir string, maxObject units.Size, pool *spool.Pool, log *slog.Logger) *engines {
	if _, err := supervise.FindProgram(); err != nil {
		return nil // nothing is installed: the warning about the built-in signatures says what to do
	}
	sc := supervise.Default()
	sc.Dir, sc.MaxObject = dir, maxObject
	sup, err := supervise.New(sc, log)
	if err != nil {
		log.Warn("clamd is installed and cannot be used", "error", err)
		return nil
	}
	give := func(err error) *engines {
		log.Warn("clamd is installed and cannot be used", "error", err)
		closeSupervisor(sup, log)
		return nil
	}
	log.Info("clamd is installed and does not run: starting one; it loads its signatures, which may take a minute")
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
	e := one(s, false)
	e.stop = append(e.stop, func() { closeSupervisor(sup, log) })
	return e
}

func closeSupervisor(sup *supervise.Supervisor, log *slog.Logger) {
	if err := sup.Close(); err != nil {
		log.Warn("ending clamd", "error", err)
	}
}

// Check makes every part of the settings that needs nothing to run, as a start would, and returns what cannot be used.
func Check(cfg *config.Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	return checkParts(cfg)
}
