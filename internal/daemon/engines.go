package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/config"
	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/clamd/supervise"
	"lazaret/internal/spool"
)

// proveTime is how long an engine may take to find EICAR at the start.
const proveTime = 30 * time.Second

// engines is what judges, until a reload.
type engines struct {
	set      *scan.Set
	degraded bool   // the built-in signatures alone
	words    string // what judges, for people
	own      *own   // a clamd of ours; nil: there is none
	lacking  error  // why there is none yet, where it lacks its signatures
	stop     []func()
	closed   atomic.Bool
}

// close ends the engines, and whatever was started for them.
func (e *engines) close() {
	if e.closed.Swap(true) {
		return
	}
	_ = e.set.Close() // they are not used any more: what closing them brings up changes nothing
	e.retire()
}

// retire ends what was started for engines that the gate closes by itself once nothing is judged by them.
func (e *engines) retire() {
	for _, f := range e.stop {
		f()
	}
	e.stop = nil
}

// selectEngines returns the configured engines; without any, the best that is there. A clamd that has to be run for it has
// its files in clamdDir, which no other gateway may use.
func selectEngines(ctx context.Context, cfg *config.Config, clamdDir string, pool *spool.Pool, log *slog.Logger) (*engines, error) {
	if len(cfg.Scanners) > 0 {
		return configured(ctx, cfg, clamdDir, pool, log)
	}
	return found(ctx, cfg, clamdDir, pool, log)
}

// configured makes the engines of the settings. A required one that does not prove itself is an error; another is left out.
func configured(ctx context.Context, cfg *config.Config, clamdDir string, pool *spool.Pool, log *slog.Logger) (*engines, error) {
	e := &engines{degraded: true}
	var members []scan.Member
	fail := func(err error) (*engines, error) {
		e.set = scan.NewSet(members...)
		e.close()
		return nil, err
	}
	if cfg.ClamAV.Managed == supervise.ManagedYes {
		o, err := startOwn(ctx, cfg, clamdDir, pool, log)
		switch {
		case err == nil:
			members = append(members, scan.Member{Scanner: o.scanner, Required: true})
			e.degraded, e.own = false, o
			e.stop = append(e.stop, func() { closeSupervisor(o.supervisor, log) })
		case !errors.Is(err, supervise.ErrNoSignatures):
			return fail(fmt.Errorf("[clamav] managed is true, and clamd cannot be used: %w", err))
		default:
			if w, werr := without(cfg, err, log); w != nil || werr != nil {
				return w, werr
			}
			e.lacking = err
		}
	}
	for i, c := range cfg.Scanners {
		s, err := build(c, log)
		if err == nil {
			err = prove(ctx, pool, s)
			if err != nil {
				closeScanner(s)
			}
		}
		switch {
		case err == nil:
			members = append(members, scan.Member{Scanner: s, Required: c.Required})
			e.degraded = e.degraded && c.Type == "signatures"
		case c.Required:
			return fail(fmt.Errorf("scanner %d (%s) is required and cannot be used: %w\n"+
				"see that it runs and has signatures (\"lazaret doctor\" looks), or set required = false", i+1, c.Type, err))
		default:
			log.Warn("a scanner is not used", "scanner", i+1, "type", c.Type, "error", err)
		}
	}
	if len(members) == 0 {
		return fail(errors.New("no scanner can be used: nothing would ever be clean; see the warnings above"))
	}
	e.set = scan.NewSet(members...)
	e.words = describe(e.set)
	return e, nil
}

func prove(ctx context.Context, pool *spool.Pool, s scan.Scanner) error {
	ctx, cancel := context.WithTimeout(ctx, proveTime)
	defer cancel()
	return scan.Prove(ctx, pool, s)
}

func closeScanner(s scan.Scanner) {
	if c, ok := s.(scan.Closer); ok {
		_ = c.Close() // it is not used: why it does not close either is of no use
	}
}

func describe(set *scan.Set) string {
	words := ""
	for i, m := range set.Members() {
		if i > 0 {
			words += ", "
		}
		words += m.Scanner.Name()
		if v, ok := version(m.Scanner); ok {
			words += " (" + v.Engine
			if v.Signatures != "" {
				words += ", signatures " + v.Signatures
			}
			words += ")"
		}
	}
	return words
}

func version(s scan.Scanner) (scan.Version, bool) {
	if v, ok := s.(scan.Versioner); ok {
		return v.Version()
	}
	return scan.Version{}, false
}

// ScannerStatus says of each engine whether it would judge an object now.
func (d *Daemon) ScannerStatus() []audit.ScannerStatus {
	e := d.engines.Load()
	if e == nil {
		return nil
	}
	var out []audit.ScannerStatus
	for _, m := range e.set.Members() {
		st := audit.ScannerStatus{Name: m.Scanner.Name(), Required: m.Required, Up: true}
		st.Version, _ = version(m.Scanner)
		if c, ok := m.Scanner.(*clamd.Scanner); ok {
			clamdStatus(c, &st)
			if e.own != nil && e.own.scanner == c {
				st.Version = e.own.fromFiles(st.Version)
			}
		}
		out = append(out, st)
	}
	return out
}

// clamdStatus sums the addresses of a pool up: it is up while one of them answers.
func clamdStatus(c *clamd.Scanner, st *audit.ScannerStatus) {
	st.Up = false
	for i, a := range c.States() {
		if i > 0 {
			st.Address += ", "
		}
		st.Address += a.Address
		if a.Up {
			st.Up = true
		} else if a.Err != nil {
			st.Problem = a.Err.Error() + ": see that clamd runs there"
		}
	}
	if st.Up {
		st.Problem = ""
	}
}

// announce tells in the log what an administrator wants to know first.
func (d *Daemon) announce(cfg *config.Config, e *engines) {
	for _, a := range d.proxyAddrs() {
		d.log.Info("proxy for HTTP and HTTPS", "address", a)
	}
	for _, l := range slices.Concat(d.at.pop3, d.at.pop3TLS) {
		d.log.Info("POP3", "address", l.Addr().String())
	}
	for _, l := range d.at.webSeen {
		d.log.Info("proxy for redirected traffic", "address", l.Addr().String())
	}
	if d.at.admin != nil {
		d.log.Info("console", "url", "http://"+d.at.admin.Addr().String()+"/")
	}
	d.log.Info("clients must trust this certificate authority", "certificate", caDir(cfg)+"/ca.pem")
	d.log.Info("objects are judged by", "engines", e.words)
	if e.degraded {
		d.log.Warn("the built-in signatures alone stand guard: they know little more than the EICAR test file; " +
			"install ClamAV (Debian: apt-get install clamav-daemon), or name a scanner in [[scanner]]")
	}
	if w := DescriptorsWarning(cfg); w != "" {
		d.log.Warn("not everything in the settings is possible here", "warning", w)
	}
	for _, w := range cfg.Warnings {
		d.log.Warn("the settings are surely not meant like this", "warning", w.Error())
	}
}
