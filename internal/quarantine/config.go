// Package quarantine keeps the originals of what was stopped: durable before anybody is told, encrypted with age so that
// neither people nor other scanners stumble over them, bounded in size, number and age, and listed in an SQLite index.
//
// Its folder has these files:
//
//	key, key.pub      the age key pair; the gateway needs key.pub alone
//	index.db          the index; it can be made anew from the entries
//	objects/ID.age    an entry: its description and the original
//	objects/ID.part   an entry that is being written
//	audit.log         who did what with the entries, one JSON object a line
//	lock              shared by whoever changes something, exclusive for repairs
//
// Several processes may use one folder: the gateway, the one that takes over from it, and the command line.
package quarantine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/units"
)

// Config is [quarantine].
type Config struct {
	Enabled       bool           `toml:"enabled" doc:"whether originals are kept of what is stopped"`
	Protocols     []string       `toml:"protocols" doc:"of these protocols everything is kept that is blocked. Elsewhere, and where something passes or is deferred, [policy] quarantine and the rules say what is kept"`
	OnFailure     string         `toml:"on_failure" doc:"what happens to what should be blocked, but cannot be kept: \"block\" blocks it all the same, \"defer\" has it tried again later, \"auto\" defers mail, whose only copy is at stake, and blocks the rest"`
	Identity      string         `toml:"identity" doc:"the file with the secret age key for \"lazaret quarantine\"; empty: <state_dir>/quarantine/key. The gateway itself needs key.pub alone, so that the secret key may be kept elsewhere"`
	MaxSize       units.Size     `toml:"max_size" doc:"disk space for all entries together; the oldest make room for new ones"`
	MaxEntries    int            `toml:"max_entries" doc:"number of entries; the oldest make room for new ones"`
	MaxAge        units.Duration `toml:"max_age" doc:"how long an entry is kept; 0: for ever"`
	MinFree       units.Size     `toml:"min_free" doc:"free disk space that is left to others: nothing is kept beyond it"`
	Concurrent    int            `toml:"concurrent" doc:"entries that are written at a time; more wait"`
	Timeout       units.Duration `toml:"timeout" doc:"how long the writing of one entry may take, waiting included"`
	ReleaseHeader string         `toml:"release_header" doc:"name of a header field that \"lazaret quarantine release\" puts before a mail, such as \"X-Lazaret-Released\"; empty: the mail stays as it was"`
}

// The values of on_failure.
const (
	failAuto  = "auto"
	failBlock = "block"
	failDefer = "defer"
)

// mailProtocols are those whose objects may exist only once.
var mailProtocols = []string{"pop3", "pop3s", "imap", "imaps", "smtp", "smtps"}

// Default returns the settings that work without a file.
func Default() Config {
	return Config{
		Enabled: true, Protocols: slices.Clone(mailProtocols), OnFailure: failAuto,
		MaxSize: 4 * units.GiB, MaxEntries: 50_000, MaxAge: units.Duration(90 * 24 * time.Hour), MinFree: 256 * units.MiB,
		Concurrent: 4, Timeout: units.Duration(time.Minute),
	}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf(key+": "+format, args...))
	}
	if !slices.Contains([]string{failAuto, failBlock, failDefer}, c.OnFailure) {
		bad("on_failure", "%q is none of \"auto\", \"block\" and \"defer\"", c.OnFailure)
	}
	if c.MaxSize <= 0 {
		bad("max_size", "must be greater than zero; write enabled = false to keep nothing")
	}
	if c.MaxEntries <= 0 {
		bad("max_entries", "must be greater than zero; write enabled = false to keep nothing")
	}
	if c.MaxAge < 0 {
		bad("max_age", "must not be negative")
	}
	if c.MinFree < 0 {
		bad("min_free", "must not be negative")
	}
	if c.Concurrent <= 0 {
		bad("concurrent", "must be greater than zero")
	}
	if c.Timeout <= 0 {
		bad("timeout", "must be greater than zero, such as \"1m\"")
	}
	if strings.ContainsFunc(c.ReleaseHeader, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
		bad("release_header", "%q is no name of a header field (RFC 5322, 2.2)", c.ReleaseHeader)
	}
	return errors.Join(errs...)
}

// Wants says whether the original of an object is to be kept about which d was decided.
func (c Config) Wants(f policy.Facts, d policy.Decision) bool {
	if !c.Enabled {
		return false
	}
	stopped := d.Action != policy.Pass && d.Action != policy.Defer
	return d.Quarantine || stopped && slices.Contains(c.Protocols, f.Protocol)
}

// MustKeep says whether an object that should be blocked, but could not be kept, is deferred instead.
func (c Config) MustKeep(f policy.Facts) bool {
	return c.OnFailure == failDefer || c.OnFailure != failBlock && slices.Contains(mailProtocols, f.Protocol)
}
