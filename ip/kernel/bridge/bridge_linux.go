// Package bridge reads what CNI plugins and Docker build, container bridges and the interfaces of containers, and clears away what
// is left of it.
package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpAttempts bounds how often a list is read again because it changed meanwhile.
const dumpAttempts = 10

// Interface is an interface of a container.
type Interface struct {
	MTU   int            // in bytes
	Addrs []netip.Prefix // of any scope
	// Routes are the destinations of the namespace's unicast routes, through whatever interface and gateway.
	Routes []netip.Prefix
}

// Addrs returns the addresses of the named bridge in the network namespace of the calling thread. If there is no bridge of that
// name it returns none.
func Addrs(name string) (addrs []netip.Prefix, err error) {
	err = withLink(name, func(h *netlink.Handle, link netlink.Link) (err error) {
		if link.Type() == "bridge" {
			addrs, err = addrsOf(h, link)
		}
		return err
	})
	if IsNotFound(err) {
		return nil, nil
	}
	return addrs, err
}

// Bridge is a bridge with its addresses, of any scope.
type Bridge struct {
	Name  string
	Addrs []netip.Prefix
}

// List returns the bridges of the calling thread's network namespace.
func List() ([]Bridge, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	links, err := dump(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var bridges []Bridge
	for _, l := range links {
		if l.Type() != "bridge" {
			continue
		}
		addrs, err := addrsOf(h, l)
		if err != nil {
			return nil, fmt.Errorf("list addresses of bridge %s: %w", l.Attrs().Name, err)
		}
		bridges = append(bridges, Bridge{l.Attrs().Name, addrs})
	}
	return bridges, nil
}

// Ports returns the names of the interfaces that hang on the named bridge.
func Ports(name string) (ports []string, err error) {
	err = withLink(name, func(h *netlink.Handle, link netlink.Link) error {
		links, err := dump(h.LinkList)
		ports = portsOf(link, links)
		return err
	})
	return ports, err
}

// RemoveAddr takes an address from the named bridge. One that is gone already is no error.
func RemoveAddr(name string, addr netip.Prefix) error {
	return withLink(name, func(h *netlink.Handle, link netlink.Link) error {
		err := h.AddrDel(link, &netlink.Addr{IPNet: ipNet(addr)})
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil
		}
		return err
	})
}

// RemoveRoute removes the route to a network on the named bridge. One that is gone already is no error.
func RemoveRoute(name string, network netip.Prefix) error {
	return withLink(name, func(h *netlink.Handle, link netlink.Link) error {
		err := h.RouteDel(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(network)})
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return err
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// ForgetNeighbors removes what the host has learned on the named bridge of addresses: a container that had one of them may be gone,
// and another that gets it has another MAC. The kernel would go on sending to the former for some 20 s. A bridge that is
// not there, and entries that somebody made permanent, are no error.
func ForgetNeighbors(name string, addrs []netip.Addr) error {
	err := withLink(name, func(h *netlink.Handle, link netlink.Link) error {
		index := link.Attrs().Index
		known, err := dump(func() ([]netlink.Neigh, error) { return h.NeighList(index, netlink.FAMILY_ALL) })
		if err != nil {
			return err
		}
		var errs []error
		for _, n := range known {
			addr, _ := netip.AddrFromSlice(n.IP)
			if n.State&unix.NUD_PERMANENT != 0 || !slices.Contains(addrs, addr.Unmap()) {
				continue
			}
			if err := h.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("delete neighbor %s: %w", addr, err))
			}
		}
		return errors.Join(errs...)
	})
	if IsNotFound(err) {
		return nil
	}
	return err
}

// Tentative returns the addresses of the named bridge, link-local ones aside, of which the kernel is still finding out whether
// anybody else has them (RFC 4862, 5.4): it does not answer for them yet.
func Tentative(name string) (addrs []netip.Addr, err error) {
	err = withLink(name, func(h *netlink.Handle, link netlink.Link) error {
		list, err := tentative(h, link)
		for _, a := range list {
			addr, _ := netip.AddrFromSlice(a.IP)
			addrs = append(addrs, addr)
		}
		return err
	})
	return addrs, err
}

// Assume has the kernel answer for the tentative addresses of the named bridge at once, without asking whether anybody else has them.
func Assume(name string) error {
	return withLink(name, func(h *netlink.Handle, link netlink.Link) error {
		list, err := tentative(h, link)
		errs := []error{err}
		for _, a := range list {
			// That the kernel shall not ask can only be said of a new address.
			if err := h.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				errs = append(errs, fmt.Errorf("delete address %s: %w", a.IPNet, err))
			}
			anew := netlink.Addr{IPNet: a.IPNet, Flags: unix.IFA_F_NODAD}
			if err := h.AddrAdd(link, &anew); err != nil && !errors.Is(err, unix.EEXIST) {
				errs = append(errs, fmt.Errorf("add address %s: %w", a.IPNet, err))
			}
		}
		return errors.Join(errs...)
	})
}

func tentative(h *netlink.Handle, link netlink.Link) ([]netlink.Addr, error) {
	list, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_V6) })
	return slices.DeleteFunc(list, func(a netlink.Addr) bool {
		return a.Flags&unix.IFA_F_TENTATIVE == 0 || a.Flags&unix.IFA_F_DADFAILED != 0 || a.IP.IsLinkLocalUnicast()
	}), err
}

// ReadInterface returns how the named interface stands in the network namespace of the calling thread.
func ReadInterface(name string) (i Interface, err error) {
	err = withLink(name, func(h *netlink.Handle, link netlink.Link) (err error) {
		i.MTU = link.Attrs().MTU
		if i.Addrs, err = addrsOf(h, link); err != nil {
			return err
		}
		routes, err := dump(func() ([]netlink.Route, error) { return h.RouteList(nil, netlink.FAMILY_ALL) })
		for _, r := range routes {
			if addr, ok := netip.AddrFromSlice(r.Dst.IP); ok && r.Type == unix.RTN_UNICAST {
				bits, _ := r.Dst.Mask.Size()
				i.Routes = append(i.Routes, netip.PrefixFrom(addr.Unmap(), bits))
			}
		}
		return err
	})
	return i, err
}

// withLink runs fn with the named link of the calling thread's namespace.
func withLink(name string, fn func(*netlink.Handle, netlink.Link) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err == nil {
		err = fn(h, link)
	}
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}

func addrsOf(h *netlink.Handle, link netlink.Link) ([]netip.Prefix, error) {
	list, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	var addrs []netip.Prefix
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			bits, _ := a.Mask.Size()
			addrs = append(addrs, netip.PrefixFrom(addr.Unmap(), bits))
		}
	}
	return addrs, err
}

// dump reads a list until no change interrupts it.
func dump[T any](list func() (T, error)) (T, error) {
	for attempt := 1; ; attempt++ {
		got, err := list()
		if attempt == dumpAttempts || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
}

// IsNotFound reports whether an error of this package tells that there is no interface of that name.
func IsNotFound(err error) bool {
	var gone netlink.LinkNotFoundError
	return errors.As(err, &gone)
}
