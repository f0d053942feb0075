package redirect

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Status is what is in force.
type Status struct {
	Installed bool         `json:"installed"`
	Owned     bool         `json:"owned"`           // it goes when the gateway ends
	Differs   string       `json:"differs"`         // how it differs from the plan; empty: not at all
	Rules     []RuleStatus `json:"rules,omitempty"` // those that count
}

// RuleStatus is one rule that counts packets.
type RuleStatus struct {
	Chain   string `json:"chain"`
	Rule    string `json:"rule"` // as nft writes it; empty where it is none of the plan's
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Look returns what is in force, compared with p. It needs CAP_NET_ADMIN.
func Look(p *Plan) (Status, error) {
	var s Status
	c, err := nftables.New()
	if err != nil {
		return s, explain(err, "nftables")
	}
	table, err := find(c)
	if err != nil || table == nil {
		return s, err
	}
	s.Installed, s.Owned = true, isOwned(table)
	for _, ch := range p.chains() {
		rules, err := c.GetRules(table, &nftables.Chain{Name: ch.name, Table: table})
		if err != nil {
			s.Differs = fmt.Sprintf("there is no chain %s", ch.name)
			continue
		}
		if len(rules) != len(ch.rules) {
			s.Differs = fmt.Sprintf("the chain %s has %d rules, and should have %d", ch.name, len(rules), len(ch.rules))
		}
		for i, r := range rules {
			for _, e := range r.Exprs {
				n, ok := e.(*expr.Counter)
				if !ok {
					continue
				}
				rs := RuleStatus{Chain: ch.name, Packets: n.Packets, Bytes: n.Bytes}
				if i < len(ch.rules) {
					rs.Rule = ch.rules[i].text()
				}
				s.Rules = append(s.Rules, rs)
			}
		}
	}
	return s, nil
}
