package redirect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	netlinkconn "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Installed are rules in force.
type Installed struct {
	conn *nftables.Conn // nil: they stay when this process ends
}

// Install puts p in force in one transaction, in place of what was installed before. With owned, the rules go when Installed
// is closed or this process ends, even when it is killed. It needs CAP_NET_ADMIN.
func Install(p *Plan, owned bool) (*Installed, error) {
	if err := checkInterfaces(p.Interfaces); err != nil {
		return nil, err
	}
	if p.TProxy {
		if err := tproxyRoutesUp(); err != nil {
			return nil, explain(err, "routes for TPROXY")
		}
	}
	c, socket, err := open()
	if err != nil {
		return nil, err
	}
	if err := install(c, socket, p, owned); err != nil {
		return nil, errors.Join(err, c.CloseLasting())
	}
	if !owned {
		return &Installed{}, c.CloseLasting()
	}
	return &Installed{conn: c}, nil
}

func install(c *nftables.Conn, socket *netlinkconn.Conn, p *Plan, owned bool) error {
	old, err := find(c)
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	if owned {
		if err := own(socket, old); err != nil {
			return err
		}
	} else {
		if old != nil {
			c.DelTable(old)
		}
		c.AddTable(table)
	}
	sets, err := p.addSets(c, table)
	if err != nil {
		return err
	}
	accept := nftables.ChainPolicyAccept
	for _, ch := range p.chains() {
		chain := c.AddChain(&nftables.Chain{
			Name: ch.name, Table: table, Type: nftables.ChainType(ch.kind), Hooknum: ch.hookNumber, Priority: ch.prio, Policy: &accept,
		})
		for _, r := range ch.rules {
			var exprs []expr.Any
			for _, part := range r.parts {
				exprs = append(exprs, part.exprs(sets)...)
			}
			rule := &nftables.Rule{Table: table, Chain: chain, Exprs: exprs}
			if r.comment != "" {
				rule.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
			}
			c.AddRule(rule)
		}
	}
	return explain(c.Flush(), "the rules")
}

// addSets makes the sets that the rules refer to.
func (p *Plan) addSets(c *nftables.Conn, table *nftables.Table) (map[string]*nftables.Set, error) {
	sets := map[string]*nftables.Set{}
	add := func(s *nftables.Set, elements []nftables.SetElement) error {
		s.Table = table
		sets[s.Name] = s
		return c.AddSet(s, elements)
	}
	if len(p.Interfaces) > 0 {
		var names []nftables.SetElement
		for _, name := range p.Interfaces {
			key := make([]byte, unix.IFNAMSIZ)
			copy(key, name)
			names = append(names, nftables.SetElement{Key: key})
		}
		if err := add(&nftables.Set{Name: "interfaces", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}, names); err != nil {
			return nil, fmt.Errorf("interfaces: %w", err)
		}
	}
	for name, nets := range map[string][2][]netip.Prefix{"clients": p.Clients, "exclude": p.Exclude, "spared": p.Spared} {
		for f, list := range nets {
			if len(list) == 0 {
				continue
			}
			s := &nftables.Set{Name: fmt.Sprintf("%s%d", name, 4+2*f), Interval: true, KeyType: nftables.TypeIPAddr}
			if f == 1 {
				s.KeyType = nftables.TypeIP6Addr
			}
			if err := add(s, intervals(list)); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return sets, nil
}

// intervals returns prefixes, which must not overlap, as an interval set has them: each start, and the first address behind
// its end.
func intervals(nets []netip.Prefix) []nftables.SetElement {
	var out []nftables.SetElement
	for i, p := range nets {
		out = append(out, nftables.SetElement{Key: p.Addr().AsSlice()})
		end := behind(p)
		if !end.IsValid() || i+1 < len(nets) && nets[i+1].Addr() == end {
			continue // to the end of all addresses, or the next one goes on here
		}
		out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return out
}

// behind returns the first address after p, which is not valid after the last address there is.
func behind(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b) // as long as it was
	return last.Next()
}

// Close takes the rules away where they are owned.
func (i *Installed) Close() error {
	if i == nil || i.conn == nil {
		return nil
	}
	err := i.conn.CloseLasting()
	i.conn = nil
	return err
}

// Remove takes away everything that Install has made, and says whether there was anything. It needs CAP_NET_ADMIN.
func Remove() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, explain(err, "nftables")
	}
	table, err := find(c)
	if err != nil {
		return false, err
	}
	routes, err := tproxyRoutesDown()
	if err != nil {
		return false, explain(err, "routes for TPROXY")
	}
	if table == nil {
		return routes, nil
	}
	c.DelTable(table)
	if err := c.Flush(); err != nil {
		if errors.Is(err, unix.EPERM) && isOwned(table) {
			return false, errors.New("the rules belong to a running gateway ([redirect] automatic, on_failure = \"open\"), and go when it ends")
		}
		return false, explain(err, "the rules")
	}
	return true, nil
}

// find returns our table, nil where there is none.
func find(c *nftables.Conn) (*nftables.Table, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, explain(err, "nftables")
	}
	for _, t := range tables {
		if t.Name == Table {
			return t, nil
		}
	}
	return nil, nil
}

func checkInterfaces(names []string) error {
	var errs []error
	for _, name := range names {
		if _, err := net.InterfaceByName(name); err != nil {
			errs = append(errs, fmt.Errorf("[redirect] interfaces: there is no interface %q on this machine: \"ip link\" lists them", name))
		}
	}
	return errors.Join(errs...)
}

// explain adds what to do to the kernel's errors.
func explain(err error, what string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: %w: this needs root, or CAP_NET_ADMIN", what, err)
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EPROTONOSUPPORT):
		return fmt.Errorf("%s: %w: the kernel lacks a part of nftables; \"lazaret redirect plan\" prints the rules for nft", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// tproxyRule returns the routing rule of a family.
func tproxyRule(f int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family = [2]int{netlink.FAMILY_V4, netlink.FAMILY_V6}[f]
	r.Mark, r.Table = Mark, Route
	return r
}

func tproxyRoute(f int) (*netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if f == 1 {
		all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: Route}, nil
}

func tproxyRoutesUp() error {
	for f := range families {
		route, err := tproxyRoute(f)
		if err != nil {
			return err
		}
		if err := netlink.RouteReplace(route); err != nil {
			if f == 1 && errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
				continue // IPv6 is switched off
			}
			return err
		}
		if err := netlink.RuleAdd(tproxyRule(f)); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

func tproxyRoutesDown() (found bool, err error) {
	for f := range families {
		if err := netlink.RuleDel(tproxyRule(f)); err == nil {
			found = true
		} else if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return found, err
		}
		route, err := tproxyRoute(f)
		if err != nil {
			return found, err
		}
		if err := netlink.RouteDel(route); err == nil {
			found = true
		} else if !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return found, err
		}
	}
	return found, nil
}
