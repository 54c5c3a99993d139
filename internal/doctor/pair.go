package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
)

// Peer is the other host of a case, by what the store has of it.
type Peer struct {
	Member
	Silent bool // no tulled answers for it through the store
}

// apart is by how much two clocks may differ: the facts of two hosts are had within less.
const apart = time.Minute

// between has a check made of two hosts that both told how they stand.
func between(find func(here, there Facts, c Case) []Finding) func(Case) []Finding {
	return func(c Case) []Finding {
		if c.There == nil || c.There.Node == c.Here.Node {
			return nil
		}
		return find(c.Here, *c.There, c)
	}
}

// concerns reports whether what was found is about one of the hosts of the case; without a peer, all is.
func (c Case) concerns(f Finding) bool {
	if c.Peer == nil || f.Code != trouble.PeerUnreachable && f.Code != trouble.PeerNarrow {
		return true
	}
	return f.Subject == "" || f.Host == c.Here.Node && f.Subject == c.Peer.Lease || f.Host == c.Peer.Node && f.Subject == c.Lease
}

// silent tells of a peer for which no tulled answers: whether the machine is there, its neighbours know.
func silent(gone bool) func(Case) []Finding {
	return func(c Case) []Finding {
		if c.Peer == nil || !c.Peer.Silent {
			return nil
		}
		var next *Neighbor
		if t := c.Here.Toward; t != nil && t.Underlay != nil && !t.Underlay.Via.IsValid() {
			next = t.Next
		}
		dead := next != nil && (next.State == "FAILED" || next.State == "INCOMPLETE")
		if dead != gone {
			return nil
		}
		f := Finding{Host: c.Peer.Node, Subject: c.Peer.Lease}
		if dead {
			f.Text = fmt.Sprintf("nothing of this host answers: no tulled through the store, and no machine has %s on %s: it is off, or cut off", next.Addr, c.Here.Toward.Underlay.Link)
			f.Remedy = "Start the machine, or mend its interface to the others. If it is gone for good: tulle leases release '" + c.Peer.Lease + "'."
			return []Finding{f}
		}
		f.Text = "no tulled answers for it through the store, and its lease is still there, so others go on sending: tulled is stopped there"
		if next == nil || next.State != "REACHABLE" && next.State != "DELAY" && next.State != "PROBE" && next.State != "PERMANENT" {
			f.Text += ", or the machine is off"
		}
		f.Text += ", or it does not reach the store"
		f.Fix, f.Undo, f.Sure = []string{"systemctl start tulled"}, []string{"systemctl stop tulled"}, Likely
		return []Finding{f}
	}
}

// backendDiffers compares how two hosts send.
func backendDiffers(here, there Facts, _ Case) (all []Finding) {
	differ := func(what, a, b string) {
		if len(all) == 0 && a != b {
			f := Finding{Host: there.Node, Subject: what, Text: fmt.Sprintf("%s is %s on %s and %s on %s: what one sends, the other takes for nothing", what, a, here.Node, b, there.Node)}
			// The configuration is one and the same: who runs with an earlier one says so.
			for _, old := range []Facts{here, there} {
				if has(old, trouble.ConfigPending) {
					f.Host, f.Fix = old.Node, []string{"systemctl restart tulled"}
				}
			}
			if len(f.Fix) == 0 {
				f.Remedy = "Restart tulled on both hosts: they do not go by one configuration."
			}
			all = append(all, f)
		}
	}
	a, b := here.Networks(), there.Networks()
	if len(a) != 1 || len(b) != 1 {
		return nil
	}
	differ("the backend", a[0].Backend, b[0].Backend)
	x, y := tunnels(here), tunnels(there)
	if len(x) > 0 && len(y) > 0 {
		differ("the VNI", each(x, func(l Link) int { return int(l.VNI) }), each(y, func(l Link) int { return int(l.VNI) }))
		differ("the UDP port of the tunnel", each(x, func(l Link) int { return int(l.UDPPort) }), each(y, func(l Link) int { return int(l.UDPPort) }))
	}
	return all
}

// each lists what the links have, once each: the devices of both families have the same.
func each(links []Link, of func(Link) int) string {
	var all []int
	for _, l := range links {
		all = append(all, of(l))
	}
	slices.Sort(all)
	return strings.Trim(fmt.Sprint(slices.Compact(all)), "[]")
}

// tunnels are the VXLAN devices that there are, one in each family: one of an earlier configuration may be known and gone.
func tunnels(f Facts) []Link {
	return slices.DeleteFunc(f.LinksAs(RoleTunnel), func(l Link) bool { return l.Missing || l.Kind != "vxlan" })
}

