package redirect

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// chain is a base chain. Text and netlink forms of its rules are made from the same parts.
type chain struct {
	name, why            string
	kind, hook, priority string
	hookNumber           *nftables.ChainHook
	prio                 *nftables.ChainPriority
	rules                []rule
}

// rule is a list of parts, as matches come before what is done.
type rule struct {
	parts   []part
	comment string
}

// part is one piece of a rule: as nft's text, and as expressions, which may refer to the table's sets.
type part struct {
	text  string
	exprs func(sets map[string]*nftables.Set) []expr.Any
}

func (r rule) text() string {
	words := make([]string, len(r.parts))
	for i, p := range r.parts {
		words[i] = p.text
	}
	return strings.Join(words, " ")
}

func fixed(text string, exprs ...expr.Any) part {
	return part{text: text, exprs: func(map[string]*nftables.Set) []expr.Any { return exprs }}
}

// chains returns the plan's chains.
func (p *Plan) chains() []chain {
	var out []chain
	if len(p.Interfaces) > 0 {
		c := chain{
			name: "prerouting", why: "what clients send is led to the gateway's listeners",
			kind: "nat", hook: "prerouting", priority: "dstnat", hookNumber: nftables.ChainHookPrerouting, prio: nftables.ChainPriorityNATDest,
		}
		if p.TProxy {
			c.kind, c.priority, c.prio = "filter", "mangle", nftables.ChainPriorityMangle
		}
		c.rules = append(p.spare(true), p.take()...)
		out = append(out, c)
		if rules := p.refuse(); len(rules) > 0 {
			out = append(out, chain{
				name: "forward", why: "what nobody could scan does not pass", kind: "filter", hook: "forward", priority: "filter",
				hookNumber: nftables.ChainHookForward, prio: nftables.ChainPriorityFilter, rules: append(p.spare(true), rules...),
			})
		}
	}
	if p.Local {
		own := p.own()
		out = append(out, chain{
			name: "output", why: "what this machine's own programs send", kind: "nat", hook: "output", priority: "-100",
			hookNumber: nftables.ChainHookOutput, prio: nftables.ChainPriorityNATDest, rules: append(append(own, p.spare(false)...), p.take()...),
		})
		if p.RejectQUIC {
			out = append(out, chain{
				name: "output_quic", why: "QUIC of this machine's own programs", kind: "filter", hook: "output", priority: "filter",
				hookNumber: nftables.ChainHookOutput, prio: nftables.ChainPriorityFilter, rules: append(append(own, p.spare(false)...), rejectQUIC()),
			})
		}
	}
	return out
}

// own returns the rules that leave the gateway's own traffic alone.
func (p *Plan) own() []rule {
	var out []rule
	if p.OwnMark != 0 {
		out = append(out, rule{parts: []part{
			fixed(fmt.Sprintf("meta mark %#x", p.OwnMark), &expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(p.OwnMark)}), leave(),
		}, comment: "the gateway's own traffic"})
	}
	if p.HasUID {
		out = append(out, rule{parts: []part{
			fixed(fmt.Sprintf("meta skuid %d", p.UID), &expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(p.UID)}), leave(),
		}, comment: "the gateway's own traffic"})
	}
	return out
}

// spare returns the rules that leave traffic alone; forwarded says that it comes by the interfaces.
func (p *Plan) spare(forwarded bool) []rule {
	var out []rule
	if forwarded {
		out = append(out, rule{parts: []part{interfaceNotIn("interfaces"), leave()}})
		if p.Narrow {
			for f := range families {
				if len(p.Clients[f]) == 0 {
					out = append(out, rule{parts: []part{nfproto(f), leave()}})
					continue
				}
				out = append(out, rule{parts: []part{address(f, "saddr", "clients", true), leave()}})
			}
		}
	}
	out = append(out, rule{parts: []part{
		fixed("fib daddr type local", &expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)}), leave(),
	}, comment: "what is for this machine itself"})
	for f := range families {
		if len(p.Exclude[f]) > 0 {
			out = append(out, rule{parts: []part{address(f, "daddr", "exclude", false), leave()}})
		}
		if len(p.Spared[f]) > 0 && forwarded {
			out = append(out, rule{parts: []part{address(f, "saddr", "spared", false), leave()}})
		}
	}
	return out
}

