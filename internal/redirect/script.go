package redirect

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// families are nft's words for them.
var families = [2]string{"ip", "ip6"}

// Script returns the plan as a script for nft, to be read, or to be run by "nft -f" where the gateway may not install rules
// itself. It replaces the table that is there.
func (p *Plan) Script() string {
	var b strings.Builder
	b.WriteString("#!/usr/sbin/nft -f\n# Written by \"lazaret redirect plan\". Everything is in one table: \"nft delete table inet lazaret\" undoes it.\n")
	for _, w := range p.Warnings {
		b.WriteString("# Note: " + w + ".\n")
	}
	fmt.Fprintf(&b, "add table inet %[1]s\ndelete table inet %[1]s\ntable inet %[1]s {\n", Table)
	if len(p.Interfaces) > 0 {
		fmt.Fprintf(&b, "\tset interfaces {\n\t\ttype ifname\n\t\telements = { %s }\n\t}\n", quoted(p.Interfaces))
	}
	for f := range families {
		writeSet(&b, "clients", f, p.Clients[f])
		writeSet(&b, "exclude", f, p.Exclude[f])
		writeSet(&b, "spared", f, p.Spared[f])
	}
	for _, c := range p.chains() {
		fmt.Fprintf(&b, "\n\t# %s\n\tchain %s {\n\t\ttype %s hook %s priority %s; policy accept;\n", c.why, c.name, c.kind, c.hook, c.priority)
		for _, r := range c.rules {
			b.WriteString("\t\t" + r.text())
			if r.comment != "" {
				b.WriteString(" comment " + strconv.Quote(r.comment))
			}
			b.WriteByte('\n')
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	if p.TProxy {
		fmt.Fprintf(&b, "\n# TPROXY also needs these routes, which \"lazaret redirect apply\" makes:\n")
		for _, cmd := range tproxyRoutes {
			b.WriteString("#   " + cmd + "\n")
		}
	}
	return b.String()
}

var tproxyRoutes = []string{
	fmt.Sprintf("ip rule add fwmark %#x lookup %d", Mark, Route),
	fmt.Sprintf("ip route add local default dev lo table %d", Route),
	fmt.Sprintf("ip -6 rule add fwmark %#x lookup %d", Mark, Route),
	fmt.Sprintf("ip -6 route add local default dev lo table %d", Route),
}

func writeSet(b *strings.Builder, name string, f int, nets []netip.Prefix) {
	if len(nets) == 0 {
		return
	}
	words := make([]string, len(nets))
	for i, p := range nets {
		words[i] = p.String()
	}
	fmt.Fprintf(b, "\tset %s%d {\n\t\ttype %s\n\t\tflags interval\n\t\telements = { %s }\n\t}\n",
		name, 4+2*f, [2]string{"ipv4_addr", "ipv6_addr"}[f], strings.Join(words, ", "))
}

func quoted(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strconv.Quote(w)
	}
	return strings.Join(out, ", ")
}

// joined writes numbers as nft and iptables take them.
func joined(ports []uint16, separator string) string {
	out := make([]string, len(ports))
	for i, p := range ports {
		out[i] = strconv.Itoa(int(p))
	}
	return strings.Join(out, separator)
}