func has(f Facts, code trouble.Code) bool {
	return f.Status != nil && slices.ContainsFunc(f.Status.Troubles, func(t trouble.Trouble) bool { return t.Code == code })
}

// misannounced compares where a host has others send with the addresses that it has.
func misannounced(here, there Facts, _ Case) (all []Finding) {
	for _, pair := range [][2]Facts{{here, there}, {there, here}} {
		of, by := pair[0], pair[1]
		up := of.Uplink()
		if up == nil || by.Toward == nil || answered(by.Toward.Ways, "underlay") {
			continue
		}
		for _, public := range by.Toward.Public {
			if slices.Contains(up.Addrs, public) || slices.ContainsFunc(of.Links, func(l Link) bool {
				return slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == public })
			}) {
				continue
			}
			all = append(all, Finding{
				Host: of.Node, Subject: public.String(), Sure: Likely,
				Text:   fmt.Sprintf("it has others send to %s, which no interface of it has that is used here: right only where a NAT hands that on", public),
				Remedy: "Give tulled the right --public-ip (--public-ipv6), or --iface.",
			})
		}
	}
	return all
}

// answered reports whether questions by a way have been answered of late in any family.
func answered(ways []Way, way string) bool {
	return slices.ContainsFunc(ways, func(w Way) bool { return w.Way == way && (w.State == "well" || w.State == "narrow") })
}

