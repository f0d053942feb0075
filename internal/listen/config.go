package listen

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"lazaret/internal/units"
)

// Config bounds a Listener.
type Config struct {
	MaxConnections int            `toml:"max_connections" doc:"how many connections there may be at a time; more are closed at once"`
	MaxPerClient   int            `toml:"max_per_client" doc:"how many connections one client address may have at a time; IPv6 clients count by /64"`
	ProxyProtocol  []string       `toml:"proxy_protocol" doc:"networks of load balancers whose connections begin with a PROXY protocol header (version 1 or 2), such as \"10.0.0.5\" or \"10.0.0.0/24\"; a connection of theirs without one is closed"`
	HeaderTimeout  units.Duration `toml:"proxy_header_timeout" doc:"how long the PROXY protocol header may take"`
	KeepAlive      units.Duration `toml:"keep_alive" doc:"how often an idle connection is probed by TCP keep-alive"`
}

// Default returns the settings that work without a file.
func Default() Config {
	return Config{
		MaxConnections: 20_000,
		MaxPerClient:   2_000,
		HeaderTimeout:  units.Duration(5 * time.Second),
		KeepAlive:      units.Duration(30 * time.Second),
	}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	if c.MaxConnections <= 0 {
		errs = append(errs, errors.New("max_connections: must be greater than zero"))
	}
	if c.MaxPerClient <= 0 {
		errs = append(errs, errors.New("max_per_client: must be greater than zero"))
	}
	if _, err := parseNets(c.ProxyProtocol); err != nil {
		errs = append(errs, fmt.Errorf("proxy_protocol: %w", err))
	}
	if c.HeaderTimeout <= 0 {
		errs = append(errs, errors.New("proxy_header_timeout: must be greater than zero"))
	}
	if c.KeepAlive <= 0 {
		errs = append(errs, errors.New("keep_alive: must be greater than zero"))
	}
	return errors.Join(errs...)
}

// parseNets reads networks and single addresses.
func parseNets(entries []string) ([]netip.Prefix, error) {
	var (
		nets []netip.Prefix
		errs []error
	)
	for _, e := range entries {
		if a, err := netip.ParseAddr(e); err == nil {
			nets = append(nets, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
		} else if p, err := netip.ParsePrefix(e); err == nil {
			nets = append(nets, p.Masked())
		} else {
			errs = append(errs, fmt.Errorf("%q is not a network: write \"192.0.2.0/24\" or \"2001:db8::/32\"", e))
		}
	}
	return nets, errors.Join(errs...)
}

// systemdPrefix begins an address that stands for a socket that systemd opened: "systemd:NAME", with the name that
// FileDescriptorName= gives it.
const systemdPrefix = "systemd:"

// CheckAddress returns an error unless address can be listened on: "127.0.0.1:3128", "[::1]:3128", ":3128" (all addresses
// of this machine), "localhost:3128" or "systemd:NAME". Port 0 means any free one.
func CheckAddress(address string) error {
	if name, ok := strings.CutPrefix(address, systemdPrefix); ok {
		if name == "" {
			return fmt.Errorf("%q lacks the socket's name: write \"systemd:NAME\", as in FileDescriptorName=NAME", address)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on: write \"127.0.0.1:3128\", \"[::1]:3128\" or \":3128\"", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: port %q is not a number from 0 to 65535", address, port)
	}
	if host == "" || host == "localhost" {
		return nil
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return fmt.Errorf("%q: %q is not an address of this machine: write an IP address, or nothing for all of them", address, host)
	}
	return nil
}
