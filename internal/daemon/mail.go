package daemon

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"lazaret/internal/config"
	"lazaret/internal/listen"
	"lazaret/internal/mail/pop3"
)

// mailServers makes the relays for mail.
func (d *Daemon) mailServers(cfg *config.Config) (err error) {
	parts, err := newMailParts(cfg, d.opt.Version, d.log)
	if err != nil {
		return err
	}
	d.mail.Store(parts)
	d.pop3, err = pop3.New(cfg.POP3, pop3.Options{
		Gate: d.gate, Interceptor: following{d}, Dialer: followingMail{d}, Replacer: mailNotices{d}, Editor: mailEditor{d}, Log: d.log,
	})
	if err != nil {
		return fmt.Errorf("[pop3]: %w", err)
	}
	return nil
}

// mailLimits returns the limits of the mail listeners. They are a little above the relay's own, so that a client who meets
// those hears why it is turned away.
func mailLimits(cfg *config.Config) *listen.Limits {
	return listen.NewLimits(cfg.POP3.MaxSessions+cfg.POP3.MaxSessions/4+1, cfg.POP3.MaxPerClient+cfg.POP3.MaxPerClient/4+1)
}

// followingMail connects to mail servers by what is in force at the moment.
type followingMail struct{ d *Daemon }

// Dial implements pop3.Dialer.
func (f followingMail) Dial(ctx context.Context, hostport string) (net.Conn, error) {
	return f.d.mailDialer.Load().Dial(ctx, hostport)
}

// shutdown has every server end, all at the same time.
func (d *Daemon) shutdown(ctx context.Context) []error {
	servers := []func(context.Context) error{d.endWeb, d.endMail, d.admin.Shutdown}
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, end := range servers {
		wg.Go(func() { errs[i] = end(ctx) })
	}
	wg.Wait()
	return errs
}

// hurryMail is what is left of the drain when mail sessions that another process did not take over are hurried after all.
const hurryMail = 10 * time.Second

// endWeb has the web connections end. Where another process has taken over, those that are kept open are told so first.
func (d *Daemon) endWeb(ctx context.Context) error {
	if d.successor != 0 {
		d.web.Retire(ctx)
	}
	return d.web.Shutdown(ctx)
}

// endMail has the mail sessions end. Where another process has taken over, they have their time: a client that is between
// two commands would otherwise be turned away in the middle of its mailbox.
func (d *Daemon) endMail(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok && d.successor != 0 {
		patient, cancel := context.WithDeadline(ctx, end.Add(-hurryMail))
		defer cancel()
		if err := d.pop3.Drain(patient); err != nil {
			d.log.Info("mail sessions that were under way at the upgrade are ended now", "sessions", d.pop3.Sessions())
		}
	}
	return d.pop3.Shutdown(ctx)
}
