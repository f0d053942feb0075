// Package admin serves what operators and machines ask the gateway about itself: health and readiness, metrics, the
// certificate of its CA in every form that clients want, the proxy auto-configuration, and a page that shows the state. It
// changes nothing.
package admin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// Config is the [admin] section.
type Config struct {
	Listen        string         `toml:"listen" doc:"address of the console, /metrics, /healthz, /readyz, /ca.pem and /proxy.pac, host:port; empty: none"`
	AllowHosts    []string       `toml:"allow_hosts" doc:"names that the console may be asked under, besides IP addresses, localhost, lazaret.internal and this machine's own name; others are refused, against DNS rebinding"`
	StatusClients []netip.Prefix `toml:"status_clients" doc:"networks whose machines see the state, the latest decisions and the metrics; others get the certificate, /proxy.pac and the bare health alone"`
	Direct        []string       `toml:"direct" doc:"what /proxy.pac sends around the proxy, besides local names and private addresses: a host (\"intranet.example\"), a domain and all below it (\".example\"), an address or a network (\"192.0.2.0/24\")"`
}

// Default returns the settings that work without a file.
func Default() Config {
	return Config{
		Listen:        "127.0.0.1:8128",
		StatusClients: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	if c.Listen != "" {
		_, port, err := net.SplitHostPort(c.Listen)
		if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n > 65535 {
			errs = append(errs, fmt.Errorf("listen: %q is not host:port: write something like \"127.0.0.1:8128\"", c.Listen))
		}
	}
	for _, h := range c.AllowHosts {
		if !hostName(canonical(h)) {
			errs = append(errs, fmt.Errorf("allow_hosts: %q is not a host name: write it without scheme and port", h))
		}
	}
	for _, p := range c.StatusClients {
		if !p.IsValid() {
			errs = append(errs, errors.New("status_clients: write networks such as \"192.0.2.0/24\""))
		}
	}
	for _, d := range c.Direct {
		if _, ok := parseDirect(d); !ok {
			errs = append(errs, fmt.Errorf("direct: %q is not a host, a domain, an address or a network", d))
		}
	}
	return errors.Join(errs...)
}
