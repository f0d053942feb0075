package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"lazaret/internal/config"
	"lazaret/internal/listen"
	"lazaret/internal/redirect"
)

const (
	// redirectEvery is how often it is asked whether traffic may be led here.
	redirectEvery = 2 * time.Second
	// redirectAgain is the same while the rules of the process before this one are waited for: they go when it ends, and
	// until ours follow, traffic passes.
	redirectAgain = 20 * time.Millisecond
	// redirectPatience is how many times in a row the answer must be no before on_failure = "open" lets traffic pass.
	redirectPatience = 3
)

// RedirectPlan returns the rules that cfg asks for. The error says which setting is missing.
func RedirectPlan(cfg *config.Config) (*redirect.Plan, error) {
	return redirect.New(cfg.Redirect, redirect.Listeners{Web: cfg.Web.Transparent, POP3: cfg.POP3.Listen, Mark: cfg.Egress.Mark})
}

// redirector keeps the firewall's rules in step with the gateway's health.
type redirector struct {
	d    *Daemon
	plan *redirect.Plan
	open bool // on_failure

	mu        sync.Mutex
	installed *redirect.Installed // nil: not in force
	no        int                 // answers in a row that were no
	inherits  bool                // the rules of the process before this one are still in force
	ended     bool
	cancel    context.CancelFunc
	done      chan struct{}
}

// startRedirecting puts the rules in force, where the settings want the service to do that. An error ends the start: whoever
// configures it wants to know that traffic is not scanned.
func (d *Daemon) startRedirecting(cfg *config.Config) error {
	if !cfg.Redirect.Automatic {
		return nil
	}
	plan, err := RedirectPlan(cfg)
	if err != nil {
		return err
	}
	for _, w := range plan.Warnings {
		d.log.Warn("redirected traffic", "note", w)
	}
	r := &redirector{d: d, plan: plan, open: cfg.Redirect.OnFailure == redirect.FailOpen, done: make(chan struct{})}
	// The rules of a process before this one may be its own until it ends: they lead to the same sockets.
	if err := r.install(); err != nil {
		if !r.open || !listen.Taken() {
			return err
		}
		r.inherits = true
		d.log.Info("traffic is led to the gateway by the rules of the process before this one, until it ends")
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	d.redirector = r
	go r.watch(ctx)
	return nil
}

func (r *redirector) install() error {
	i, err := redirect.Install(r.plan, r.open)
	if err != nil {
		return fmt.Errorf("[redirect] automatic: %w", err)
	}
	r.installed = i
	r.d.log.Info("traffic is led to the gateway", "interfaces", r.plan.Interfaces, "on_failure_open", r.open)
	return nil
}

func (r *redirector) watch(ctx context.Context) {
	defer close(r.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.pause()):
		}
		if r.open && !r.inherit() {
			r.follow(r.d.cannotJudge(ctx))
		}
	}
}

// pause is how long the next look at the rules is away.
func (r *redirector) pause() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inherits {
		return redirectAgain
	}
	return redirectEvery
}

// inherit puts our own rules in force once those of the process before this one have gone, and says whether that is still to
// come. As long as its rules are there, the kernel refuses.
func (r *redirector) inherit() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inherits && !r.ended && r.install() == nil {
		r.inherits = false
	}
	return r.inherits
}

// follow takes the rules away when the gateway cannot judge for a while, and puts them back when it can.
func (r *redirector) follow(problem string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ended:
	case problem == "" && r.installed == nil:
		r.no = 0
		if err := r.install(); err != nil {
			r.d.log.Error("traffic is still not led to the gateway", "error", err)
		}
	case problem == "":
		r.no = 0
	case r.installed == nil:
	default:
		if r.no++; r.no < redirectPatience {
			return
		}
		r.d.log.Error("traffic passes unscanned until the gateway can judge again ([redirect] on_failure = \"open\")", "problem", problem)
		if err := r.installed.Close(); err != nil {
			r.d.log.Error("the rules were not taken away", "error", err)
		}
		r.installed = nil
	}
}

// close ends the watch. Rules that are to stay closed on failure stay; others go before the listeners do.
func (r *redirector) close() error {
	if r == nil {
		return nil
	}
	r.cancel()
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	return r.installed.Close()
}

// cannotJudge says what keeps the gateway from judging, empty for nothing.
func (d *Daemon) cannotJudge(ctx context.Context) string {
	var errs []error
	for _, s := range d.ScannerStatus() {
		if s.Required && !s.Up {
			errs = append(errs, fmt.Errorf("scanner %s: %s", s.Name, s.Problem))
		}
	}
	for _, p := range d.unready(ctx) {
		errs = append(errs, errors.New(p))
	}
	if err := errors.Join(errs...); err != nil {
		return err.Error()
	}
	return ""
}
