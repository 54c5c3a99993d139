package fabric

import (
	"fmt"
	"net/netip"
	"time"

	"tulle/internal/hostfiles"
	"tulle/ip"
	"tulle/subnet"
)

// How long an uplink is in use before it is settled: the first, which others may only be slower than, and one that took the place of another,
// which may come back (docs/adr/0038-the-uplink-in-use-is-kept.md).
const (
	settleFirst = 10 * time.Second
	settleAgain = 10 * time.Minute
)

// uplinks is what a network knows of those that it has used.
type uplinks struct {
	current ip.Uplink // of the last pass that had all it needs
	since   time.Time // when that became the current one
	settled ip.Uplink // of an earlier run only the addresses are known
}

// restore takes over what an earlier run recorded, if that was on this host. What is settled gives way to an interface that the operator names.
func (u *uplinks) restore(record hostfiles.Record, host Host, choice ip.UplinkChoice) {
	lease := record.Lease()
	if lease.Attrs.Node != host.Node || lease.Attrs.Elsewhere(subnet.Attrs{Hardware: host.Hardware}) {
		return
	}
	u.current = ip.Uplink{Addr: record.Underlay(), Public: lease.Attrs.Public}
	if !choice.Explicit() {
		u.settled = u.current
	}
}

// choose chooses the uplink. One that is settled and lacks addresses of some of the families is returned without them, and lacking says so: the others
// go on.
func (u *uplinks) choose(snap ip.Snapshot, choice ip.UplinkChoice, families []ip.Family) (uplink ip.Uplink, lacking, err error) {
	choice.Current, choice.Settled = u.current.Addr, u.settled
	uplink, err = choice.Choose(snap, families)
	if err == nil {
		u.use(uplink)
		return uplink, nil, nil
	}
	choice.Settled = u.known()
	part, ok := choice.Lacking(snap, families)
	if filled := u.fill(part, families); !ok || !complete(filled.Addr, families) || !complete(filled.Public, families) {
		return ip.Uplink{}, nil, err
	}
	return part, fmt.Errorf("%s goes on with the addresses that it has: %w", part.Link, err), nil
}

// use takes in what is used now.
func (u *uplinks) use(uplink ip.Uplink) {
	if uplink.Link != u.current.Link {
		u.since = time.Now()
	}
	u.current = uplink
	wait := settleAgain
	if u.settled.Addr == (ip.Dual[netip.Addr]{}) {
		wait = settleFirst
	}
	if uplink.Link == u.settled.Link || u.settled.Link == "" && shareAddr(uplink.Addr, u.settled.Addr) || time.Since(u.since) >= wait {
		u.settled = uplink
	}
}

// known is the settled uplink, or what is used before there is one.
func (u *uplinks) known() ip.Uplink {
	if u.settled.Addr != (ip.Dual[netip.Addr]{}) {
		return u.settled
	}
	return u.current
}

// fill completes an uplink with the addresses that it had.
func (u *uplinks) fill(part ip.Uplink, families []ip.Family) ip.Uplink {
	had := u.known()
	for _, f := range families {
		if !part.Addr.Of(f).IsValid() {
			part.Addr.Set(f, had.Addr.Of(f))
			part.Public.Set(f, had.Public.Of(f))
		}
	}
	return part
}

func complete(addrs ip.Dual[netip.Addr], families []ip.Family) bool {
	for _, f := range families {
		if !addrs.Of(f).IsValid() {
			return false
		}
	}
	return true
}

func shareAddr(a, b ip.Dual[netip.Addr]) bool {
	return a.V4.IsValid() && a.V4 == b.V4 || a.V6.IsValid() && a.V6 == b.V6
}

// passedOver tells which interface would be the uplink if none were in use; empty if it is the one in use.
func passedOver(choice ip.UplinkChoice, snap ip.Snapshot, families []ip.Family, used ip.Uplink) string {
	choice.Current, choice.Settled = ip.Dual[netip.Addr]{}, ip.Uplink{}
	if today, err := choice.Choose(snap, families); err == nil && today.Link != used.Link {
		return today.Link
	}
	return ""
}
