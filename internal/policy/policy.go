// Package policy turns a verdict and the facts about an object into a decision. It is pure: no clock, no network, no
// state.
package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"lazaret/internal/filetype"
	"lazaret/internal/scan"
)

// Action is what happens to an object.
type Action uint8

// The actions.
const (
	Block   Action = iota // zero value stops the bytes
	Defer                 // try again later: HTTP 503, SMTP 451, POP3 -ERR [SYS/TEMP]
	Replace               // a notice in its place
	Pass
)

var actionNames = [...]string{"block", "defer", "replace", "pass"}

// String returns the action's name in lower case, "block" for anything unknown.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return actionNames[Block]
}

// MarshalText implements encoding.TextMarshaler.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler for "block", "defer" and "pass". Replace is no setting: a protocol
// that replaces does so wherever it blocks.
func (a *Action) UnmarshalText(b []byte) error {
	switch string(b) {
	case "block":
		*a = Block
	case "defer":
		*a = Defer
	case "pass":
		*a = Pass
	default:
		return fmt.Errorf("%q is not an action: write \"block\", \"defer\" or \"pass\"", b)
	}
	return nil
}

// Direction says which way an object goes, seen from the protected network.
type Direction string

// The directions.
const (
	Download Direction = "download"
	Upload   Direction = "upload"
)

// Facts is what is known of an object besides its content.
type Facts struct {
	Protocol  string // "http", "https", "pop3", "file"
	Direction Direction
	Client    netip.Addr
	User      string // who authenticated to the gateway; empty: nobody had to
	Host      string // the peer outside, as the client named it
	Method    string // the protocol's request
	URL       string // without userinfo
	Type      string // declared media type, without parameters
	Status    int    // the peer's answer, where the protocol has one
}

// Decision is what is done.
type Decision struct {
	Action     Action `json:"action"`
	Quarantine bool   `json:"quarantine,omitempty"`
	Rule       string `json:"rule"` // the settings key that decided
}

// Config says what follows from each outcome that is not clean.
type Config struct {
	Infected    Action `toml:"infected" doc:"an engine found a signature"`
	Encrypted   Action `toml:"encrypted" doc:"an archive or a member of it is encrypted, so that nobody could look"`
	TooLarge    Action `toml:"too_large" doc:"larger than the gateway or the engine looks at"`
	TooDeep     Action `toml:"too_deep" doc:"archives nested more deeply than is looked into"`
	TooMany     Action `toml:"too_many" doc:"an archive of more members than are looked into"`
	Bomb        Action `toml:"bomb" doc:"expands out of all proportion"`
	Undecodable Action `toml:"undecodable" doc:"broken, or in an encoding that nobody here can read"`
	Timeout     Action `toml:"timeout" doc:"the scanner did not answer in time"`
	ScannerDown Action `toml:"scanner_down" doc:"no scanner can be reached"`
	EngineError Action `toml:"engine_error" doc:"the scanner failed, or said something unknown"`
	SpoolFull   Action `toml:"spool_full" doc:"no room to hold the object while it is scanned"`
	Streamed    Action `toml:"streamed" doc:"an answer without an end, which flows on before it is whole: event streams, a camera's pictures, radio"`

	Quarantine []string `toml:"quarantine" doc:"outcomes whose objects are kept in the quarantine, by the names of the keys above"`

	Rules []Rule `toml:"rule" doc:"rules that come before the keys above; the first one that matches decides"`
}

// Default returns the settings that work without a file: nothing passes that no engine called clean; what may be over in a
// minute is deferred. What is streamed passes piece by piece, each of which is judged.
func Default() Config {
	return Config{
		Infected: Block, Encrypted: Block, TooLarge: Block, TooDeep: Block, TooMany: Block, Bomb: Block, Undecodable: Block,
		Timeout: Defer, ScannerDown: Defer, EngineError: Defer, SpoolFull: Defer,
		Streamed: Pass,
	}
}

// Validate returns what cannot be used in c.
func (c Config) Validate() error {
	var errs []error
	if c.Infected == Pass {
		errs = append(errs, errors.New("infected: \"pass\" would make the gateway pointless: write \"block\", or list hosts that are not to be opened in [web.tls] tunnel"))
	}
	for _, q := range c.Quarantine {
		if !slices.Contains(outcomes, q) {
			errs = append(errs, fmt.Errorf("quarantine: %q is not an outcome: write some of %s", q, strings.Join(outcomes, ", ")))
		}
	}
	return errors.Join(append(errs, c.checkRules()...)...)
}

var outcomes = []string{
	"infected", "encrypted", "too_large", "too_deep", "too_many", "bomb", "undecodable", "timeout", "scanner_down",
	"engine_error", "spool_full", "streamed",
}

// Content is what was found out about an object's content besides its verdict.
type Content struct {
	Size  int64
	Type  string          // the media type by content, without parameters
	Files []filetype.Info // the object itself, and what archives in it hold; empty where no rule asks for it (see NeedsFiles)
}

// Decide returns what is done with an object of that verdict whose content is not there, or concerns no rule.
func (c Config) Decide(f Facts, v scan.Verdict) Decision { return c.Judge(f, Content{}, v) }

// Judge returns what is done with an object: what the first rule that matches says, or else the key of the outcome. Anything
// that it does not know is blocked.
func (c Config) Judge(f Facts, content Content, v scan.Verdict) Decision {
	key, action := "clean", Pass
	if v.Outcome != scan.Clean {
		key, action = c.rule(v)
	}
	if key == unscanned {
		return Decision{Rule: "policy." + unscanned} // no rule knows what that is
	}
	for _, r := range c.Rules {
		if r.matches(f, content, key) {
			return Decision{Action: r.Action, Quarantine: r.Quarantine, Rule: r.id()}
		}
	}
	if key == "clean" {
		return Decision{Action: Pass, Rule: "clean"}
	}
	return Decision{Action: action, Quarantine: slices.Contains(c.Quarantine, key), Rule: "policy." + key}
}

// unscanned is the key of what nobody looked at, or nobody knows.
const unscanned = "unscanned"

func (c Config) rule(v scan.Verdict) (key string, a Action) {
	if v.Outcome == scan.Infected {
		return "infected", c.Infected
	}
	switch v.Reason {
	case scan.Encrypted:
		return "encrypted", c.Encrypted
	case scan.TooLarge:
		return "too_large", c.TooLarge
	case scan.TooDeep:
		return "too_deep", c.TooDeep
	case scan.TooMany:
		return "too_many", c.TooMany
	case scan.Bomb:
		return "bomb", c.Bomb
	case scan.Undecodable:
		return "undecodable", c.Undecodable
	case scan.Timeout, scan.Cancelled:
		return "timeout", c.Timeout
	case scan.Unavailable:
		return "scanner_down", c.ScannerDown
	case scan.EngineError, scan.Unknown:
		return "engine_error", c.EngineError
	case scan.SpoolFull:
		return "spool_full", c.SpoolFull
	case scan.Streamed:
		return "streamed", c.Streamed
	}
	return unscanned, Block
}
