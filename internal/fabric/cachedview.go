package fabric

import (
	"errors"
	"fmt"
	"io/fs"

	"tulle/internal/hostfiles"
	"tulle/ip"
	"tulle/subnet"
)

// cachedView is the view that an earlier run has left, if this one may work from it without the store. It returns nil, and says
// why, if there is none.
func (f *Fabric) cachedView() *hostfiles.View {
	view, err := f.views.cache.Read()
	if err == nil {
		err = f.grantsOurs(view)
	}
	if err == nil {
		return view
	}
	if !errors.Is(err, fs.ErrNotExist) {
		f.cfg.Log.Warn("cached view passed over: without the store there is nothing to start from", "err", err)
	}
	return nil
}

// grantsOurs checks that the recorded lease is this host's, by the view too.
func (f *Fabric) grantsOurs(view *hostfiles.View) error {
	if f.lease.Attrs.Elsewhere(subnet.Attrs{Hardware: f.cfg.Host.Hardware}) {
		return fmt.Errorf("%s was recorded on other hardware, which may be using it", subnet.KeyOf(f.lease.Subnets))
	}
	return ours(view.Set, f.lease, f.cfg.Host.Node)
}

// ours checks that a recorded lease is the node's and that the view grants it: whoever came later with a lease that overlaps
// it harms himself alone.
func ours(set subnet.Set, mine subnet.Lease, node string) error {
	if mine.Attrs.Node != node {
		return fmt.Errorf("there is no record of a lease of node %s", node)
	}
	// What no host uses takes nothing from this one, and neither does a lease that names it.
	usable, _ := subnet.Judge(*set.Network, set.Leases, subnet.Self{Node: node})
	mine.Created = subnet.Unwritten
	for _, l := range set.Leases {
		if l.Attrs.Node == node && l.Subnets == mine.Subnets {
			mine = *l
		}
	}
	for _, l := range usable {
		if subnet.CompareSubnetClaims(l, &mine) < 0 && len(subnet.Overlap(l.Subnets, mine.Subnets)) > 0 {
			return subnet.LostTo(mine.Subnets, *l)
		}
	}
	for _, f := range set.Network.Families() {
		if network := set.Network.Pools.Of(f).Network; !ip.Contains(network, mine.Subnets.Of(f)) {
			return fmt.Errorf("the recorded lease %s has no %s subnet in %s", subnet.KeyOf(mine.Subnets), f, network)
		}
	}
	return nil
}
