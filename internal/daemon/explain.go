package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"

	"lazaret/internal/config"
	"lazaret/internal/egress"
	"lazaret/internal/intercept"
	"lazaret/internal/policy"
)

// Explanation is what would happen to a request, and why.
type Explanation struct {
	URL    *url.URL
	Host   string // as the proxy understands it
	Port   uint16
	Client netip.Addr

	Refused string                 // why the proxy would refuse the client or the target; empty: it would not
	TLS     *intercept.Explanation // nil for http, or where the proxy refuses
	Rules   []policy.Candidate     // what could decide about objects of this client and host, in their order
}

// Explain says what would happen to a request for u by client, under cfg and what the gateway of its state directory has
// learned. With dial the origin is connected to. Nothing is changed, and no gateway needs to run.
func Explain(ctx context.Context, cfg *config.Config, u *url.URL, client netip.Addr, dial bool) (*Explanation, error) {
	x := &Explanation{URL: u, Host: u.Hostname(), Client: client}
	switch u.Scheme {
	case "http":
		x.Port = 80
	case "https":
		x.Port = 443
	default:
		return nil, fmt.Errorf("%q is not a URL of http or https: write one such as https://example.org/", u.Redacted())
	}
	if x.Host == "" {
		return nil, fmt.Errorf("%q names no host", u.Redacted())
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q is no port", p)
		}
		x.Port = uint16(n)
	}
	x.Rules = cfg.Policy.Candidates(policy.Facts{Protocol: u.Scheme, Client: client, Host: x.Host})
	if x.Refused = refusal(cfg, x); x.Refused != "" {
		return x, nil
	}
	dialer, err := egress.New(cfg.Egress, egress.Options{AllowPrivate: cfg.Web.AllowPrivateDestinations})
	if err != nil {
		return nil, fmt.Errorf("[egress]: %w", err)
	}
	if u.Scheme == "http" {
		if dial {
			x.Refused = tryDial(ctx, dialer, u, x.Port)
		}
		return x, nil
	}
	i, done, err := readOnly(cfg, dialer)
	if err != nil {
		return nil, err
	}
	defer done()
	t := i.Explain(ctx, intercept.Target{Host: x.Host, Port: x.Port, Client: netip.AddrPortFrom(client, 0)}, dial)
	x.TLS = &t
	return x, nil
}

// refusal says why the proxy would turn the request away before it looks at the target.
func refusal(cfg *config.Config, x *Explanation) string {
	if x.Client.IsValid() && !slices.ContainsFunc(cfg.Web.AllowClients, func(p netip.Prefix) bool { return p.Contains(x.Client.Unmap().WithZone("")) }) {
		return fmt.Sprintf("the client %s is in none of [web] allow_clients", x.Client)
	}
	if x.URL.Scheme == "https" && !cfg.Web.ConnectPorts.Contain(x.Port) {
		return fmt.Sprintf("port %d is none of [web] connect_ports", x.Port)
	}
	return ""
}

// tryDial says why the origin of an http URL would not be connected to.
func tryDial(ctx context.Context, dialer *egress.Dialer, u *url.URL, port uint16) string {
	c, err := dialer.Dial(ctx, netJoin(u.Hostname(), port))
	if err != nil {
		return err.Error()
	}
	_ = c.Close() // nothing was said on it
	return ""
}

func netJoin(host string, port uint16) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(a, port).String()
	}
	return host + ":" + strconv.Itoa(int(port))
}

// readOnly makes an interceptor that serves nobody: with the CA's certificates and without its key, and with what was learned
// without changing it.
func readOnly(cfg *config.Config, dialer *egress.Dialer) (i *intercept.Interceptor, done func(), err error) {
	done = func() {}
	store := intercept.CAStore{Dir: caDir(cfg), Permit: intercept.Permit{Domains: cfg.Web.TLS.PermitDomains, Networks: cfg.Web.TLS.PermitNetworks}}
	ca, err := store.Read()
	if errors.Is(err, fs.ErrNotExist) {
		// None yet: one that lasts as long as the question will do.
		dir, e := os.MkdirTemp("", "lazaret-explain-")
		if e != nil {
			return nil, done, e
		}
		done = func() { _ = os.RemoveAll(dir) } // in the temporary folder
		store.Dir = dir + "/ca"
		ca, err = store.Init()
	}
	if err == nil {
		i, err = intercept.New(cfg.Web.TLS, ca, dialer, intercept.Options{StateDir: cfg.StateDir, Logger: slog.New(slog.DiscardHandler)})
	}
	if err != nil {
		done()
		return nil, done, fmt.Errorf("[web.tls]: %w", err)
	}
	return i, done, nil
}
