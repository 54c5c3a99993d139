package iptest

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
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
		return k.onLink(del, o.Link, func() error { return put(k.addrs, del, o, true) })
	case ip.FDB:
		return k.onLink(del, o.Link, func() error { return put(k.fdb, del, fdbID{o.Link, o.MAC}, o.Dst) })
	case ip.Neighbor:
		return k.onLink(del, o.Link, func() error { return put(k.neighbors, del, neighborID{o.Link, o.IP}, o.MAC) })
	case ip.Route:
		return k.applyRoute(del, o)
	case ip.Table:
		o.Rules = slices.Clone(o.Rules)
		return put(k.tables, del, o.Family, o)
	case ip.Leftover:
		if del {
			delete(k.leftovers, o)
			return nil
		}
	}
	return fmt.Errorf("%T: %w", object, errors.ErrUnsupported)
}

func put[K comparable, V any](m map[K]V, del bool, key K, value V) error {
	if del {
		delete(m, key)
	} else {
		m[key] = value
	}
	return nil
}

// onLink runs fn if there is a link to run it on.
func (k *Kernel) onLink(del bool, link string, fn func() error) error {
	if _, ok := k.linkUp(link); !ok {
		if del {
			return nil
		}
		return syscall.ENODEV
	}
	return fn()
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
		k.dropNeighbors(want.Name)
	}
	if want.MTU != have.MTU {
		now.MTU = want.MTU
	}
	if want.Up != have.Up {
		now.Up = want.Up
	}
	k.links[want.Name] = now
	if !now.Up {
		k.linkDown(want.Name)
	}
	return nil
}

func (k *Kernel) addLink(l ip.Link) error {
	if _, exists := k.linkUp(l.Name); exists {
		return syscall.EEXIST
	}
	for _, other := range k.links {
		if other.VXLAN.VNI == l.VXLAN.VNI && other.VXLAN.Port == l.VXLAN.Port && other.VXLAN.GBP == l.VXLAN.GBP &&
			other.VXLAN.Local.Is4() == l.VXLAN.Local.Is4() {
			return syscall.EEXIST
		}
	}
	k.links[l.Name] = l
	k.linkOrder = append(k.linkOrder, l.Name)
	return nil
}

// linkDown is what the kernel does when a link goes down: routes, neighbours and IPv6 addresses go, IPv4 addresses
// and permanent forwarding entries stay.
func (k *Kernel) linkDown(name string) {
	k.dropRoutes(name)
	k.dropNeighbors(name)
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

func (k *Kernel) dropNeighbors(link string) {
	maps.DeleteFunc(k.neighbors, func(id neighborID, _ ip.MAC) bool { return id.link == link })
}

// setSysctl writes a setting. Every host-wide setting exists; those of a link come and go with it.
func (k *Kernel) setSysctl(s ip.Sysctl) error {
	if _, ok := k.linkUp(s.Link); s.Link != "" && !ok {
		return syscall.ENOENT
	}
	k.sysctls[s.Key] = s
	return nil
}

func (k *Kernel) applyRoute(del bool, r ip.Route) error {
	if r.Dst.Addr().Is6() && r.Metric == 0 && !del {
		r.Metric = 1024 // IP6_RT_PRIO_USER
	}
	if del {
		if id := (routeID{r.Dst, r.Metric}); k.routes[id] == r {
			delete(k.routes, id)
		}
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
	k.routes[routeID{r.Dst, r.Metric}] = r
	return nil
}

// elsewhere reports whether a route other than the default one leads to addr through another link. Linux then takes
// addr for no gateway on this link in IPv6, even if told that it is one.
func (k *Kernel) elsewhere(link string, addr netip.Addr) bool {
	r, ok := k.lookup(k.allInterfaces(), addr)
	return ok && r.Dst.Bits() != 0 && r.Link != link
}
