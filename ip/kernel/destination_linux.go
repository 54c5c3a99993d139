package kernel

import (
	"net/netip"
	"slices"
	"sync"

	"tulle/ip"
)

// destinationsMost bounds how many addresses are remembered, those of former hosts among them. With more, every route matters.
const destinationsMost = 1 << 17

// destinations are the addresses whose routes matter: those in the networks, and those that the kernel was asked about. They are taken
// in before the kernel is read or asked, so that a change is either in what it answers or notified.
type destinations struct {
	mu       sync.Mutex
	networks []netip.Prefix
	addrs    []netip.Addr // sorted
}

// within sets the networks.
func (d *destinations) within(networks []netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.networks = slices.Clone(networks)
}

// add takes in addresses, as far as they lie outside the networks. They stay: one that no longer matters costs a notification at most.
func (d *destinations) add(addrs []netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.addrs
	if len(known) > destinationsMost {
		return
	}
	for _, a := range addrs {
		inside := slices.ContainsFunc(d.networks, func(n netip.Prefix) bool { return n.Contains(a) })
		if _, found := slices.BinarySearchFunc(known, a, netip.Addr.Compare); !found && !inside {
			d.addrs = append(d.addrs, a)
		}
	}
	if len(d.addrs) > len(known) {
		slices.SortFunc(d.addrs, netip.Addr.Compare)
		d.addrs = slices.Compact(d.addrs)
	}
}

// touchedBy reports whether a prefix has one of them.
func (d *destinations) touchedBy(p netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.addrs) > destinationsMost || slices.ContainsFunc(d.networks, p.Overlaps) {
		return true
	}
	i, _ := slices.BinarySearchFunc(d.addrs, p.Masked().Addr(), netip.Addr.Compare)
	return i < len(d.addrs) && p.Contains(d.addrs[i])
}

// addressesOf lists the addresses by which this host may be reached.
func addressesOf(interfaces []ip.Interface) []netip.Addr {
	var addrs []netip.Addr
	for _, i := range interfaces {
		for _, a := range i.Addrs {
			if ip.BetweenHosts(a.Prefix.Addr()) {
				addrs = append(addrs, a.Prefix.Addr())
			}
		}
	}
	return addrs
}
