package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"lazaret/internal/config"
	"lazaret/internal/listen"
)

// The console has limits of its own: it must answer when the proxy is full.
const (
	consoleConnections = 256
	consolePerClient   = 64
)

// listeners are the sockets of a gateway. They stay open over reloads.
type listeners struct {
	limits  *listen.Limits // shared by all but the console
	web     []*listen.Listener
	webSeen []*listen.Listener // transparent: traffic that was redirected here
	pop3    []*listen.Listener // redirected connections, and such that were made to the gateway
	pop3TLS []*listen.Listener
	admin   *listen.Listener
}

// open opens every address, before anything slow is begun: an address that is taken is told at once. What it opened before
// an error stays with d, for abandon.
func (d *Daemon) open(ctx context.Context, cfg *config.Config) error {
	// Like the settings' own, it is above the proxy's: a client who meets that hears why.
	most := min(cfg.Web.MaxConnections, shareDescriptors(cfg, openFiles()).connections)
	d.at.limits = listen.NewLimits(min(cfg.Listen.MaxConnections, most+most/4), cfg.Listen.MaxPerClient)
	limits := d.at.limits
	take := func(key string, to *[]*listen.Listener, addresses []string, transparent bool) error {
		for _, a := range addresses {
			ls, err := listen.Listen(ctx, a, cfg.Listen, listen.Options{Logger: d.log, Limits: limits, Transparent: transparent, OnShortage: d.giveUpIdle})
			*to = append(*to, ls...)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
		return nil
	}
	if err := take("[web] listen", &d.at.web, cfg.Web.Listen, false); err != nil {
		return err
	}
	if err := take("[web] transparent", &d.at.webSeen, cfg.Web.Transparent, true); err != nil {
		return err
	}
	limits = mailLimits(cfg)
	if err := take("[pop3] listen", &d.at.pop3, cfg.POP3.Listen, true); err != nil {
		return err
	}
	if err := take("[pop3] listen_tls", &d.at.pop3TLS, cfg.POP3.ListenTLS, false); err != nil {
		return err
	}
	if len(d.at.web)+len(d.at.webSeen)+len(d.at.pop3)+len(d.at.pop3TLS) == 0 {
		return errors.New("[web] listen: there is no address to listen on: write listen = [\"127.0.0.1:3128\"]")
	}
	if cfg.Admin.Listen == "" {
		return nil
	}
	console := listen.Default()
	console.MaxConnections, console.MaxPerClient = consoleConnections, consolePerClient
	ls, err := listen.Listen(ctx, cfg.Admin.Listen, console, listen.Options{Logger: d.log, OnShortage: d.giveUpIdle})
	if err != nil {
		return fmt.Errorf("[admin] listen: %w", err)
	}
	d.at.admin = ls[0]
	for _, l := range ls[1:] {
		_ = l.Close() // one console is enough, and nobody has connected yet
	}
	return nil
}

// all lists every socket.
func (s *listeners) all() []*listen.Listener {
	out := slices.Concat(s.web, s.webSeen, s.pop3, s.pop3TLS)
	if s.admin != nil {
		out = append(out, s.admin)
	}
	return out
}

// close closes every socket; connections that were accepted go on.
func (s *listeners) close() {
	for _, l := range s.all() {
		_ = l.Close() // it accepts nothing more either way
	}
}

// own lists the addresses that this gateway listens on: connecting to them would be a loop.
func (d *Daemon) own() []netip.AddrPort {
	var out []netip.AddrPort
	for _, l := range d.at.all() {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			out = append(out, a.AddrPort())
		}
	}
	return out
}

// proxyAddrs lists where the explicit proxy listens.
func (d *Daemon) proxyAddrs() []string {
	out := make([]string, len(d.at.web))
	for i, l := range d.at.web {
		out[i] = l.Addr().String()
	}
	return out
}

// connections counts what is open, by listener.
func (d *Daemon) connections() map[string]int64 {
	st := d.web.Stats()
	return map[string]int64{"web": int64(st.Connections - st.Carried), "web_carried": int64(st.Carried), "pop3": int64(d.pop3.Sessions())}
}
