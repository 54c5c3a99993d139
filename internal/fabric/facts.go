package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"tulle/backend"
	"tulle/internal/decision"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// facts is everything that one pass decides from.
type facts struct {
	set   storeView
	scope ip.Scope
	snap  ip.Snapshot
	host  backend.Host
	self  subnet.Lease

	uplink    ip.Uplink // as it is
	today     string    // the interface that would be the uplink if none were in use; empty: the one that is
	unchanged bool      // what is wanted is what was wanted before

	// What keeps this host from being ready although the pass goes on.
	notHeld     error // why self, if anything, is a lease of an earlier time
	lacking     error // why a family goes on with an address that the uplink had
	unacquired  error // the same, where peers must not be told that address anew
	unpublished error // why peers are not told what they should be
	outranked   error // why hosts that see the store for the first time leave this one out
	unrecorded  error // why the next run will not know all that this one made
}

// readScope is what must be read of the kernel, and what may be changed in it.
func (f *Fabric) readScope(v *facts) ip.Scope {
	scope := f.backend.Scope(v.set.Leases)
	scope.Networks = f.network.Prefixes()
	if uplink := f.uplinks.current.Link; uplink != "" { // of the last pass: another one is looked at in the next
		scope.Uplinks = []string{uplink}
	}
	// A disk that is full or read-only must not keep this host from following the others.
	v.unrecorded = trouble.Wrap(trouble.FileUnwritable, f.cfg.StateDir, f.record.Extend(scope))
	scope = scope.Join(f.record.Record().Scope())
	scope.Sysctls = append(scope.Sysctls, decision.Settings(*f.network, f.cfg.Options)...)
	return scope
}

// earlierNetworks lists the networks that this host was in by its record. On a host with several, one of them may have been given another's addresses.
func (f *Fabric) earlierNetworks() []netip.Prefix {
	if f.cfg.Name != "" {
		return nil
	}
	return f.record.Record().Networks
}

// look takes in what has been read of the host, chooses the uplink, and has the lease announce it.
func (f *Fabric) look(v *facts, snap ip.Snapshot) error {
	v.snap = snap
	families := f.network.Families()
	// A device of Tulle's own carries nothing to other hosts but what the uplink does.
	snap.Interfaces = slices.DeleteFunc(slices.Clone(snap.Interfaces), func(i ip.Interface) bool { return slices.Contains(v.scope.Links, i.Name) })
	uplink, lacking, err := f.uplinks.choose(snap, f.cfg.Uplink, families)
	if err != nil {
		return trouble.Wrap(trouble.UplinkMissing, "", err)
	}
	v.lacking = trouble.Wrap(trouble.UplinkMissing, uplink.Link, lacksFamilies(uplink, lacking, goesOn))
	v.unacquired = trouble.Wrap(trouble.UplinkMissing, uplink.Link, lacksFamilies(uplink, lacking, notAcquired))
	v.uplink = uplink.Only(slices.DeleteFunc(slices.Clone(families), func(f ip.Family) bool { return slices.Contains(lacking, f) }))
	v.today = passedOver(f.cfg.Uplink, snap, families, uplink)
	own := slices.DeleteFunc(slices.Clone(v.snap.Owned.Links), func(l ip.Link) bool { return !slices.Contains(v.scope.Links, l.Name) })
	v.host = backend.Host{Node: f.cfg.Host.Node, Uplink: uplink, Own: ownAddrs(v.snap), Shared: broadcasts(v.snap), Links: own, Lacks: v.snap.Lacks, Paths: v.snap.Paths}
	return f.claim(v)
}

// ownAddrs is every address of this host.
func ownAddrs(snap ip.Snapshot) map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	for _, i := range snap.Interfaces {
		for _, addr := range i.Addrs {
			own[addr.Prefix.Addr()] = true
		}
	}
	return own
}

// broadcasts are the addresses by which all hosts of a network that this one is in are meant (RFC 919). Two hosts alone need none (RFC 3021).
func broadcasts(snap ip.Snapshot) map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, i := range snap.Interfaces {
		for _, addr := range i.Addrs {
			if addr.Prefix.Addr().Is4() && addr.Prefix.Bits() < 31 {
				all[ip.Last(addr.Prefix)] = true
			}
		}
	}
	return all
}