// take returns the rules that lead traffic to the listeners.
func (p *Plan) take() []rule {
	var out []rule
	for _, s := range p.Services {
		both := s.To[0] == s.To[1] && !s.To[0].Addr.IsValid() && !p.TProxy
		for _, port := range s.Ports {
			for f := range families {
				d := s.To[f]
				if d.Port == 0 || both && f == 1 {
					continue
				}
				var parts []part
				if !both {
					parts = append(parts, nfproto(f))
				}
				parts = append(parts, dport("tcp", port), counter())
				switch {
				case p.TProxy:
					parts = append(parts, tproxy(f, d), setMark(), accept())
				case d.Addr.IsValid():
					parts = append(parts, dnat(f, d))
				default:
					parts = append(parts, redirectTo(d.Port))
				}
				out = append(out, rule{parts: parts, comment: s.Name})
			}
		}
	}
	return out
}

// refuse returns the rules against what cannot be scanned.
func (p *Plan) refuse() []rule {
	var out []rule
	for _, s := range p.Services {
		for f := range families {
			if s.To[f].Port != 0 {
				continue
			}
			for _, port := range s.Ports {
				out = append(out, rule{parts: []part{
					nfproto(f), dport("tcp", port), counter(),
					fixed("reject with tcp reset", &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}),
				}, comment: s.Name + ", which nobody listens for"})
			}
		}
	}
	if p.RejectQUIC {
		out = append(out, rejectQUIC())
	}
	return out
}

func rejectQUIC() rule {
	return rule{parts: []part{
		dport("udp", 443), counter(),
		fixed("reject", &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}),
	}, comment: "QUIC: browsers fall back to TCP"}
}

func leave() part   { return fixed("return", &expr.Verdict{Kind: expr.VerdictReturn}) }
func accept() part  { return fixed("accept", &expr.Verdict{Kind: expr.VerdictAccept}) }
func counter() part { return fixed("counter", &expr.Counter{}) }

func interfaceNotIn(set string) part {
	return part{text: "iifname != @" + set, exprs: func(sets map[string]*nftables.Set) []expr.Any {
		s := sets[set]
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID, Invert: true},
		}
	}}
}

// nfNumbers are the families as the kernel numbers them.
var nfNumbers = [2]byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}

func familyExprs(f int) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{nfNumbers[f]}},
	}
}

func nfproto(f int) part {
	return fixed("meta nfproto "+[2]string{"ipv4", "ipv6"}[f], familyExprs(f)...)
}

// address matches a source or destination address by a set.
func address(f int, field, set string, invert bool) part {
	offsets := map[string][2]uint32{"saddr": {12, 8}, "daddr": {16, 24}}
	name := fmt.Sprintf("%s%d", set, 4+2*f)
	op := ""
	if invert {
		op = "!= "
	}
	return part{text: fmt.Sprintf("%s %s %s@%s", families[f], field, op, name), exprs: func(sets map[string]*nftables.Set) []expr.Any {
		s := sets[name]
		return append(familyExprs(f),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offsets[field][f], Len: [2]uint32{4, 16}[f]},
			&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID, Invert: invert})
	}}
}

func dport(proto string, port uint16) part {
	number := byte(unix.IPPROTO_TCP)
	if proto == "udp" {
		number = unix.IPPROTO_UDP
	}
	return fixed(fmt.Sprintf("%s dport %d", proto, port),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)})
}

func redirectTo(port uint16) part {
	return fixed(fmt.Sprintf("redirect to :%d", port),
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED})
}

func dnat(f int, d Destination) part {
	return fixed(fmt.Sprintf("dnat %s to %s", families[f], netip.AddrPortFrom(d.Addr, d.Port)),
		&expr.Immediate{Register: 1, Data: d.Addr.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(d.Port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(nfNumbers[f]), RegAddrMin: 1, RegProtoMin: 2, Specified: true})
}

func tproxy(f int, d Destination) part {
	text := fmt.Sprintf("tproxy %s to :%d", families[f], d.Port)
	exprs := []expr.Any{&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(d.Port)}}
	t := &expr.TProxy{Family: nfNumbers[f], TableFamily: unix.NFPROTO_INET, RegPort: 1}
	if d.Addr.IsValid() {
		text = fmt.Sprintf("tproxy %s to %s", families[f], netip.AddrPortFrom(d.Addr, d.Port))
		exprs = append(exprs, &expr.Immediate{Register: 2, Data: d.Addr.AsSlice()})
		t.RegAddr = 2
	}
	return fixed(text, append(exprs, t)...)
}

func setMark() part {
	return fixed(fmt.Sprintf("meta mark set %#x", Mark),
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(Mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1})
}
