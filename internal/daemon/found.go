package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"lazaret/internal/config"
	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/clamd/supervise"
	"lazaret/internal/scan/command"
	"lazaret/internal/scan/signatures"
	"lazaret/internal/spool"
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
func found(ctx context.Context, cfg *config.Config, clamdDir string, pool *spool.Pool, log *slog.Logger) (*engines, error) {
	managed := cfg.ClamAV.Managed
	if managed != supervise.ManagedYes {
		if e := runningClamd(ctx, pool, log); e != nil {
			return e, nil
		}
	}
	var lacking error
	if managed != supervise.ManagedNo {
		o, err := startOwn(ctx, cfg, clamdDir, pool, log)
		switch {
		case err == nil:
			e := one(o.scanner, false)
			e.own = o
			e.stop = append(e.stop, func() { closeSupervisor(o.supervisor, log) })
			return e, nil
		case errors.Is(err, supervise.ErrNoSignatures):
			if w, err := without(cfg, err, log); w != nil || err != nil {
				return w, err
			}
			lacking = err
		case managed == supervise.ManagedYes:
			return nil, fmt.Errorf("[clamav] managed is true, and clamd cannot be used: %w", err)
		case !errors.Is(err, supervise.ErrNoProgram): // where nothing is installed, the warning about the built-in signatures says what to do
			log.Warn("clamd is installed and cannot be used", "error", err)
		}
	}
	e, err := builtIn(ctx, pool, log)
	if err == nil {
		e.lacking = lacking
	}
	return e, err
}

// builtIn returns the built-in signatures alone.
func builtIn(ctx context.Context, pool *spool.Pool, log *slog.Logger) (*engines, error) {
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
