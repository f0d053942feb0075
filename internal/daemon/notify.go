package daemon

import (
	"context"
	"fmt"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// statusEvery is how often the service manager is told how the gateway fares.
const statusEvery = 15 * time.Second

// notify tells the service manager something (sd_notify(3)); without one nothing happens.
func (d *Daemon) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("the service manager could not be told", "error", err)
	}
}

// notifyReady says that this gateway serves, and has the service manager told of its state, and that it lives, until ctx ends.
func (d *Daemon) notifyReady(ctx context.Context) {
	d.notify(sd.SdNotifyReady + "\nSTATUS=" + d.statusLine(ctx))
	every := statusEvery
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("the service manager's watchdog", "error", err)
	}
	if watchdog > 0 {
		every = min(every, watchdog/3)
	}
	d.serving.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
			state := "STATUS=" + d.statusLine(ctx)
			if watchdog > 0 && d.alive(ctx) {
				state += "\n" + sd.SdNotifyWatchdog
			}
			d.notify(state)
		}
	})
}

// alive goes through the locks that serving needs: a gateway in which one is never given back is not alive.
func (d *Daemon) alive(ctx context.Context) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.connections()
		d.spoolUsage()
		d.ScannerStatus()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-time.After(statusEvery):
	}
	return false
}

// statusLine is what "systemctl status" shows.
func (d *Daemon) statusLine(ctx context.Context) string {
	if problem := d.cannotJudge(ctx); problem != "" {
		return "cannot judge: " + oneLine(problem)
	}
	t := d.audit.Totals()
	return fmt.Sprintf("%s; %d objects judged, %d infected, %d not judged, %d connections",
		oneLine(d.Engines()), t.Objects, t.Infected, t.Incomplete, d.web.Stats().Connections)
}

func oneLine(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' {
			b[i] = ' '
		}
	}
	return string(b)
}

// notifyReloading says that a reload has begun; notify(READY) ends it.
func (d *Daemon) notifyReloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return // without the time the service manager does not take the message
	}
	d.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, now.Nano()/1000))
}

// notifyEnding says that this gateway ends; successor is the process that has taken over, 0 where there is none.
func (d *Daemon) notifyEnding(successor int) {
	if successor != 0 {
		d.notify(fmt.Sprintf("MAINPID=%d", successor))
		return
	}
	d.notify(sd.SdNotifyStopping)
}
