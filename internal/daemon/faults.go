package daemon

import (
	"context"
	"time"
)

const (
	// faultsEvery is how often is looked whether the gateway can do its work. Administrators hear of what three looks in a row find.
	faultsEvery = 20 * time.Second
	// lastMails is how long mails to administrators that wait may take when they are no longer waited for.
	lastMails = 5 * time.Second
)

// watchFaults mails administrators when the gateway cannot do its work, and when it can again, until ctx ends.
func (d *Daemon) watchFaults(ctx context.Context) {
	tick := time.NewTicker(faultsEvery)
	defer tick.Stop()
	var w faultWatch
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		problems := d.admin.Problems(ctx)
		if ctx.Err() != nil {
			return
		}
		if say := w.look(len(problems) > 0); say != "" {
			d.mail.Load().report.Fault(say, problems)
		}
	}
}

// faultWatch knows what administrators were told last.
type faultWatch struct {
	bad  int // looks in a row
	told bool
}

// look takes what one look has found, and returns what is to be told; empty: nothing.
func (w *faultWatch) look(bad bool) string {
	if !bad {
		told := w.told
		*w = faultWatch{}
		if told {
			return "the gateway does its work again"
		}
		return ""
	}
	w.bad++
	if w.told || w.bad < 3 {
		return ""
	}
	w.told = true
	return "the gateway cannot do its work"
}

// endReports has what waits to be mailed sent.
func (d *Daemon) endReports(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastMails)
	defer cancel()
	d.mail.Load().close(ctx)
}
