// Package report mails administrators: copies of the notices that users get, and that the gateway cannot do its work. It hands its
// mails to a mail server, or to a program. It never holds anything else up: what cannot be sent is logged.
package report

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"path/filepath"
	"strings"
)

// Config is mail.report.
type Config struct {
	Notices []string `toml:"notices" doc:"mail addresses that get a copy of each notice which a user gets in a mail's place"`
	Faults  []string `toml:"faults" doc:"mail addresses that are told when the gateway cannot do its work for a minute (what /readyz says), and when it can again"`
	Server  string   `toml:"server" doc:"the mail server that takes them, \"host:25\" or \"smtps://host:465\"; STARTTLS is used where it is offered, with a valid certificate, but not on this machine itself"`
	Program []string `toml:"program" doc:"a program that takes them on its standard input, instead of a server: its path and its arguments, to which the recipients are added, such as [\"/usr/sbin/sendmail\", \"-i\", \"--\"]. There is no shell. In the sandbox a program that needs more rights than the gateway has gets none"`
	From    string   `toml:"from" doc:"the address that they are from; empty: postmaster at this machine's name"`
	PerHour int      `toml:"per_hour" doc:"at most so many in an hour; the next one after that says how many were left out"`
}

// Default returns the settings that work without a file: nobody is mailed.
func Default() Config { return Config{Server: "127.0.0.1:25", PerHour: 60} }

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	for _, l := range []struct {
		key   string
		addrs []string
	}{{"notices", c.Notices}, {"faults", c.Faults}, {"from", nonEmpty(c.From)}} {
		for _, a := range l.addrs {
			if err := address(a); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", l.key, err))
			}
		}
	}
	if len(c.Program) == 0 {
		hostport := strings.TrimPrefix(strings.TrimPrefix(c.Server, "smtps://"), "smtp://")
		if host, port, err := net.SplitHostPort(hostport); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("server: %q is no server: write \"host:25\" or \"smtps://host:465\"", c.Server))
		}
	} else if !filepath.IsAbs(c.Program[0]) {
		errs = append(errs, fmt.Errorf("program: %q: write its whole path", c.Program[0]))
	}
	if c.PerHour < 1 || c.PerHour > 10_000 {
		errs = append(errs, errors.New("per_hour: must be between 1 and 10000"))
	}
	return errors.Join(errs...)
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// address says why a is no address that can stand in an envelope and in a header.
func address(a string) error {
	p, err := mail.ParseAddress(a)
	if err != nil && !strings.Contains(a, "@") && a != "" && a[0] != '-' && strings.Trim(strings.ToLower(a), "abcdefghijklmnopqrstuvwxyz0123456789._-") == "" {
		return nil // a mailbox of the server itself, such as "root"
	}
	if err != nil || p.Address != a || strings.ContainsAny(a, " \r\n<>\"") || a[0] == '-' {
		return fmt.Errorf("%q is no mail address: write \"admin@example.org\"", a)
	}
	return nil
}
