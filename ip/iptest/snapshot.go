package iptest

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	"tulle/ip"
)

// Snapshot reads the namespace.
func (k *Kernel) Snapshot(ctx context.Context, scope ip.Scope) (ip.Snapshot, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return ip.Snapshot{}, err
	}
	s := ip.Snapshot{Owned: k.owned(scope), Interfaces: k.allInterfaces()}
	k.readGuards(&s)
	if k.fixed {
		s.Fixed = map[string]bool{}
		for _, setting := range s.Owned.Sysctls {
			s.Fixed[setting.Key] = true
		}
	}
	s.Lacks = map[string]bool{}
	for _, kind := range scope.Kinds {
		if !k.makes[kind] {
			s.Lacks[kind] = true
		}
	}
	var others []ip.Route
	for r := range k.routes.all() {
		if owns(scope, r) {
			s.Owned.Routes = append(s.Owned.Routes, r)
		} else {
			others = append(others, r)
			if r.Via.IsValid() && inNetworks(scope, r.Dst) {
				s.Foreign = append(s.Foreign, r)
			}
		}
		if r.Dst.Bits() == 0 {
			s.Defaults = append(s.Defaults, r)
		}
	}
	for d := range k.unreachable {
		if inNetworks(scope, d.Dst) {
			s.Owned.Unreachable = append(s.Owned.Unreachable, d)
		}
	}
	s.DeviceFilters = slices.Clone(k.deviceFilters)
	s.Filters = ip.Reachable(slices.Collect(maps.Values(k.filters)))
	ip.SortFilters(s.Filters)
	for i, f := range s.Filters {
		s.Filters[i].Rules = slices.Clone(f.Rules)
		s.Owned.Openings = append(s.Owned.Openings, f.Openings()...)
	}
	s.Owned.Sort()
	slices.SortFunc(s.Foreign, func(a, b ip.Route) int {
		return cmp.Or(ip.ComparePrefix(a.Dst, b.Dst), cmp.Compare(a.Metric, b.Metric))
	})
	slices.SortFunc(s.Defaults, func(a, b ip.Route) int {
		return cmp.Or(ip.ComparePrefix(a.Dst, b.Dst), cmp.Compare(a.Metric, b.Metric))
	})
	for _, f := range ip.Families() {
		a := k.answer(k.allInterfaces(), ip.Question{Dst: f.Elsewhere()})
		if a.Kind == ip.Unicast && !slices.ContainsFunc(s.Defaults, func(r ip.Route) bool { return ip.FamilyOf(r.Dst.Addr()) == f }) {
			s.Defaults = append(s.Defaults, ip.Route{Dst: f.All(), Via: a.Gateway, Link: a.Link})
		}
	}
	s.Paths, s.Others = k.paths(scope.Paths), k.othersIn(scope, others)
	return s, nil
}

// Lookup implements ip.Kernel.
func (k *Kernel) Lookup(ctx context.Context, questions []ip.Question) ([]ip.Answer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	answers, interfaces := make([]ip.Answer, len(questions)), k.allInterfaces()
	for i, q := range questions {
		answers[i] = k.answer(interfaces, q)
	}
	return answers, ctx.Err()
}

func (k *Kernel) paths(addrs []netip.Addr) map[netip.Addr]ip.Path {
	found, interfaces := make(map[netip.Addr]ip.Path, len(addrs)), k.allInterfaces()
	for _, addr := range addrs {
		if a := k.answer(interfaces, ip.Question{Dst: addr}); a.Leads() {
			found[addr] = a.Path
		}
	}
	return found
}

// owned is what lies in scope, without the routes.
func (k *Kernel) owned(scope ip.Scope) ip.State {
	var s ip.State
	ours := func(link string) bool { return slices.Contains(scope.Links, link) }
	for _, name := range k.linkOrder {
		if ours(name) {
			s.Links = append(s.Links, k.links[name])
		}
	}
	for a := range k.addrs {
		if ours(a.Link) && inNetworks(scope, a.Prefix) {
			s.Addrs = append(s.Addrs, a)
		}
	}
	for id, dst := range k.fdb {
		if ours(id.link) {
			s.FDB = append(s.FDB, ip.FDB{Link: id.link, MAC: id.mac, Dst: dst})
		}
	}
	for id, mac := range k.neighbors {
		if ours(id.link) {
			s.Neighbors = append(s.Neighbors, ip.Neighbor{Link: id.link, IP: id.ip, MAC: mac})
		}
	}
	for _, setting := range scope.Settings(k.allInterfaces()) {
		if _, exists := k.linkUp(setting.Link); setting.Link != "" && !exists {
			continue
		}
		setting.Value = k.setting(setting.Key)
		s.Sysctls = append(s.Sysctls, setting)
	}
	for _, t := range k.tables {
		t.Rules = slices.Clone(t.Rules)
		s.Tables = append(s.Tables, t)
	}
	for l, network := range k.leftovers {
		if slices.Contains(scope.Networks, network) {
			s.Leftovers = append(s.Leftovers, l)
		}
	}
	return s
}

