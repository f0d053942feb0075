package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"lazaret/internal/audit"
	"lazaret/internal/config"
	"lazaret/internal/gate"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/spool"
	"lazaret/internal/unpack"
)

// Judge is a gate with its engines and nothing around it: for files instead of traffic.
type Judge struct {
	gate    *gate.Gate
	engines *engines
}

// discard takes records that nobody keeps: whoever judges files tells the outcome itself.
type discard struct{}

func (discard) Record(audit.Record) {}

// NewJudge makes the engines of the settings, as a start does. Messages about them go to log.
func NewJudge(ctx context.Context, cfg *config.Config, log *slog.Logger) (*Judge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	complete(cfg)
	if err := makeStateDir(cfg.StateDir); err != nil {
		return nil, err
	}
	pool, err := spool.NewPool(cfg.Spool)
	if err != nil {
		return nil, err
	}
	// A gateway may be running on the same state directory, with a clamd of its own.
	dir, err := os.MkdirTemp("", "lazaret-clamd-")
	if err != nil {
		return nil, err
	}
	e, err := selectEngines(ctx, cfg, dir, pool, log)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	e.stop = append(e.stop, func() { _ = os.RemoveAll(dir) }) // a leftover in the temporary directory harms nobody
	unpack.Memory().Resize(cfg.Unpack.TotalMemory)
	g := gate.New(cfg.Gate, gate.Options{Pool: pool, Limits: cfg.Unpack, Content: cfg.Content, Sink: discard{}, Log: log})
	g.Use(e.set, cfg.Policy, e.degraded)
	return &Judge{gate: g, engines: e}, nil
}

// Engines says in words what judges; degraded, that it is the built-in signatures alone.
func (j *Judge) Engines() (words string, degraded bool) { return j.engines.words, j.engines.degraded }

// Set returns the engines.
func (j *Judge) Set() *scan.Set { return j.engines.set }

// Close ends the engines.
func (j *Judge) Close() {
	j.gate.Close()
	j.engines.close()
}

// Read judges everything that r gives until its end, under the given name.
func (j *Judge) Read(ctx context.Context, r io.Reader, name string) (notice.Notice, error) {
	o, err := j.gate.Take(r, gate.Intake{Name: name})
	if err != nil {
		return notice.Notice{}, err
	}
	if o.Body != nil {
		defer o.Body.Close() // the room is given back: nothing is lost with it
	}
	_, n := j.gate.Judge(ctx, policy.Facts{Protocol: "file", Direction: policy.Download}, o)
	return n, nil
}

// File judges the file at path. It must be a regular file.
func (j *Judge) File(ctx context.Context, path string) (notice.Notice, error) {
	f, err := os.Open(path)
	if err != nil {
		return notice.Notice{}, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		return notice.Notice{}, errors.Join(err, f.Close())
	}
	n, err := j.Read(ctx, f, filepath.Base(path))
	return n, errors.Join(err, f.Close())
}
