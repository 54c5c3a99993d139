package iptest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"tulle/ip"
)

// apply carries out op with the errors of Linux. Deleting what is absent is no error.
func (k *Kernel) apply(op ip.Op) error {
	object := op.New
	if op.Verb == ip.Delete {
		object = op.Old
	}
	del := op.Verb == ip.Delete
	switch o := object.(type) {
	case ip.Link:
		have, _ := op.Old.(ip.Link)
		return k.applyLink(op.Verb, o, have)
	case ip.Sysctl:
		return k.setSysctl(o)
	case ip.Addr:
		return k.onLink(del, o.Link, func() { k.applyAddr(del, o) })
	case ip.FDB:
		id := fdbID{o.Link, o.MAC}
		if del && o.Dst.IsValid() && o.Dst != k.fdb[id] {
			return nil // another entry is there than the one to delete
		}
		return k.onLink(del, o.Link, func() { put(k.fdb, del, id, o.Dst) })
	case ip.Neighbor:
		return k.onLink(del, o.Link, func() { put(k.neighbors, del, neighborID{o.Link, o.IP}, o.MAC) })
	case ip.Route:
		return k.applyRoute(del, o)
	case ip.UnreachableRoute:
		put(k.unreachable, del, o, true)
		return nil
	case ip.Table:
		o.Rules = slices.Clone(o.Rules)
		id := tableID{o.Net, o.Family}
		put(k.tables, del, id, o)
		delete(k.spoofed, id)
		return nil
	case ip.Guard:
		k.applyGuard(del, o)
		return nil
	case ip.Member:
		return k.applyMember(del, o)
	case ip.Opening:
		return k.applyOpening(del, o)
	case ip.Leftover:
		if del {
			delete(k.leftovers, o)
			return nil
		}
	}
	return fmt.Errorf("%T: %w", object, errors.ErrUnsupported)
}

func put[K comparable, V any](m map[K]V, del bool, key K, value V) {
	if del {
		delete(m, key)
	} else {
		m[key] = value
	}
}

// onLink runs fn if there is a link to run it on.
func (k *Kernel) onLink(del bool, link string, fn func()) error {
	if _, ok := k.linkUp(link); ok {
		fn()
	} else if !del {
		return syscall.ENODEV
	}
	return nil
}

// applyAddr puts an address on a link or takes it away. With its last IPv4 address, a link loses its IPv4 routes and
// neighbours (fib_disable_ip in net/ipv4/fib_frontend.c); IPv6 does not depend on addresses.
func (k *Kernel) applyAddr(del bool, a ip.Addr) {
	had := k.addrs[a]
	put(k.addrs, del, a, true)
	v4 := func(addr netip.Addr) bool { return addr.Is4() }
	if !del || !had || !v4(a.Prefix.Addr()) {
		return
	}
	for other := range k.addrs {
		if other.Link == a.Link && v4(other.Prefix.Addr()) {
			return
		}
	}
	k.dropRoutes(a.Link, v4)
	k.dropNeighbors(a.Link, v4)
}

// linkUp reports whether a link or interface of that name is up, and whether it exists.
func (k *Kernel) linkUp(name string) (up, ok bool) {
	if l, ok := k.links[name]; ok {
		return l.Up, true
	}
	for _, i := range k.interfaces {
		if i.Name == name {
			return i.Up, true
		}
	}
	return false, false
}

func (k *Kernel) applyLink(verb ip.Verb, want, have ip.Link) error {
	now, exists := k.links[want.Name]
	switch verb {
	case ip.Add:
		return k.addLink(want)
	case ip.Delete:
		if exists {
			k.deleteLink(want.Name)
		}
		return nil
	}
	if !exists {
		return syscall.ENODEV
	}
	if want.MAC != have.MAC {
		now.MAC = want.MAC
		k.dropNeighbors(want.Name, anyAddr)
	}
	if want.MTU != have.MTU {
		now.MTU = want.MTU
	}
	if want.Master != have.Master {
		now.Master = want.Master
	}
	if want.NoARP != have.NoARP {
		now.NoARP = want.NoARP
		k.dropNeighbors(want.Name, anyAddr)
	}
	if want.Up != have.Up {
		if now.Up && !want.Up {
			k.linkDown(want.Name)
		}
		now.Up = want.Up
	}
	k.links[want.Name] = now
	return nil
}

func (k *Kernel) addLink(l ip.Link) error {
	if _, exists := k.linkUp(l.Name); exists {
		return syscall.EEXIST
	}
	if l.Kind != nil && !k.makes[l.Kind.Type()] {
		return syscall.EOPNOTSUPP
	}
	for _, other := range k.links {
		if twins(l.Kind, other.Kind) {
			return syscall.EEXIST
		}
	}
	k.links[l.Name] = l
	k.linkOrder = append(k.linkOrder, l.Name)
	return nil
}

// twins reports whether there can be only one link of two kinds.
func twins(a, b ip.LinkKind) bool {
	switch a := a.(type) {
	case ip.VXLAN:
		b, ok := b.(ip.VXLAN)
		return ok && a.Tunnel() == b.Tunnel() && a.GBP == b.GBP && a.Local.Is4() == b.Local.Is4()
	case ip.IPIP:
		return a == b
	}
	return false
}

