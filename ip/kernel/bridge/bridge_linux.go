// Package bridge reads what CNI plugins and Docker build, container bridges and the interfaces of containers, and clears away what
// is left of it.
package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// dumpAttempts bounds how often a list is read again because it changed meanwhile.
const dumpAttempts = 10

// Interface is an interface of a container.
type Interface struct {
	MTU   int            // in bytes
	Addrs []netip.Prefix // of any scope
	// Default tells of each family whether the namespace has a default route, through whatever interface.
	Default ip.Dual[bool]
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
	if isNotFound(err) {
		return nil, nil
	}
	return addrs, err
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

// ReadInterface returns how the named interface stands in the network namespace of the calling thread.
func ReadInterface(name string) (i Interface, err error) {
	err = withLink(name, func(h *netlink.Handle, link netlink.Link) (err error) {
		i.MTU = link.Attrs().MTU
		if i.Addrs, err = addrsOf(h, link); err != nil {
			return err
		}
		for f, number := range map[ip.Family]int{ip.IPv4: unix.AF_INET, ip.IPv6: unix.AF_INET6} {
			routes, err := dump(func() ([]netlink.Route, error) { return h.RouteList(nil, number) })
			if err != nil {
				return err
			}
			for _, r := range routes {
				if bits, _ := r.Dst.Mask.Size(); bits == 0 && r.Type == unix.RTN_UNICAST {
					i.Default.Set(f, true)
				}
			}
		}
		return nil
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

func isNotFound(err error) bool {
	var gone netlink.LinkNotFoundError
	return errors.As(err, &gone)
}
