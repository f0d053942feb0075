package egress

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"lazaret/internal/units"
)

// Config is the settings of the way out.
type Config struct {
	Parent      string         `toml:"parent" doc:"a parent proxy through which everything goes out, \"http://user:password@host:port\" (or https:// when it speaks TLS); empty: origins are dialled directly"`
	DialTimeout units.Duration `toml:"dial_timeout" doc:"how long finding an origin's address and connecting to it may take, the parent proxy's answer included"`
	KeepAlive   units.Duration `toml:"keep_alive" doc:"how often an idle connection to an origin is probed by TCP keep-alive"`
	Mark        uint32         `toml:"mark" doc:"a number that the firewall knows the gateway's own packets by (SO_MARK), which takes CAP_NET_ADMIN; 0: none"`
	MaxDials    int            `toml:"max_dials" doc:"how many connections may be in the making at the same time to one host and port"`
}

// Default returns the settings that work without a file.
func Default() Config {
	return Config{
		DialTimeout: units.Duration(15 * time.Second),
		KeepAlive:   units.Duration(30 * time.Second),
		MaxDials:    64,
	}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	if _, err := parseParent(c.Parent); err != nil {
		errs = append(errs, fmt.Errorf("parent: %w", err))
	}
	if c.DialTimeout <= 0 {
		errs = append(errs, errors.New("dial_timeout: must be greater than zero"))
	}
	if c.KeepAlive <= 0 {
		errs = append(errs, errors.New("keep_alive: must be greater than zero"))
	}
	if c.MaxDials <= 0 {
		errs = append(errs, errors.New("max_dials: must be greater than zero"))
	}
	return errors.Join(errs...)
}

// parseParent returns the URL of a parent proxy with its port filled in, nil for the empty string.
func parseParent(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		// The error of url.Parse repeats its input, which may hold a password.
		return nil, errors.New("not a URL: write \"http://host:port\" or \"http://user:password@host:port\"")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("scheme %q is not known: write \"http://host:port\" or \"https://host:port\"", u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, errors.New("the host is missing: write \"http://host:port\"")
	}
	if (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("must end after the port: a parent proxy has no path")
	}
	if u.Port() == "" {
		u.Host = u.Host + ":" + map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("port %q is not a TCP port", u.Port())
	}
	u.Path = ""
	return u, nil
}