func owns(scope ip.Scope, r ip.Route) bool {
	if r.Protocol == ip.Protocol && inNetworks(scope, r.Dst) {
		return true
	}
	family := ip.FamilyOf(r.Dst.Addr())
	return slices.Contains(scope.Links, r.Link) && r.Protocol != protocolKernel && r.Protocol != protocolRA &&
		!ip.Contains(family.LinkLocal(), r.Dst) && !ip.Contains(family.Multicast(), r.Dst)
}

// Protocols of routes that come by themselves (rtnetlink(7)).
const (
	protocolKernel = 2
	protocolRA     = 9
)

func inNetworks(scope ip.Scope, p netip.Prefix) bool {
	return slices.ContainsFunc(scope.Networks, func(n netip.Prefix) bool { return ip.Contains(n, p) })
}

// allInterfaces are those of the host and the links.
func (k *Kernel) allInterfaces() []ip.Interface {
	all := slices.Clone(k.interfaces)
	for i := range all {
		all[i].Addrs = k.withAddrs(all[i].Name, slices.Clone(all[i].Addrs))
	}
	for _, name := range k.linkOrder {
		l := k.links[name]
		all = append(all, ip.Interface{Name: name, MTU: l.MTU, Up: l.Up, Addrs: k.withAddrs(name, nil)})
	}
	return all
}

func (k *Kernel) withAddrs(link string, addrs []ip.InterfaceAddr) []ip.InterfaceAddr {
	start := len(addrs)
	for a := range k.addrs {
		if a.Link == link {
			addrs = append(addrs, ip.InterfaceAddr{Prefix: a.Prefix})
		}
	}
	slices.SortFunc(addrs[start:], func(a, b ip.InterfaceAddr) int { return ip.ComparePrefix(a.Prefix, b.Prefix) })
	return addrs
}

// connected reports whether addr is a neighbour on the link.
func (k *Kernel) connected(link string, addr netip.Addr) bool {
	a := k.answer(k.allInterfaces(), ip.Question{Dst: addr})
	return a.Leads() && a.Link == link && a.OnLink()
}

// local reports whether addr is an address of the host.
func (k *Kernel) local(addr netip.Addr) bool { return local(k.allInterfaces(), addr) }

func local(interfaces []ip.Interface, addr netip.Addr) bool {
	return slices.ContainsFunc(interfaces, func(i ip.Interface) bool {
		return slices.ContainsFunc(i.Addrs, func(a ip.InterfaceAddr) bool { return a.Prefix.Addr() == addr })
	})
}

// lookup finds the route to addr: of the longest prefix, then of the lowest metric.
func (k *Kernel) lookup(interfaces []ip.Interface, addr netip.Addr) (best ip.Route, ok bool) {
	consider := func(r ip.Route) {
		if r.Dst.Contains(addr) && (!ok || r.Dst.Bits() > best.Dst.Bits() ||
			r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric) {
			best, ok = r, true
		}
	}
	for _, i := range interfaces {
		for _, a := range i.Addrs {
			if i.Up {
				consider(ip.Route{Dst: a.Prefix.Masked(), Link: i.Name})
			}
		}
	}
	if r, ok := k.routes.lookup(addr); ok {
		consider(r)
	}
	return best, ok
}

// answer goes through the tables as Linux does: own addresses first, then what the rules name, then the main one.
func (k *Kernel) answer(interfaces []ip.Interface, q ip.Question) ip.Answer {
	a := ip.Answer{Kind: ip.Unrouted}
	isIn := func(i ip.Interface) bool { return i.Name == q.In }
	switch {
	case q.In != "" && !slices.ContainsFunc(interfaces, isIn), q.In != "" && q.Src.IsValid() && local(interfaces, q.Src):
		return ip.Answer{}
	case q.In == "" && q.Src.IsValid() && q.Src.Is4() && !local(interfaces, q.Src):
		return ip.Answer{Kind: ip.Blackhole} // the kernel does not say it in another way
	case local(interfaces, q.Dst):
		a = ip.Answer{Path: ip.Path{Link: loopback, Source: q.Dst}, Kind: ip.Local}
	default:
		tables := []uint32{}
		for _, rule := range k.policy {
			for _, c := range rule.conditions() {
				if !c.Matches(q) || rule.Selector != (ip.Selector{}) && rule.Selector != q.Selector {
					continue
				}
				tables = append(tables, rule.Table)
			}
		}
		for _, table := range append(tables, ip.MainTable) {
			if r, ok := k.lookupIn(table, interfaces, q.Dst); ok {
				a = ip.Answer{Kind: r.Kind}
				if r.Kind == ip.Unicast {
					noARP := slices.ContainsFunc(interfaces, func(i ip.Interface) bool { return i.Name == r.Link && i.NoARP })
					a = ip.Answer{Path: ip.Path{Link: r.Link, Gateway: r.Via, Source: source(interfaces, r.Route, q.Dst), NoARP: noARP}, Kind: r.Kind, Table: table, Single: q.Src.IsValid() && r.Dst.IsSingleIP()}
				}
				break
			}
		}
	}
	if q.Src.IsValid() {
		a.Source = netip.Addr{}
	}
	return a
}

