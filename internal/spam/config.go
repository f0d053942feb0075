// Package spam asks SpamAssassin (spamd) or rspamd whether a clean mail is spam, and marks it in its header.
//
// It never loses or holds up a mail: whatever goes wrong, the mail is not marked, and that is counted and said.
package spam

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode"

	"lazaret/internal/units"
)

// What types, commands and marks there are.
const (
	typeSpamd  = "spamd"
	typeRspamd = "rspamd"

	commandSymbols = "symbols"
	commandCheck   = "check"
	commandHeaders = "headers"
	commandProcess = "process"

	markSpam = "spam"
	markAll  = "all"
	markNone = "none"
)

// Config is mail.spam.
type Config struct {
	Type        string         `toml:"type" doc:"who is asked: \"spamd\" (SpamAssassin) or \"rspamd\"; empty: nobody"`
	Address     string         `toml:"address" doc:"where it listens: \"tcp:host:783\" or \"unix:/run/spamd.sock\"; for rspamd \"http://host:11333\", too. Empty: port 783 or 11333 of this machine"`
	Command     string         `toml:"command" doc:"what spamd is asked for: \"symbols\" (the score and the names of the rules), \"check\" (the score), \"headers\" or \"process\" (its own X-Spam fields, as its settings write them)"`
	User        string         `toml:"user" doc:"whose preferences spamd uses; \"%USERNAME%\" for the login of the mailbox. Empty: those of the user that it runs as"`
	Password    string         `toml:"password" doc:"rspamd's, where it wants one"`
	Timeout     units.Duration `toml:"timeout" doc:"a mail waits no longer than this, and is delivered unmarked then"`
	MaxSize     units.Size     `toml:"max_size" doc:"larger mails are not checked: spam is small"`
	MaxChecks   int            `toml:"max_checks" doc:"how many mails are checked at the same time; others wait, within timeout"`
	SkipMarked  string         `toml:"skip_marked" doc:"a text in the header by which the provider has marked a mail, such as \"X-Spam-Flag: YES\" (P3Scan's ispspam): such a mail is not checked again. Who knows the text can write it into a mail, which is then not checked either"`
	Mark        string         `toml:"mark" doc:"which mails get X-Spam fields: \"spam\", \"all\" that were checked, or \"none\" (the log has the score)"`
	Senders     []string       `toml:"senders" doc:"whose mails are marked as spam without anybody being asked, by what their From, Sender and Return-Path say: \"ada@example.org\", \"example.org\", or \".example.org\" for a domain and those below it"`
	SendersFile string         `toml:"senders_file" doc:"a file with more of them, one a line, # for comments; read again when it changes"`
	Subject     string         `toml:"subject" doc:"what is put in front of the subject of spam, such as \"[SPAM]\"; empty: nothing"`
}

// Default returns the settings that work without a file: nobody is asked.
func Default() Config {
	return Config{
		Command: commandSymbols, Timeout: units.Duration(10 * time.Second), MaxSize: 512 * units.KiB, MaxChecks: 8, Mark: markSpam,
	}
}

// maxText bounds what settings put into headers and requests.
const maxText = 200

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	oneOf := func(key, value string, words ...string) {
		for _, w := range words {
			if value == w {
				return
			}
		}
		errs = append(errs, fmt.Errorf("%s: %q is not one of %q", key, value, words))
	}
	oneOf("type", c.Type, "", typeSpamd, typeRspamd)
	oneOf("command", c.Command, commandSymbols, commandCheck, commandHeaders, commandProcess)
	oneOf("mark", c.Mark, markSpam, markAll, markNone)
	if _, _, err := c.where(); err != nil {
		errs = append(errs, fmt.Errorf("address: %w", err))
	}
	for _, s := range []struct{ key, value string }{{"user", c.User}, {"password", c.Password}, {"skip_marked", c.SkipMarked}, {"subject", c.Subject}} {
		if len(s.value) > maxText || strings.ContainsFunc(s.value, unicode.IsControl) {
			errs = append(errs, fmt.Errorf("%s: write one line of at most %d bytes", s.key, maxText))
		}
	}
	for _, line := range c.Senders {
		if _, err := sender(line); err != nil {
			errs = append(errs, fmt.Errorf("senders: %w", err))
		}
	}
	if c.Timeout.Std() < 100*time.Millisecond || c.Timeout.Std() > 5*time.Minute {
		errs = append(errs, errors.New("timeout: must be between \"100ms\" and \"5m\""))
	}
	if c.MaxSize <= 0 {
		errs = append(errs, errors.New("max_size: must be more than 0: leave type empty for no check"))
	}
	if c.MaxChecks < 1 || c.MaxChecks > 1000 {
		errs = append(errs, errors.New("max_checks: must be between 1 and 1000"))
	}
	return errors.Join(errs...)
}

// where returns the network and the address to connect to.
func (c Config) where() (network, address string, err error) {
	s := c.Address
	if s == "" {
		s = "tcp:127.0.0.1:783"
		if c.Type == typeRspamd {
			s = "tcp:127.0.0.1:11333"
		}
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !strings.HasPrefix(path, "/") {
			return "", "", fmt.Errorf("%q: write the whole path of the socket, \"unix:/run/spamd.sock\"", s)
		}
		return "unix", path, nil
	}
	hostport, ok := strings.CutPrefix(s, "tcp:")
	if !ok && c.Type == typeRspamd {
		u, uerr := url.Parse(s)
		if uerr == nil && u.Scheme == "http" && u.User == nil && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" {
			hostport, ok = u.Host, true
			if u.Port() == "" {
				hostport = net.JoinHostPort(u.Hostname(), "80")
			}
		}
	}
	if host, port, err := net.SplitHostPort(hostport); !ok || err != nil || host == "" || port == "" {
		return "", "", fmt.Errorf("%q: write \"tcp:host:port\" or \"unix:/path\"", s)
	}
	return "tcp", hostport, nil
}
