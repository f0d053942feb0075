package policy

import (
	"net/netip"
	"path"
	"slices"
	"strings"

	"lazaret/internal/filetype"
	"lazaret/internal/units"
)

// Rule is an exception from the keys of the outcomes. It matches where each of its conditions does; a condition that is not
// set matches everything, and one that lists several values matches where one of them does.
type Rule struct {
	Name          string         `toml:"name" doc:"what records and block pages call it: letters, digits, - and _"`
	Hosts         []string       `toml:"hosts" doc:"\"example.org\" is that host, \".example.org\" is the domain with all hosts below it"`
	Clients       []netip.Prefix `toml:"clients" doc:"networks of clients"`
	Users         []string       `toml:"users" doc:"who authenticated to the proxy"`
	Protocols     []string       `toml:"protocols" doc:"\"http\", \"https\", \"pop3\" and so on"`
	Direction     Direction      `toml:"direction" doc:"\"download\" or \"upload\""`
	DeclaredTypes []string       `toml:"declared_types" doc:"media types that the sender says: \"application/pdf\", \"image/*\". Senders can say anything"`
	ContentTypes  []string       `toml:"content_types" doc:"media types by content"`
	FileTypes     []string       `toml:"file_types" doc:"what a file is by content: \"executable\", \"script\", \"installer\", \"macro\", \"archive\", \"disk-image\", \"encrypted\", or one kind such as \"pe\". In rules that do not pass, what archives hold counts too"`
	Outcome       []string       `toml:"outcome" doc:"\"clean\", or outcomes by the names of the keys of [policy]; not set: any"`
	LargerThan    units.Size     `toml:"larger_than" doc:"objects of more bytes"`
	SmallerThan   units.Size     `toml:"smaller_than" doc:"objects of fewer bytes"`

	Action        Action `toml:"action" doc:"\"block\", \"defer\" or \"pass\""`
	Quarantine    bool   `toml:"quarantine" doc:"keep the original in the quarantine"`
	AllowInfected bool   `toml:"allow_infected" doc:"must be true in a rule that passes what an engine found infected"`
}

// id is what records call the rule.
func (r Rule) id() string { return "policy.rule." + r.Name }

// matches says whether the rule is about this object, whose outcome has that key.
func (r Rule) matches(f Facts, c Content, outcome string) bool {
	return r.concerns(f) && r.outcome(outcome) && r.declared(f.Type) && r.content(c.Type) && r.size(c.Size) && r.files(c.Files)
}

// concerns says whether the rule can apply to what comes and goes between these peers.
func (r Rule) concerns(f Facts) bool {
	return hostMatches(r.Hosts, f.Host) &&
		clientMatches(r.Clients, f.Client) && oneOf(r.Users, f.User) && oneOf(r.Protocols, f.Protocol) &&
		(r.Direction == "" || r.Direction == f.Direction)
}

func (r Rule) outcome(key string) bool {
	if key == "infected" && r.Action == Pass && !r.AllowInfected {
		return false
	}
	if len(r.Outcome) == 0 {
		return r.Action != Pass
	}
	return slices.Contains(r.Outcome, key)
}

func (r Rule) declared(t string) bool { return typeMatches(r.DeclaredTypes, t) }
func (r Rule) content(t string) bool  { return typeMatches(r.ContentTypes, t) }

func (r Rule) size(n int64) bool {
	return (r.LargerThan == 0 || n > int64(r.LargerThan)) && (r.SmallerThan == 0 || n < int64(r.SmallerThan))
}

// files says whether a file is of one of the types. To let something pass, the object itself must be: what else is in an
// archive that has such a file in it, nobody has allowed.
func (r Rule) files(files []filetype.Info) bool {
	if len(r.FileTypes) == 0 {
		return true
	}
	if r.Action == Pass && len(files) > 1 {
		files = files[:1]
	}
	for _, f := range files {
		if slices.ContainsFunc(r.FileTypes, f.Is) {
			return true
		}
	}
	return false
}

// hostMatches compares a host with names, and with domains that begin with a dot.
func hostMatches(patterns []string, host string) bool {
	if len(patterns) == 0 {
		return true
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	for _, p := range patterns {
		p = strings.TrimSuffix(strings.ToLower(p), ".")
		if host != "" && (host == strings.TrimPrefix(p, ".") || (strings.HasPrefix(p, ".") && strings.HasSuffix(host, p))) {
			return true
		}
	}
	return false
}

func clientMatches(networks []netip.Prefix, addr netip.Addr) bool {
	if len(networks) == 0 {
		return true
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool {
		return p.Contains(addr) || (p.Addr().Is4In6() && addr.Is4() && p.Contains(netip.AddrFrom16(addr.As16())))
	})
}

func oneOf(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }

// typeMatches compares a media type with patterns such as "image/*".
func typeMatches(patterns []string, t string) bool {
	if len(patterns) == 0 {
		return true
	}
	t = strings.ToLower(t)
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(strings.ToLower(p), t)
		return ok && err == nil
	})
}

// NeedsFiles says whether a rule that could match an object of these facts asks for what is in it: only then Content needs
// Files.
func (c Config) NeedsFiles(f Facts) bool {
	return slices.ContainsFunc(c.Rules, func(r Rule) bool { return len(r.FileTypes) > 0 && r.concerns(f) && r.declared(f.Type) })
}

// NeedsType says whether a rule that could match asks for the media type by content.
func (c Config) NeedsType(f Facts) bool {
	return slices.ContainsFunc(c.Rules, func(r Rule) bool { return len(r.ContentTypes) > 0 && r.concerns(f) && r.declared(f.Type) })
}
