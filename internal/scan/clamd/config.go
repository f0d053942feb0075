package clamd

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"lazaret/internal/units"
)

// Config is how one or several clamds are asked.
type Config struct {
	Addresses      Addresses      `toml:"address" doc:"where clamd listens: \"unix:/path/of/socket\" or \"tcp:host:port\"; several, as a list or with commas between, make a pool."`
	MaxConnections int            `toml:"max_connections" doc:"scans that one address is asked at a time; more wait. clamd's MaxThreads is the most that makes sense."`
	ConnectTimeout units.Duration `toml:"connect_timeout" doc:"time to connect."`
	CommandTimeout units.Duration `toml:"command_timeout" doc:"time for clamd to answer PING and VERSION. A clamd that does not is asked last."`
	Timeout        units.Duration `toml:"timeout" doc:"time for one object, waiting included. Keep it below clamd's MaxScanTime unless clamd has AlertExceedsMax on, because clamd then says OK when it gives up."`
	IdleTimeout    units.Duration `toml:"idle_timeout" doc:"how long an unused connection is kept. Keep it below clamd's CommandReadTimeout and IdleTimeout."`
	Refresh        units.Duration `toml:"refresh" doc:"how often clamd is asked for its version and signature number."`
	MaxScanSize    units.Size     `toml:"max_scan_size" doc:"clamd's limit, the lower one of MaxFileSize and MaxScanSize; a larger object is Incomplete. 0: found out by trying."`
	MaxHTMLSize    units.Size     `toml:"max_html_size" doc:"clamd's MaxHTMLNormalize; larger HTML is Incomplete. 0: found out by trying."`
}

// Default returns the settings that work for a clamd as Debian configures it, but for the address.
func Default() Config {
	return Config{
		MaxConnections: 8,
		ConnectTimeout: units.Duration(2 * time.Second),
		CommandTimeout: units.Duration(5 * time.Second),
		Timeout:        units.Duration(100 * time.Second),
		IdleTimeout:    units.Duration(4 * time.Second),
		Refresh:        units.Duration(3 * time.Second),
	}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	if len(c.Addresses) == 0 {
		errs = append(errs, errors.New("address: is missing: write where clamd listens, such as \"unix:/run/clamav/clamd.ctl\" or \"tcp:127.0.0.1:3310\""))
	}
	seen := map[endpoint]bool{}
	for _, a := range c.Addresses {
		e, err := parseEndpoint(a)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("address: %w", err))
		case seen[e]:
			errs = append(errs, fmt.Errorf("address: %q is named twice", a))
		}
		seen[e] = true
	}
	if c.MaxConnections < 1 || c.MaxConnections > 1000 {
		errs = append(errs, fmt.Errorf("max_connections: %d is not between 1 and 1000", c.MaxConnections))
	}
	for _, d := range []struct {
		key string
		is  units.Duration
	}{
		{"connect_timeout", c.ConnectTimeout},
		{"command_timeout", c.CommandTimeout},
		{"timeout", c.Timeout},
		{"idle_timeout", c.IdleTimeout},
		{"refresh", c.Refresh},
	} {
		if d.is <= 0 {
			errs = append(errs, fmt.Errorf("%s: must be greater than zero, such as \"2s\"", d.key))
		}
	}
	if c.MaxScanSize < 0 || c.MaxHTMLSize < 0 {
		errs = append(errs, errors.New("max_scan_size, max_html_size: must not be negative"))
	}
	return errors.Join(errs...)
}

// Addresses is a list of addresses that a settings file may also write as one string with commas between.
type Addresses []string

// UnmarshalText implements encoding.TextUnmarshaler for the form with commas.
func (a *Addresses) UnmarshalText(b []byte) error {
	*a = nil
	for part := range strings.SplitSeq(string(b), ",") {
		if part = strings.TrimSpace(part); part != "" {
			*a = append(*a, part)
		}
	}
	return nil
}

// endpoint is a parsed address.
type endpoint struct{ network, address string }

// String returns the address as a settings file has it.
func (e endpoint) String() string { return e.network + ":" + e.address }

// parseEndpoint reads "unix:/path", "unix:@abstract" or "tcp:host:port".
func parseEndpoint(s string) (endpoint, error) {
	network, address, _ := strings.Cut(s, ":")
	switch network {
	case "unix":
		if address = strings.TrimPrefix(address, "//"); strings.HasPrefix(address, "@") && len(address) > 1 {
			return endpoint{network, address}, nil
		}
		if !filepath.IsAbs(address) {
			return endpoint{}, fmt.Errorf("%q has no absolute path: write \"unix:/run/clamav/clamd.ctl\"", s)
		}
		if len(address) > 107 {
			return endpoint{}, fmt.Errorf("%q is longer than the 107 bytes that the path of a socket can have", s)
		}
		return endpoint{network, filepath.Clean(address)}, nil
	case "tcp":
		host, port, err := net.SplitHostPort(strings.TrimPrefix(address, "//"))
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" {
			return endpoint{}, fmt.Errorf("%q needs a host and a port: write \"tcp:127.0.0.1:3310\" or \"tcp:[::1]:3310\"", s)
		}
		return endpoint{network, net.JoinHostPort(host, port)}, nil
	}
	return endpoint{}, fmt.Errorf("%q begins neither with \"unix:\" nor with \"tcp:\": write \"unix:/run/clamav/clamd.ctl\" or \"tcp:127.0.0.1:3310\"", s)
}
