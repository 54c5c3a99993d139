package ip

import (
	"cmp"
	"fmt"
	"slices"
)

// DeviceFilter is what another program has hung on a link of Tulle's, a bridge of containers or the uplink, where it may drop packets, and no chain of forwarded packets and no route tells of it:
// a filter of tc, a queueing discipline, a chain of nftables for that device, an XDP program or another of bpf(2). It
// goes with the link, and is never touched. On links of others queueing disciplines do not count: they limit, and most have one.
type DeviceFilter struct {
	Link   string
	Uplink bool   // it is the uplink, or what that is made of
	What   string // as people call it, such as: the tc filter u32 at ingress
	Show   string // the command that shows it
}

func (a DeviceFilter) String() string {
	between := "containers"
	if a.Uplink {
		between = "hosts"
	}
	return fmt.Sprintf("%s has %s, which is another program's and may drop packets between %s: see %s", a.Link, a.What, between, a.Show)
}

// SortDeviceFilters sorts, and leaves out what is there twice.
func SortDeviceFilters(all []DeviceFilter) []DeviceFilter {
	slices.SortFunc(all, func(a, b DeviceFilter) int { return cmp.Or(cmp.Compare(a.Link, b.Link), cmp.Compare(a.What, b.What)) })
	return slices.Compact(all)
}