// strangeNeighbor compares what a host takes for the other's MAC on the underlay with the one that it has.
func strangeNeighbor(here, there Facts, _ Case) (all []Finding) {
	for _, pair := range [][2]Facts{{here, there}, {there, here}} {
		by, of := pair[0], pair[1]
		t := by.Toward
		if t == nil || t.Underlay == nil || t.Underlay.Via.IsValid() || t.Next == nil || t.Next.MAC == "" {
			continue
		}
		for _, up := range of.LinksAs(RoleUplink) {
			if up.MAC == "" || up.MAC == t.Next.MAC || !slices.ContainsFunc(up.Addrs, func(p netip.Prefix) bool { return p.Addr() == t.Next.Addr }) {
				continue
			}
			f := Finding{
				Host: by.Node, Subject: t.Next.Addr.String(),
				Text: fmt.Sprintf("it takes %s for the MAC of %s, which has %s (neighbour of %s, %s)", t.Next.MAC, t.Next.Addr, up.MAC, t.Next.Link, strings.ToLower(t.Next.State)),
				Fix:  []string{fmt.Sprintf("ip neigh del %s dev %s", t.Next.Addr, ip.ShellWord(t.Next.Link))},
				Undo: []string{fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", t.Next.Addr, t.Next.MAC, ip.ShellWord(t.Next.Link))},
			}
			if t.Next.State != "PERMANENT" { // nobody has set it: another machine has the address too
				f.Sure, f.Undo = Likely, nil
			}
			all = append(all, f)
		}
	}
	return all
}

// strayStation compares where a tunnel's device sends frames for the other host with the addresses that the other has.
func strayStation(here, there Facts, _ Case) (all []Finding) {
	for _, pair := range [][2]Facts{{here, there}, {there, here}} {
		by, of := pair[0], pair[1]
		up := of.Uplink()
		if t := by.Toward; t != nil && t.Station != nil && up != nil && !slices.Contains(up.Public, t.Station.Dst) && !slices.Contains(up.Addrs, t.Station.Dst) {
			all = append(all, Finding{
				Host: by.Node, Subject: t.Station.Dst.String(),
				Text:   fmt.Sprintf("its tunnel sends frames for %s to %s, which is none of the addresses of %s", t.Addr, t.Station.Dst, of.Node),
				Remedy: "tulled puts that right where it runs and has the view of the store: tulle plan shows what it would do.",
			})
		}
	}
	return all
}

// pathCut tells of two hosts that live and do not hear each other at all.
func pathCut(here, there Facts, c Case) (all []Finding) {
	family := cutFamily(here, there)
	if family == "" {
		return nil
	}
	return []Finding{{
		Host: here.Node, Subject: there.Node, Sure: Likely,
		Text:   fmt.Sprintf("nothing arrives between %s and %s over %s, which both live: neither says why, so it is lost on the way", where(here), where(there), family),
		Remedy: "Look at what lies between: cables, switches, routes of the routers, firewalls. Each host answers the other on UDP port 8473.",
	}}
}

// cutFamily is the first family in which both hosts, or the one that asks, get no answers over the underlay.
func cutFamily(here, there Facts) string {
	for _, family := range []string{"ipv4", "ipv6"} {
		a, b := stateOf(here, family, "underlay"), stateOf(there, family, "underlay")
		if a == "unreachable" && (b == "unreachable" || b == "") || b == "unreachable" && a == "" {
			return family
		}
	}
	return ""
}

// stateOf is what a host's probes say of one way; empty if it does not ask.
func stateOf(f Facts, family, way string) string {
	if f.Toward == nil {
		return ""
	}
	for _, w := range f.Toward.Ways {
		if w.Way == way && strings.EqualFold(w.Family, family) {
			return w.State
		}
	}
	return ""
}

// refusal is why a host's own kernel does not send questions through the network; empty if it does.
func refusal(f Facts, family string) string {
	for _, w := range f.Toward.Ways {
		if w.Way == "fabric" && strings.EqualFold(w.Family, family) {
			return w.Reason
		}
	}
	return ""
}

// pathFiltered tells of packets that are dropped between two hosts though others arrive.
func pathFiltered(here, there Facts, _ Case) (all []Finding) {
	for _, family := range []string{"ipv4", "ipv6"} {
		var deaf []Facts // who gets no answers that packets of the other show to be possible
		over := 0
		var refused []Finding
		for _, pair := range [][2]Facts{{here, there}, {there, here}} {
			of, other := pair[0], pair[1]
			under, through := stateOf(of, family, "underlay"), stateOf(of, family, "fabric")
			if through == "unreachable" && (under == "well" || under == "narrow") {
				over++
				if why := refusal(of, family); why != "" {
					refused = append(refused, Finding{
						Host: of.Node, Subject: other.Node, Sure: Likely,
						Text:   fmt.Sprintf("its kernel refuses what it sends to %s through the network over %s: %s", where(other), family, why),
						Remedy: "Look on " + of.Node + " for what refuses it: nft list ruleset, ip rule, and ip xfrm policy.",
					})
				}
			}
			if back := stateOf(other, family, "underlay"); under == "unreachable" && (back == "well" || back == "narrow") {
				deaf = append(deaf, of)
			}
		}
		switch {
		case len(refused) > 0:
			all = append(all, refused...)
		case over > 0:
			all = append(all, Finding{
				Host: here.Node, Subject: there.Node, Sure: Likely,
				Text: fmt.Sprintf("what is tunnelled does not arrive between %s and %s over %s, and packets outside of the tunnel do: %s is dropped one way or both, by a filter that neither host's tulled names, or by what lies between",
					where(here), where(there), family, carrier(here)),
				Remedy: "Let " + carrier(here) + " through in both directions: in security groups, in firewalls between the hosts, and in filters of the hosts below the IP stack.",
			})
		case len(deaf) == 1:
			other := here
			if deaf[0].Node == here.Node {
				other = there
			}
			all = append(all, Finding{
				Host: other.Node, Subject: deaf[0].Node, Sure: Likely,
				Text:   fmt.Sprintf("questions of %s over %s are lost, and those of %s are answered: a filter drops what %s begins", where(deaf[0]), family, where(other), deaf[0].Node),
				Remedy: "Look at the filters of " + other.Node + " for what drops UDP to port 8473, and at firewalls between that know connections.",
			})
		}
	}
	return all
}

// where names a host with the address that others send to.
func where(f Facts) string {
	if up := f.Uplink(); up != nil && len(up.Public) > 0 {
		return fmt.Sprintf("%s (%s)", f.Node, up.Public[0])
	}
	return f.Node
}

// carrier is what tunnelled packets travel in.
func carrier(f Facts) string {
	for _, l := range f.LinksAs(RoleTunnel) {
		if l.Kind == "vxlan" && l.UDPPort != 0 {
			return fmt.Sprintf("UDP port %d", l.UDPPort)
		}
		if l.Kind == "ipip" {
			return "IP protocol 4"
		}
	}
	return "the network's own traffic"
}

// clockApart compares the clocks of two hosts.
func clockApart(here, there Facts, _ Case) []Finding {
	ahead := there.Clock.Sub(here.Clock)
	if here.Clock.IsZero() || there.Clock.IsZero() || ahead.Abs() < apart {
		return nil
	}
	how := "ahead of"
	if ahead < 0 {
		how = "behind"
	}
	return []Finding{{
		Host: there.Node, Subject: here.Node, Sure: Likely,
		Text: fmt.Sprintf("its clock is %v %s that of %s: one of them is wrong", ahead.Abs().Round(time.Second), how, here.Node),
	}}
}

// versionsDiffer compares the versions of two tulleds.
func versionsDiffer(here, there Facts, _ Case) []Finding {
	if here.Status == nil || there.Status == nil || here.Status.Version == there.Status.Version {
		return nil
	}
	return []Finding{{
		Host: there.Node, Subject: here.Node,
		Text: fmt.Sprintf("it runs tulled %.40q, and %s runs %.40q", there.Status.Version, here.Node, here.Status.Version),
	}}
}
