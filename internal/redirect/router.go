package redirect

import (
	"fmt"
	"net/netip"
	"strings"
)

// Router says where the gateway is, as seen by a router that is another machine.
type Router struct {
	Interface string     // the router's interface that clients, and the gateway, are behind
	Gateway   netip.Addr // the gateway's address there
}

// routerTable is the name of the table on the router.
const routerTable = "lazaret_router"

// RouterScript returns the router's part of selective routing: what clients send to the plan's ports is marked, and what is
// marked is routed by way of the gateway; all else goes as before. It is a shell script of nft and iproute2.
func (p *Plan) RouterScript(r Router) (string, error) {
	f, err := p.routerFamily(r)
	if err != nil {
		return "", err
	}
	fam := families[f]
	var b strings.Builder
	p.routerHead(&b, "nft and iproute2", fmt.Sprintf("nft delete table %s %s; %s", fam, routerTable, undoRoutes(f)))
	fmt.Fprintf(&b, "nft -f - <<'END'\nadd table %[1]s %[2]s\ndelete table %[1]s %[2]s\ntable %[1]s %[2]s {\n", fam, routerTable)
	except := ""
	if len(p.Exclude[f]) > 0 {
		fmt.Fprintf(&b, "\tset exclude {\n\t\ttype %s\n\t\tflags interval\n\t\telements = { %s }\n\t}\n", [2]string{"ipv4_addr", "ipv6_addr"}[f], prefixes(p.Exclude[f]))
		except = fmt.Sprintf(" %s daddr != @exclude", fam)
	}
	who := fmt.Sprintf("iifname %q %s saddr != %s", r.Interface, fam, r.Gateway)
	if len(p.Clients[f]) > 0 {
		who += fmt.Sprintf(" %s saddr { %s }", fam, prefixes(p.Clients[f]))
	}
	fmt.Fprintf(&b, "\tchain prerouting {\n\t\ttype filter hook prerouting priority mangle; policy accept;\n\t\t%s%s tcp dport { %s } counter meta mark set %#x\n\t}\n",
		who, except, joined(p.ports(), ", "), Mark)
	if p.RejectQUIC {
		fmt.Fprintf(&b, "\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\t%s%s udp dport 443 counter reject\n\t}\n", who, except)
	}
	b.WriteString("}\nEND\n")
	b.WriteString(makeRoutes(f, r))
	return b.String(), nil
}

// RouterIPTables returns the same for routers that know iptables only.
func (p *Plan) RouterIPTables(r Router) (string, error) {
	f, err := p.routerFamily(r)
	if err != nil {
		return "", err
	}
	ipt := [2]string{"iptables", "ip6tables"}[f]
	var b strings.Builder
	p.routerHead(&b, ipt+" and iproute2", fmt.Sprintf("%[1]s -t mangle -D PREROUTING -i %[2]s -j LAZARET; %[1]s -t mangle -F LAZARET; %[1]s -t mangle -X LAZARET; %[3]s",
		ipt, r.Interface, undoRoutes(f)))
	fmt.Fprintf(&b, "%[1]s -t mangle -N LAZARET\n%[1]s -t mangle -A LAZARET -s %[2]s -j RETURN\n", ipt, r.Gateway)
	for _, e := range p.Exclude[f] {
		fmt.Fprintf(&b, "%s -t mangle -A LAZARET -d %s -j RETURN\n", ipt, e)
	}
	sources := []string{""}
	if len(p.Clients[f]) > 0 {
		sources = nil
		for _, c := range p.Clients[f] {
			sources = append(sources, " -s "+c.String())
		}
	}
	for _, s := range sources {
		fmt.Fprintf(&b, "%s -t mangle -A LAZARET%s -p tcp -m multiport --dports %s -j MARK --set-mark %#x\n", ipt, s, joined(p.ports(), ","), Mark)
		if p.RejectQUIC {
			// REJECT is for other tables: what is marked here is rejected there.
			fmt.Fprintf(&b, "%s -t mangle -A LAZARET%s -p udp --dport 443 -j MARK --set-mark %#x\n", ipt, s, Mark+1)
		}
	}
	fmt.Fprintf(&b, "%s -t mangle -A PREROUTING -i %s -j LAZARET\n", ipt, r.Interface)
	if p.RejectQUIC {
		fmt.Fprintf(&b, "%s -I FORWARD -i %s -p udp --dport 443 -m mark --mark %#x -j REJECT\n", ipt, r.Interface, Mark+1)
	}
	b.WriteString(makeRoutes(f, r))
	return b.String(), nil
}

func (p *Plan) routerFamily(r Router) (int, error) {
	switch {
	case r.Interface == "" || len(r.Interface) > maxInterface:
		return 0, fmt.Errorf("the router's interface, %q, is no interface's name", r.Interface)
	case !r.Gateway.IsValid() || r.Gateway.IsUnspecified() || r.Gateway.IsLoopback():
		return 0, fmt.Errorf("the gateway's address, %v, is none that a router reaches", r.Gateway)
	}
	return family(r.Gateway), nil
}

func (p *Plan) routerHead(b *strings.Builder, tools, undo string) {
	fmt.Fprintf(b, "#!/bin/sh\n# Written by \"lazaret redirect plan --router\", for the router, as root: %s.\n# To undo it:\n#   %s\nset -e\n", tools, undo)
}

func makeRoutes(f int, r Router) string {
	ip := "ip"
	if f == 1 {
		ip = "ip -6"
	}
	return fmt.Sprintf("%[1]s rule del fwmark %#[2]x lookup %[3]d 2>/dev/null || true\n%[1]s rule add fwmark %#[2]x lookup %[3]d\n"+
		"%[1]s route replace default via %[4]s dev %[5]s table %[3]d\n", ip, Mark, Route, r.Gateway, r.Interface)
}

func undoRoutes(f int) string {
	ip := "ip"
	if f == 1 {
		ip = "ip -6"
	}
	return fmt.Sprintf("%[1]s rule del fwmark %#[2]x lookup %[3]d; %[1]s route flush table %[3]d", ip, Mark, Route)
}

func prefixes(nets []netip.Prefix) string {
	out := make([]string, len(nets))
	for i, p := range nets {
		out[i] = p.String()
	}
	return strings.Join(out, ", ")
}
