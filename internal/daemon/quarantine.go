package daemon

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"lazaret/internal/config"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/quarantine"
	"lazaret/internal/scan"
)

// maintainEvery is how often the quarantine is put in order.
const maintainEvery = 10 * time.Minute

// QuarantineDir is where originals are kept by these settings.
func QuarantineDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "quarantine") }

// startQuarantine opens the quarantine, and has it put in order from time to time. It does nothing where none is wanted.
func (d *Daemon) startQuarantine(ctx context.Context, cfg *config.Config) error {
	if !cfg.Quarantine.Enabled {
		return nil
	}
	store, err := quarantine.Open(ctx, cfg.Quarantine, QuarantineDir(cfg), quarantine.Options{Create: true, Log: d.log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &keeper{store: store, cfg: cfg.Quarantine, query: cfg.Audit.Query, cancel: cancel, done: make(chan struct{})}
	d.keeper = k
	go func() {
		defer close(k.done)
		tick := time.NewTicker(maintainEvery)
		defer tick.Stop()
		for {
			if err := store.Maintain(ctx); err != nil && ctx.Err() == nil {
				d.log.Error("the quarantine was not put in order", "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return nil
}

// keeper is the quarantine as the gate knows it.
type keeper struct {
	store  *quarantine.Store
	cfg    quarantine.Config
	query  bool // whether the part of a URL after the question mark is kept
	cancel context.CancelFunc
	done   chan struct{}
}

// close ends the use of the quarantine, which nothing may be under way in. k may be nil.
func (k *keeper) close() error {
	if k == nil {
		return nil
	}
	k.cancel()
	<-k.done
	return k.store.Close()
}

// Wants implements gate.Keeper.
func (k *keeper) Wants(f policy.Facts, d policy.Decision) bool { return k.cfg.Wants(f, d) }

// MustKeep implements gate.Keeper.
func (k *keeper) MustKeep(f policy.Facts) bool { return k.cfg.MustKeep(f) }

// Keep implements gate.Keeper.
func (k *keeper) Keep(ctx context.Context, n notice.Notice, o *scan.Object) (string, error) {
	e := quarantine.Entry{
		ID: n.Reference, Time: n.Time, Protocol: n.Facts.Protocol, Direction: string(n.Facts.Direction), Server: n.Facts.Host,
		User: n.Facts.User, URL: n.Facts.URL, Outcome: n.Verdict.Outcome.String(), Reason: string(n.Verdict.Reason),
		Rule: n.Decision.Rule, Action: n.Decision.Action.String(), Name: o.Name, Type: o.Type, Size: n.Size, SHA256: n.SHA256,
	}
	if n.Facts.Client.IsValid() {
		e.Client = n.Facts.Client.Unmap().String()
	}
	if !k.query {
		e.URL, _, _ = strings.Cut(e.URL, "?")
	}
	if len(n.Verdict.Findings) > 0 {
		f := n.Verdict.Findings[0]
		e.Signature, e.Engine, e.Path = f.Signature, f.Engine, f.Path
	}
	if o.Type == "message/rfc822" {
		e.DescribeMail(o.Body.NewReader())
	}
	return k.store.Put(ctx, e, o.Body.NewReader())
}
