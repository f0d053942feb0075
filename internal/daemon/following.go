package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"

	"lazaret/internal/config"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// Dial, ParentURL and DialParent complete web.Dialer.

func (f following) Dial(ctx context.Context, hostport string) (net.Conn, error) {
	return f.d.dialer.Load().Dial(ctx, hostport)
}

func (f following) ParentURL() *url.URL { return f.d.dialer.Load().ParentURL() }

func (f following) DialParent(ctx context.Context, origin string) (net.Conn, error) {
	return f.d.dialer.Load().DialParent(ctx, origin)
}

func makeStateDir(dir string) error {
	if dir == "" {
		return errors.New("state_dir: is empty; write where the gateway may keep its files, such as \"/var/lib/lazaret\"")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state_dir: %w: choose another one with state_dir in the settings or --state-dir", err)
	}
	f, err := os.CreateTemp(dir, ".write-test-")
	if err != nil {
		return fmt.Errorf("state_dir: %s cannot be written: %w: choose another one with state_dir in the settings or --state-dir", dir, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Reload reads the settings file again and puts it in force. On any error everything stays as it was. What belongs to the
// sockets and to the state directory needs a restart; a change there is logged.
func (d *Daemon) Reload(ctx context.Context) error { return d.outsideSandbox(d.reload(ctx)) }

func (d *Daemon) reload(ctx context.Context) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	d.notifyReloading()
	defer d.notify(sd.SdNotifyReady)
	if err := d.output.Reopen(); err != nil {
		d.log.Error("the log's file was not opened anew", "error", err)
	}
	if d.opt.File == "" {
		return nil // started without a file: there is nothing that could have changed
	}
	if err := config.Again(d.opt.File); err != nil {
		return err
	}
	next, err := config.Load(d.opt.File)
	if err != nil {
		return err
	}
	if d.opt.StateDir != "" {
		next.StateDir = d.opt.StateDir
	}
	complete(next)
	old := d.engines.Load()
	e := old
	// Engines that were found, and not named, are as good as they were: only the built-in signatures may have a better now.
	if keep := len(next.Scanners) == 0 && len(d.config.Scanners) == 0 && !old.degraded; !keep {
		if e, err = selectEngines(ctx, next, old.besides(clamdDir(next)), d.pool, d.log); err != nil {
			return err
		}
	}
	undo := func(err error) error {
		if e != old {
			e.close()
		}
		return err
	}
	mail, err := newMailParts(next, d.opt.Version, d.log)
	if err != nil {
		return undo(err)
	}
	undoMail := func(err error) error {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		mail.close(ended)
		return undo(err)
	}
	if err := d.outside(next); err != nil {
		return undoMail(err)
	}
	if err := errors.Join(d.web.Use(next.Web.Config), d.pop3.Use(next.POP3)); err != nil {
		return undoMail(errors.Join(err, d.outside(d.config), d.web.Use(d.config.Web.Config), d.pop3.Use(d.config.POP3)))
	}
	d.engines.Store(e)
	before := d.mail.Swap(mail)
	d.serving.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastMails)
		defer cancel()
		before.close(ctx)
	})
	d.gate.Use(e.set, next.Policy, e.degraded)
	if e != old {
		old.retire()
	}
	for _, key := range needRestart(d.config, next) {
		d.log.Warn("this setting changed, and is in force after a restart", "key", key)
	}
	d.config = next
	d.announce(next, e)
	return nil
}