// linkDown is what the kernel does when a link goes down: routes, neighbours and IPv6 addresses go, IPv4 addresses
// and permanent forwarding entries stay.
func (k *Kernel) linkDown(name string) {
	k.dropRoutes(name, anyAddr)
	k.dropNeighbors(name, anyAddr)
	maps.DeleteFunc(k.addrs, func(a ip.Addr, _ bool) bool { return a.Link == name && a.Prefix.Addr().Is6() })
}

func (k *Kernel) deleteLink(name string) {
	k.linkDown(name)
	delete(k.links, name)
	k.linkOrder = slices.DeleteFunc(k.linkOrder, func(n string) bool { return n == name })
	maps.DeleteFunc(k.addrs, func(a ip.Addr, _ bool) bool { return a.Link == name })
	maps.DeleteFunc(k.fdb, func(id fdbID, _ netip.Addr) bool { return id.link == name })
	maps.DeleteFunc(k.sysctls, func(_ string, s ip.Sysctl) bool { return s.Link == name })
}

func anyAddr(netip.Addr) bool { return true }

func (k *Kernel) dropRoutes(link string, which func(dst netip.Addr) bool) {
	k.routes.deleteFunc(func(r ip.Route) bool { return r.Link == link && which(r.Dst.Addr()) })
}

func (k *Kernel) dropNeighbors(link string, which func(netip.Addr) bool) {
	maps.DeleteFunc(k.neighbors, func(id neighborID, _ ip.MAC) bool { return id.link == link && which(id.ip) })
}

// setSysctl writes a setting. Every host-wide setting exists; those of a link come and go with it.
func (k *Kernel) setSysctl(s ip.Sysctl) error {
	if _, ok := k.linkUp(s.Link); s.Link != "" && !ok {
		return syscall.ENOENT
	}
	before := k.setting(s.Key)
	k.sysctls[s.Key] = s
	switch {
	case s.Key == forwardingKey(ip.IPv4) && s.Value != before:
		maps.DeleteFunc(k.sysctls, func(key string, s ip.Sysctl) bool { return s.Link != "" && isForwarding(key) })
	case s.Key == forwardingKey(ip.IPv6) && s.Value != "0":
		k.routes.deleteFunc(func(r ip.Route) bool {
			return r.Protocol == ip.ProtocolRA && r.Dst.Bits() == 0 && k.setting(ip.LinkSetting(ip.IPv6, r.Link, "accept_ra", "").Key) != "2"
		})
	}
	return nil
}

// setting is the value of a setting. IPv4 forwards on a link as on the host, unless that says something else.
func (k *Kernel) setting(key string) string {
	s, ok := k.sysctls[key]
	if !ok && isForwarding(key) {
		s = k.sysctls[forwardingKey(ip.IPv4)]
	}
	return cmp.Or(s.Value, "0")
}

// isForwarding reports whether a key is of a link's forwarding of IPv4.
func isForwarding(key string) bool {
	return strings.HasPrefix(key, "net/ipv4/conf/") && strings.HasSuffix(key, "/forwarding")
}

func forwardingKey(f ip.Family) string { return ip.ForwardingSetting(f).Key }

func (k *Kernel) applyRoute(del bool, r ip.Route) error {
	if r.Dst.Addr().Is6() && r.Metric == 0 && !del {
		r.Metric = 1024 // IP6_RT_PRIO_USER
	}
	if del {
		k.deleteRoute(r)
		return nil
	}
	up, ok := k.linkUp(r.Link)
	v6 := r.Dst.Addr().Is6()
	switch {
	case !v6 && r.Dst != r.Dst.Masked():
		return syscall.EINVAL
	case !ok:
		return syscall.ENODEV
	case r.Via.IsValid() && k.local(r.Via):
		return syscall.EINVAL
	case r.Via.IsValid() && !r.OnLink && !k.connected(r.Link, r.Via):
		if v6 {
			return syscall.EHOSTUNREACH
		}
		return syscall.ENETUNREACH
	case !up:
		return syscall.ENETDOWN
	case v6 && r.OnLink && k.elsewhere(r.Link, r.Via):
		return syscall.EINVAL
	}
	r.Dst = r.Dst.Masked()
	k.routes.put(r)
	return nil
}

// deleteRoute deletes the route that is r in all that a deletion names; metric 0, no link and no MTU stand for any. IPv6 does not look at the MTU.
func (k *Kernel) deleteRoute(r ip.Route) {
	k.routes.deleteFirst(r.Dst, func(have ip.Route) bool {
		return have.Protocol == r.Protocol && have.Via == r.Via &&
			(r.Metric == 0 || r.Metric == have.Metric) && (r.Link == "" || r.Link == have.Link) &&
			(r.MTU == 0 || r.MTU == have.MTU || r.Dst.Addr().Is6())
	})
}

func (k *Kernel) applyOpening(del bool, o ip.Opening) error {
	f, ok := k.filters[o.Place]
	switch {
	case del:
		f.Rules = slices.DeleteFunc(slices.Clone(f.Rules), func(r ip.FilterRule) bool {
			have, ours := f.Opening(r)
			return ours && have == o
		})
	case !ok:
		return syscall.ENOENT
	default:
		f.Rules = o.PutInto(f.Rules)
	}
	if ok {
		k.filters[o.Place] = f
	}
	return nil
}

// elsewhere reports whether a route other than the default one leads to addr through another link. Linux then takes
// addr for no gateway on this link in IPv6, even if told that it is one.
func (k *Kernel) elsewhere(link string, addr netip.Addr) bool {
	r, ok := k.lookup(k.allInterfaces(), addr)
	return ok && r.Dst.Bits() != 0 && r.Link != link
}