// lookupIn finds the route to addr in a table, of whatever kind.
func (k *Kernel) lookupIn(table uint32, interfaces []ip.Interface, addr netip.Addr) (best TableRoute, ok bool) {
	if table == ip.MainTable {
		best.Route, ok = k.lookup(interfaces, addr)
		best.Table, best.Kind = table, ip.Unicast
		for d := range k.unreachable {
			if d.Dst.Contains(addr) && (!ok || d.Dst.Bits() > best.Dst.Bits()) {
				best, ok = TableRoute{Route: ip.Route{Dst: d.Dst, Metric: ip.LastMetric}, Table: table, Kind: ip.Unreachable}, true
			}
		}
	}
	for _, r := range k.others {
		if r.Table == table && r.Dst.Contains(addr) && (!ok || r.Dst.Bits() > best.Dst.Bits() ||
			r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric) {
			best, ok = r, true
		}
	}
	return best, ok
}

// conditions are what a rule asks of the packets of each family.
func (r Rule) conditions() (cs []ip.Condition) {
	for _, f := range ip.Families() {
		if (!r.From.IsValid() || ip.FamilyOf(r.From.Addr()) == f) && (!r.To.IsValid() || ip.FamilyOf(r.To.Addr()) == f) {
			cs = append(cs, ip.Condition{Family: f, Src: r.From, Dst: r.To, Selector: r.Selector, What: "the policy rule", Show: "ip rule show"})
		}
	}
	return cs
}

// othersIn is what decides where packets go, beside Tulle's routes: the other routes of the main table, and what is not in that.
func (k *Kernel) othersIn(scope ip.Scope, routes []ip.Route) ip.Others {
	var o ip.Others
	add := func(dst netip.Prefix, what any) {
		h := fnv.New64a()
		fmt.Fprint(h, what)
		o.Sum += h.Sum64()
		if dst.IsValid() && inNetworks(scope, dst) {
			o.Into = append(o.Into, dst)
		}
	}
	for _, i := range k.allInterfaces() {
		for _, a := range i.Addrs {
			add(ip.Host(a.Prefix.Addr()), a.Prefix)
			if i.Up {
				add(a.Prefix.Masked(), ip.Route{Dst: a.Prefix, Link: i.Name})
			}
		}
	}
	for _, r := range routes {
		add(r.Dst, r)
	}
	for _, r := range k.others {
		add(r.Dst, r)
	}
	for n, r := range k.policy {
		add(r.To, []any{n, r})
		for _, c := range r.conditions() {
			if r.Selector != (ip.Selector{}) || c.Src.IsValid() && inNetworks(scope, c.Src) || c.Dst.IsValid() && inNetworks(scope, c.Dst) {
				o.Conditions = append(o.Conditions, c)
			}
		}
	}
	slices.SortFunc(o.Into, ip.ComparePrefix)
	o.Into = slices.Compact(o.Into)
	return o
}

// source picks the address from which the host would send along r: one that shares a network with the next hop, else
// the first of the interface, else any.
func source(interfaces []ip.Interface, r ip.Route, addr netip.Addr) netip.Addr {
	next := addr
	if r.Via.IsValid() {
		next = r.Via
	}
	var onLink, anywhere netip.Addr
	for _, i := range interfaces {
		for _, a := range i.Addrs {
			own := a.Prefix.Addr()
			if own.Is4() != addr.Is4() || i.Loopback {
				continue
			}
			if i.Name == r.Link {
				if a.Prefix.Contains(next) {
					return own
				}
				if !onLink.IsValid() {
					onLink = own
				}
			}
			if !anywhere.IsValid() {
				anywhere = own
			}
		}
	}
	if onLink.IsValid() {
		return onLink
	}
	return anywhere
}
