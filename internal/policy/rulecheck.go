package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"lazaret/internal/filetype"
)

var ruleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// checkRules returns what cannot be used in the rules, each error beginning with the rule's place, "rule[2].hosts: ".
func (c Config) checkRules() []error {
	var errs []error
	seen := map[string]int{}
	for i, r := range c.Rules {
		bad := func(key, format string, args ...any) {
			errs = append(errs, fmt.Errorf("rule[%d].%s: %w", i+1, key, fmt.Errorf(format, args...)))
		}
		if !ruleName.MatchString(r.Name) {
			bad("name", "%q is no name for a rule: write letters, digits, - and _, such as \"no-executables\"", r.Name)
		} else if first, ok := seen[r.Name]; ok {
			bad("name", "%q is the name of rule %d, too: records could not tell them apart", r.Name, first)
		} else {
			seen[r.Name] = i + 1
		}
		r.checkConditions(bad)
		r.checkAction(bad)
	}
	return errs
}

func (r Rule) checkConditions(bad func(key, format string, args ...any)) {
	for _, h := range r.Hosts {
		if h == "" || h == "." || strings.ContainsAny(h, "*/: ") && !isAddr(h) {
			bad("hosts", "%q is no host: write \"example.org\" for one host, or \".example.org\" for a domain and all below it", h)
		}
	}
	for n, p := range r.Clients {
		if !p.IsValid() {
			bad("clients", "entry %d is not a network; write one such as \"192.168.0.0/16\"", n+1)
		}
	}
	if d := r.Direction; d != "" && d != Download && d != Upload {
		bad("direction", "%q is no direction: write \"download\" or \"upload\", or leave it out for both", d)
	}
	for _, list := range []struct {
		key   string
		types []string
	}{{"declared_types", r.DeclaredTypes}, {"content_types", r.ContentTypes}} {
		for _, t := range list.types {
			if _, err := path.Match(t, ""); err != nil || strings.Count(t, "/") != 1 || strings.ContainsAny(t, "; ") {
				bad(list.key, "%q is no media type: write one such as \"application/pdf\" or \"image/*\", without parameters", t)
			}
		}
	}
	names := filetype.Names()
	for _, t := range r.FileTypes {
		if _, ok := slices.BinarySearch(names, t); !ok {
			bad("file_types", "%q is no file type: write some of %s", t, strings.Join(names, ", "))
		}
	}
	for _, o := range r.Outcome {
		if o != "clean" && !slices.Contains(outcomes, o) {
			bad("outcome", "%q is not an outcome: write \"clean\", or some of %s", o, strings.Join(outcomes, ", "))
		}
	}
	if r.LargerThan < 0 || r.SmallerThan < 0 {
		bad("larger_than", "sizes must not be negative")
	}
	if r.SmallerThan > 0 && r.LargerThan >= r.SmallerThan-1 {
		bad("smaller_than", "nothing is larger than %v and smaller than %v", r.LargerThan, r.SmallerThan)
	}
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil
}

// checkAction finds what contradicts itself.
func (r Rule) checkAction(bad func(key, format string, args ...any)) {
	infected := slices.Contains(r.Outcome, "infected")
	switch {
	case r.Action == Replace:
		bad("action", "replace is no action of a rule: write \"block\"; protocols that replace do so wherever they block")
	case r.Action == Pass && len(r.Outcome) == 0:
		bad("outcome", "a rule that passes must say what: \"clean\" and the outcomes that it accepts, such as [\"clean\", \"encrypted\"]")
	case r.Action == Pass && infected && !r.AllowInfected:
		bad("action", "the rule would let through what an engine found infected: take \"infected\" out of outcome, or write allow_infected = true if that is meant")
	case r.AllowInfected && (r.Action != Pass || !infected):
		bad("allow_infected", "is of no use here: only a rule with action = \"pass\" and \"infected\" in outcome can have it")
	case r.Action != Pass && r.unconditional():
		bad("name", "the rule has no condition and would stop everything: write at least one, such as hosts, file_types or outcome")
	}
}

// unconditional says whether the rule matches everything.
func (r Rule) unconditional() bool {
	return len(r.Hosts)+len(r.Clients)+len(r.Users)+len(r.Protocols)+len(r.DeclaredTypes)+len(r.ContentTypes)+len(r.FileTypes)+
		len(r.Outcome) == 0 && r.Direction == "" && r.LargerThan == 0 && r.SmallerThan == 0
}

// Warnings returns what can be used but is surely not meant, in the form of Validate's errors: rules that are never reached,
// as an earlier one matches wherever they do; and defaults that no longer refuse what could not be scanned.
func (c Config) Warnings() error {
	var warnings []error
	for i, r := range c.Rules {
		for j := range i {
			if earlier := c.Rules[j]; earlier.covers(r) {
				warnings = append(warnings, fmt.Errorf("rule[%d].name: %q is never reached: rule %d, %q, matches wherever it would; put it before that one, or take it out",
					i+1, r.Name, j+1, earlier.Name))
				break
			}
		}
	}
	return errors.Join(warnings...)
}

// covers says whether r matches wherever later does. Where it cannot be known by looking at the conditions one by one, the
// answer is no.
func (r Rule) covers(later Rule) bool {
	return covers(r.Hosts, later.Hosts, func(a, b string) bool {
		return strings.EqualFold(a, b) || strings.HasPrefix(a, ".") && hostMatches([]string{a}, strings.TrimPrefix(b, "."))
	}) &&
		covers(r.Clients, later.Clients, func(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }) &&
		covers(r.Users, later.Users, same) && covers(r.Protocols, later.Protocols, same) &&
		(r.Direction == "" || r.Direction == later.Direction) &&
		covers(r.DeclaredTypes, later.DeclaredTypes, typeCovers) && covers(r.ContentTypes, later.ContentTypes, typeCovers) &&
		covers(r.FileTypes, later.FileTypes, same) && (len(r.FileTypes) == 0 || r.Action != Pass || later.Action == Pass) &&
		covers(r.outcomes(), later.outcomes(), same) &&
		r.LargerThan <= later.LargerThan && (r.SmallerThan == 0 || later.SmallerThan > 0 && r.SmallerThan >= later.SmallerThan)
}

// outcomes lists every outcome that the rule is about.
func (r Rule) outcomes() []string {
	if len(r.Outcome) > 0 {
		return r.Outcome
	}
	return append([]string{"clean"}, outcomes...)
}

func same(a, b string) bool { return a == b }

func typeCovers(a, b string) bool { return typeMatches([]string{a}, b) }

// covers says whether each value of later is covered by one of earlier; no values are all values.
func covers[T any](earlier, later []T, one func(a, b T) bool) bool {
	if len(earlier) == 0 {
		return true
	}
	return len(later) > 0 && !slices.ContainsFunc(later, func(b T) bool {
		return !slices.ContainsFunc(earlier, func(a T) bool { return one(a, b) })
	})
}
