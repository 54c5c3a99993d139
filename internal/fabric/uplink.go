package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"tulle/internal/hostfiles"
	"tulle/ip"
	"tulle/subnet"
)

// How long an uplink is in use before it is established: the first, which others may only be slower than, and one that took the place of another,
// which may come back (docs/adr/0038-the-uplink-in-use-is-kept.md).
const (
	firstEstablished      = 10 * time.Second
	substituteEstablished = 10 * time.Minute
)

// uplinks is what a network knows of those that it has used.
type uplinks struct {
	current     ip.Uplink // chosen last; zero if none has been
	since       time.Time // when that became the current one; zero if it has not lasted until now
	established ip.Uplink // zero if none is yet; without a link if only its addresses are known
}

// restore takes over what an earlier run recorded, if that was on this host.
func (u *uplinks) restore(record hostfiles.Record, host Host) {
	lease := record.Lease()
	if lease.Attrs.Node == host.Node && !lease.Attrs.Elsewhere(subnet.Attrs{Hardware: host.Hardware}) {
		u.established = record.Uplink()
	}
}

// choose chooses the uplink. It lasts until the next choice: what changes meanwhile brings that about.
func (u *uplinks) choose(snap ip.Snapshot, choice ip.UplinkChoice, families []ip.Family) (uplink ip.Uplink, lacking []ip.Family, err error) {
	u.establish(choice.Explicit())
	choice.Established, choice.Current = u.established, u.current
	uplink, lacking, err = choice.Choose(snap, families)
	if err != nil {
		u.since = time.Time{}
		return uplink, nil, err
	}
	before := u.current
	u.current = uplink
	if len(lacking) > 0 {
		u.since = time.Time{}
		return uplink, lacking, nil
	}
	if uplink.Link != before.Link || u.since.IsZero() || !shareAddr(uplink.Addr, before.Addr) {
		u.since = time.Now()
	}
	u.establish(choice.Explicit())
	return uplink, nil, nil
}

// establish establishes the current uplink if it has lasted for long enough, is the established one or was named by the operator.
func (u *uplinks) establish(named bool) {
	if u.current.Link == "" {
		return
	}
	wait, same := substituteEstablished, shareAddr(u.current.Addr, u.established.Addr) // a name alone says nothing: another address may only have been quicker
	if u.established.Link == "" {
		wait = firstEstablished
	}
	if named || same || !u.since.IsZero() && time.Since(u.since) >= wait {
		u.established = u.current
	}
}

func shareAddr(a, b ip.Dual[netip.Addr]) bool {
	return a.V4.IsValid() && a.V4 == b.V4 || a.V6.IsValid() && a.V6 == b.V6
}

// What becomes of a family of which the uplink has no address any more.
const (
	goesOn      = "it goes on as with %s, which it had"
	notAcquired = "no lease is acquired, since another host may have %s, which it had"
)

// lacksFamilies is the error of an uplink that lacks addresses; nil if it lacks none.
func lacksFamilies(uplink ip.Uplink, families []ip.Family, outcome string) error {
	var errs []error
	for _, f := range families {
		errs = append(errs, fmt.Errorf("interface %s has no %s address that other hosts reach: "+outcome+": give it an address, or name another interface with --iface",
			uplink.Link, f, uplink.Addr.Of(f)))
	}
	return errors.Join(errs...)
}

// passedOver tells which interface would be the uplink if none were in use; empty if it is the one in use.
func passedOver(choice ip.UplinkChoice, snap ip.Snapshot, families []ip.Family, used ip.Uplink) string {
	choice.Established, choice.Current = ip.Uplink{}, ip.Uplink{}
	if today, _, err := choice.Choose(snap, families); err == nil && today.Link != used.Link {
		return today.Link
	}
	return ""
}