// claim tells the keeper what to announce, and takes note of what is held.
func (f *Fabric) claim(v *facts) error {
	lease, held, err := f.keeper.state()
	if held {
		v.unpublished = trouble.Wrap(trouble.LeaseUnpublished, "", err)
		if err := f.inForce(lease); err != nil {
			return err
		}
		f.lease, f.heldOnce = lease, true
		v.unrecorded = errors.Join(v.unrecorded, trouble.Wrap(trouble.FileUnwritable, f.cfg.StateDir, f.record.Remember(lease, f.uplinks.established)))
	} else {
		v.notHeld = trouble.Wrap(leaseCode(err), "", err)
	}
	earlier, self := f.lease.Attrs, f.lease.Subnets
	if !held {
		claim := subnet.Claim{Previous: f.lease.Subnets, Attrs: subnet.Attrs{
			Node: f.cfg.Host.Node, Instance: f.cfg.Host.Instance, Hardware: f.cfg.Host.Hardware, Public: v.host.Uplink.Public,
		}}
		mine, ok := subnet.Mine(v.set.Set, claim)
		if v.lacking != nil && !f.heldOnce && (!ok || v.set.cached) {
			f.keeper.withdraw()
			if !v.set.cached {
				v.notHeld = v.unacquired
			}
			v.self = f.resumed()
			return nil
		}
		if ok {
			earlier, self = mine.Attrs, mine.Subnets
		}
	}
	attrs, err := f.announced.advertise(f.backend, v.among(self), earlier)
	if errors.Is(err, backend.ErrOutranked) {
		v.outranked, err = trouble.Wrap(trouble.LeaseOutranked, "", err), nil
	}
	if err != nil {
		return trouble.Wrap(trouble.LeaseUnpublished, "", err)
	}
	attrs.Node, attrs.Instance, attrs.Hardware, attrs.Probe = f.cfg.Host.Node, f.cfg.Host.Instance, f.cfg.Host.Hardware, f.cfg.Probe
	f.keeper.publish(attrs, hostNetworks(*v, *f.network))
	v.self = f.resumed()
	if held {
		v.self = f.lease
	}
	return nil
}

// resumed is the lease that this run goes on with although it is not held; zero if there is none.
func (f *Fabric) resumed() subnet.Lease {
	if f.applied || f.views.resumed {
		return f.lease
	}
	return subnet.Lease{}
}

// among is the host beside all leases, of which the one with the given subnets is its own. A view that lacks it, or that is not of
// the present, does not say how old it is.
func (v *facts) among(self subnet.Subnets) backend.Host {
	host := v.host
	host.Stored = v.set.Network
	if self == (subnet.Subnets{}) {
		host.Leases = v.set.Leases
		return host
	}
	own := slices.IndexFunc(v.set.Leases, func(l *subnet.Lease) bool { return l.Subnets == self })
	if own >= 0 && !v.set.cached && !v.set.Leases[own].HeldBack {
		host.Leases, host.Self = v.set.Leases, v.set.Leases[own]
	}
	return host
}

// inForce checks that a lease is of the configuration in force: the store follows a new one at once, the fabric does not.
func (f *Fabric) inForce(l subnet.Lease) error {
	for _, family := range f.network.Families() {
		if network := f.network.Pools.Of(family).Network; !ip.Contains(network, l.Subnets.Of(family)) {
			return trouble.Wrap(trouble.LeaseMisfit, "", fmt.Errorf("the lease %s has no %s subnet in %s: the configuration changed meanwhile: restart tulled to take it over",
				subnet.KeyOf(l.Subnets), family, network))
		}
	}
	return nil
}

// judging is the host for which leases are judged.
func (f *Fabric) judging(own subnet.Subnets, precious []netip.Addr) subnet.Self {
	return subnet.Self{Node: f.cfg.Host.Node, Instance: f.cfg.Host.Instance, Subnets: own, Underlay: precious}
}

// precious lists the addresses that no lease may capture: this host's own, but those of its containers' bridges, those that it
// publishes, which it does not see behind NAT, its gateways, etcd's and those of name servers nearby. A name server
// elsewhere may be a container.
func (f *Fabric) precious(v facts) []netip.Addr {
	precious := ip.Addrs(v.host.Uplink.Public)
	var near []netip.Prefix
	own := v.self.Subnets
	for _, i := range v.snap.Interfaces {
		if i.Loopback || v.host.Owns(i.Name) {
			continue
		}
		for _, on := range i.Addrs {
			addr := on.Prefix.Addr()
			if !own.Of(ip.FamilyOf(addr)).Contains(addr) {
				precious, near = append(precious, addr), append(near, on.Prefix)
			}
		}
	}
	for _, r := range v.snap.Defaults {
		if r.Via.IsValid() {
			precious = append(precious, r.Via)
		}
	}
	if f.cfg.Reached != nil {
		precious = append(precious, f.cfg.Reached()...)
	}
	if f.cfg.Resolvers != nil {
		for _, addr := range f.cfg.Resolvers() {
			if slices.ContainsFunc(near, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				precious = append(precious, addr)
			}
		}
	}
	return precious
}
