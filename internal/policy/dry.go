package policy

import (
	"fmt"
	"strings"
)

// Candidate is a rule that could decide about something.
type Candidate struct {
	Rule   string // as in Decision.Rule
	Number int    // its place among the rules, from 1; 0: the keys of the outcomes, which come last
	Action Action
	When   string // what must be true of the object besides; empty: nothing
}

// Candidates returns, in their order, the rules that could decide about objects of a client (f.Client, f.User) and a host
// (f.Host) by f.Protocol; what is not set in f counts as anything. The keys of the outcomes come last, one for each. Nothing
// is recorded.
func (c Config) Candidates(f Facts) []Candidate {
	var out []Candidate
	for i, r := range c.Rules {
		if !r.couldConcern(f) {
			continue
		}
		out = append(out, Candidate{Rule: r.id(), Number: i + 1, Action: r.Action, When: r.when(f)})
	}
	for _, key := range outcomes {
		out = append(out, Candidate{Rule: "policy." + key, Action: c.of(key), When: "outcome " + key})
	}
	return out
}

// of returns the action of an outcome's key.
func (c Config) of(key string) Action {
	return map[string]Action{
		"infected": c.Infected, "encrypted": c.Encrypted, "too_large": c.TooLarge, "too_deep": c.TooDeep, "too_many": c.TooMany,
		"bomb": c.Bomb, "undecodable": c.Undecodable, "timeout": c.Timeout, "scanner_down": c.ScannerDown,
		"engine_error": c.EngineError, "spool_full": c.SpoolFull, "streamed": c.Streamed,
	}[key]
}

// couldConcern is concerns with what is not known excluding nothing.
func (r Rule) couldConcern(f Facts) bool {
	return (f.Host == "" || hostMatches(r.Hosts, f.Host)) && (!f.Client.IsValid() || clientMatches(r.Clients, f.Client)) &&
		(f.User == "" || oneOf(r.Users, f.User)) && (f.Protocol == "" || oneOf(r.Protocols, f.Protocol)) &&
		(r.Direction == "" || f.Direction == "" || r.Direction == f.Direction)
}

// when says in words which conditions are left open by f.
func (r Rule) when(f Facts) string {
	var parts []string
	list := func(open bool, what string, values []string) {
		if open && len(values) > 0 {
			parts = append(parts, what+" "+strings.Join(values, " or "))
		}
	}
	list(f.Host == "", "host", r.Hosts)
	if !f.Client.IsValid() && len(r.Clients) > 0 {
		parts = append(parts, "client in "+strings.Trim(fmt.Sprint(r.Clients), "[]"))
	}
	list(f.User == "", "user", r.Users)
	list(f.Protocol == "", "protocol", r.Protocols)
	if f.Direction == "" && r.Direction != "" {
		parts = append(parts, string(r.Direction))
	}
	list(true, "declared type", r.DeclaredTypes)
	list(true, "type by content", r.ContentTypes)
	list(true, "file type", r.FileTypes)
	if r.LargerThan > 0 {
		parts = append(parts, fmt.Sprintf("larger than %v", r.LargerThan))
	}
	if r.SmallerThan > 0 {
		parts = append(parts, fmt.Sprintf("smaller than %v", r.SmallerThan))
	}
	list(true, "outcome", r.Outcome)
	return strings.Join(parts, ", ")
}
