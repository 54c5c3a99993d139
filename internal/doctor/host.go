package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tulle/internal/trouble"
	"tulle/ip"
)

// nearly is from which share of a table on, in percent, it counts as full.
const nearly = 95

func daemonStopped(f Facts) []Finding {
	switch {
	case f.Daemon.Hangs:
		return []Finding{{
			Text: "tulled runs and does not answer: packets go on as they do, and nothing is mended (" + f.Daemon.Err + ")",
			Fix:  []string{"systemctl restart tulled"},
		}}
	case f.Daemon.Running || f.Daemon.Err == "" || unread(f, PartStatus):
		return nil
	case f.Last == nil:
		return []Finding{{
			Text: "tulled does not run, and has left nothing here: this host is in no network, or tulled keeps its files elsewhere",
			Fix:  []string{"systemctl start tulled"}, Undo: []string{"systemctl stop tulled"},
		}}
	}
	return []Finding{{
		Text: "tulled does not run: packets go on as they did, hosts that come and go are not followed, and the lease ends within a day",
		Fix:  []string{"systemctl start tulled"}, Undo: []string{"systemctl stop tulled"}, Safe: true,
	}}
}

func unread(f Facts, part Part) bool {
	return slices.ContainsFunc(f.Unread, func(u Unread) bool { return u.Part == part })
}

// up are the commands that set a link up, and down again.
func up(name string) (fix, undo []string) {
	return []string{"ip link set dev " + ip.ShellWord(name) + " up"}, []string{"ip link set dev " + ip.ShellWord(name) + " down"}
}

func uplinkDown(f Facts) (all []Finding) {
	for _, l := range f.LinksAs(RoleUplink) {
		switch {
		case l.Missing:
			all = append(all, Finding{Subject: l.Name, Text: l.Name + ", by which this host reaches others, is gone"})
		case !l.Up:
			one := Finding{Subject: l.Name, Text: l.Name + ", by which this host reaches others, is down", Safe: true}
			one.Fix, one.Undo = up(l.Name)
			all = append(all, one)
		case l.NoCarrier:
			all = append(all, Finding{Subject: l.Name, Text: l.Name + ", by which this host reaches others, has no carrier", Remedy: "See to the cable, or to the port at its other end."})
		}
	}
	return all
}

func tunnelDown(f Facts) (all []Finding) {
	for _, l := range f.LinksAs(RoleTunnel) {
		if !l.Missing && l.Up {
			continue
		}
		what := " is down"
		if l.Missing {
			what = " is gone"
		}
		one := Finding{Subject: l.Name, Text: "the tunnel's device " + l.Name + what + ": containers reach no other host", Fix: []string{"systemctl restart tulled"}}
		if !f.Daemon.Running {
			one.Fix = []string{"systemctl start tulled"}
		}
		all = append(all, one)
	}
	return all
}

func bridgeDown(f Facts) (all []Finding) {
	for _, l := range f.LinksAs(RoleBridge) {
		if l.Up {
			continue
		}
		one := Finding{Subject: l.Name, Text: l.Name + " is down: its containers reach nobody", Safe: true}
		one.Fix, one.Undo = up(l.Name)
		for _, gateway := range f.lacking(l) {
			one.Fix = append(one.Fix, addAddress(gateway, l.Name)) // the kernel takes IPv6 addresses from a link that goes down
		}
		all = append(all, one)
	}
	return all
}

func bridgeUnaddressed(f Facts) (all []Finding) {
	for _, l := range f.LinksAs(RoleBridge) {
		for _, gateway := range f.lacking(l) {
			if network := f.narrow(l, gateway); network > 0 {
				all = append(all, Finding{
					Subject: l.Name, Text: fmt.Sprintf("%s lacks %s, by which its containers reach others: its MTU of %d is less than the %d bytes that IPv6 needs", l.Name, gateway, l.MTU, leastMTU),
					Fix:  []string{fmt.Sprintf("ip link set dev %s mtu %d", ip.ShellWord(l.Name), network), addAddress(gateway, l.Name)},
					Undo: []string{fmt.Sprintf("ip link set dev %s mtu %d", ip.ShellWord(l.Name), l.MTU)}, Safe: l.Up,
				})
				continue
			}
			all = append(all, Finding{
				Subject: l.Name, Text: fmt.Sprintf("%s lacks %s, by which its containers reach others", l.Name, gateway),
				Fix:  []string{addAddress(gateway, l.Name)},
				Undo: []string{fmt.Sprintf("ip address del %s dev %s", gateway, ip.ShellWord(l.Name))}, Safe: l.Up,
			})
		}
	}
	return all
}

// leastMTU is of a link with IPv6, in bytes (RFC 8200, section 5).
const leastMTU = 1280

// narrow is the MTU that a bridge has to have for an address that it cannot take; 0 if it can.
func (f Facts) narrow(bridge Link, gateway netip.Prefix) int {
	if gateway.Addr().Is4() || bridge.MTU == 0 || bridge.MTU >= leastMTU {
		return 0
	}
	most := leastMTU
	for _, n := range f.Networks() {
		most = max(most, n.MTU)
	}
	return most
}

func addAddress(p netip.Prefix, link string) string {
	text := fmt.Sprintf("ip address replace %s dev %s", p, ip.ShellWord(link))
	if p.Addr().Is6() {
		text += " nodad"
	}
	return text
}

// lacking lists the gateways that a bridge should have: its containers have routes by them, or it has the one of the other family.
func (f Facts) lacking(bridge Link) (gateways []netip.Prefix) {
	holds := func(gateway netip.Prefix) bool { return slices.Contains(bridge.Addrs, gateway) }
	for _, n := range f.Networks() {
		for _, s := range n.Subnets {
			gateway := netip.PrefixFrom(s.Masked().Addr().Next(), s.Bits())
			used := slices.ContainsFunc(f.All(), func(c Container) bool {
				return c.Bridge == bridge.Name && slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Via == gateway.Addr() })
			})
			other := slices.ContainsFunc(n.Subnets, func(o netip.Prefix) bool {
				return o != s && holds(netip.PrefixFrom(o.Masked().Addr().Next(), o.Bits()))
			})
			held := slices.ContainsFunc(f.LinksAs(RoleBridge), func(l Link) bool {
				return slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool { return s.Contains(a.Addr()) })
			})
			if !holds(gateway) && !held && (used || other) {
				gateways = append(gateways, gateway)
			}
		}
	}
	return gateways
}

// set is a finding about a setting, with the command for its want.
func set(key, value, want string) (fix, undo []string) {
	return []string{"sysctl -w " + ip.ShellWord(key) + "=" + ip.ShellWord(want)}, []string{"sysctl -w " + ip.ShellWord(key) + "=" + ip.ShellWord(value)}
}

func forwardOff(f Facts) (all []Finding) {
	for _, s := range f.Settings {
		if s.Want == "" || s.Value == s.Want {
			continue
		}
		what := "this host forwards no packets"
		if s.Link != "" {
			what = "this host forwards no packets that come in by " + s.Link
		}
		one := Finding{Subject: s.Key, Text: fmt.Sprintf("%s: %s is %s", what, s.Key, s.Value), Safe: true}
		one.Fix, one.Undo = set(s.Key, s.Value, s.Want)
		all = append(all, one)
	}
	return all
}

func conntrackFull(f Facts) []Finding {
	level := f.Fill.Conntrack
	if level == nil {
		return nil
	}
	rise, _ := f.Rise("conntrack.drop")
	early, _ := f.Rise("conntrack.early_drop")
	one := Finding{Subject: "net/netfilter/nf_conntrack_max", Safe: true}
	switch {
	case level.Max > 0 && level.Count >= level.Max:
		one.Text = fmt.Sprintf("all %d entries for tracked connections are in use: new connections are dropped", level.Max)
	case rise+early > 0:
		one.Text = fmt.Sprintf("connections are dropped for want of room: %d in a moment, with %d of %d entries in use", rise+early, level.Count, level.Max)
	case level.Max > 0 && level.Count*100 >= level.Max*nearly:
		one.Text, one.Severity = fmt.Sprintf("%d of %d entries for tracked connections are in use: soon new connections are dropped", level.Count, level.Max), trouble.Warning
	default:
		return nil
	}
	one.Fix, one.Undo = set(one.Subject, fmt.Sprint(level.Max), fmt.Sprint(2*level.Max))
	return []Finding{one}
}

func neighborsFull(f Facts) (all []Finding) {
	for _, family := range ip.Families() {
		level := f.Fill.Neighbors.Of(family)
		if level == nil || level.Max == 0 {
			continue
		}
		rise, _ := f.Rise("neighbors." + family.String() + ".full")
		if rise == 0 && level.Count*100 < level.Max*nearly {
			continue
		}
		key := fmt.Sprintf("net/%s/neigh/default/gc_thresh3", family)
		one := Finding{Subject: key, Text: fmt.Sprintf("%d of %d entries for %s neighbours are in use: packets to new ones are dropped", level.Count, level.Max, family), Safe: true}
		if rise == 0 && level.Count < level.Max {
			one.Severity = trouble.Warning
		}
		one.Fix, one.Undo = set(key, fmt.Sprint(level.Max), fmt.Sprint(2*level.Max))
		all = append(all, one)
	}
	return all
}

// strict is the value of rp_filter at which a packet is dropped that comes in by another link than answers would leave by (ip-sysctl).
const strict = "1"

func reverseFiltered(f Facts) (all []Finding) {
	rise, dropped := f.Rise("TcpExt.IPReversePathFilter")
	astray := f.Status != nil && slices.ContainsFunc(f.Status.Troubles, func(t trouble.Trouble) bool {
		return t.Code == trouble.PeerUnreachable || t.Code == trouble.UplinkDiverted && strings.Contains(t.Text, "rp_filter")
	})
	if rise == 0 && (dropped == 0 || !astray) {
		return nil
	}
	everywhere := slices.ContainsFunc(f.Settings, func(s Setting) bool { return s.Key == "net/ipv4/conf/all/rp_filter" && s.Value == strict })
	for _, s := range f.Settings {
		// Of a link's value and that of all the larger counts.
		if s.Link == "" || !strings.HasSuffix(s.Key, "/rp_filter") || s.Value != strict && (!everywhere || s.Value == "2") {
			continue
		}
		one := Finding{Subject: s.Key, Sure: Likely, Safe: true}
		if !astray {
			one.Severity = trouble.Warning // a stray packet is dropped so, too
		}
		one.Text = fmt.Sprintf("%s filters strictly what comes in, and packets were dropped so (%d since the start, %d in a moment)", s.Link, dropped, rise)
		one.Fix, one.Undo = set(s.Key, s.Value, "2")
		all = append(all, one)
	}
	return all
}

func reassemblyFailing(f Facts) (all []Finding) {
	for _, family := range []struct{ name, fails, asked string }{{"IPv4", "Ip.ReasmFails", "Ip.ReasmReqds"}, {"IPv6", "Ip6ReasmFails", "Ip6ReasmReqds"}} {
		rise, fails := f.Rise(family.fails)
		asking, asked := f.Rise(family.asked)
		if rise*100 < asking {
			rise = 0 // some get lost anywhere
		}
		narrow := f.Status != nil && slices.ContainsFunc(f.Status.Troubles, func(t trouble.Trouble) bool { return t.Code == trouble.PeerNarrow })
		if rise == 0 && (!narrow || fails < 10 || fails*10 < asked) {
			continue
		}
		one := Finding{Subject: family.fails, Text: fmt.Sprintf("fragments of %s packets do not all arrive: %d packets could not be put together since the start, %d in a moment", family.name, fails, rise)}
		if rise == 0 {
			one.Sure = Likely
		}
		all = append(all, one)
	}
	return all
}

func clockSkewed(f Facts) []Finding {
	if f.Status == nil {
		return nil
	}
	for _, t := range f.Status.Troubles {
		if t.Code != trouble.StoreUnreachable && t.Code != trouble.StoreWaiting && t.Code != trouble.LeaseUnavailable || !strings.Contains(t.Text, "expired or is not yet valid") {
			continue
		}
		one := Finding{Sure: Likely, Text: fmt.Sprintf("by the clock of this host, which says %s, a certificate is not valid: %s", f.Clock.Format("2006-01-02 15:04 MST"), t.Text)}
		if end := f.Status.Certificate; !end.IsZero() && f.Clock.After(end) {
			one.Text = fmt.Sprintf("tulled's certificate ended on %s, or the clock of this host, which says %s, is wrong", end.Format("2006-01-02 15:04 MST"), f.Clock.Format("2006-01-02 15:04 MST"))
		}
		return []Finding{one}
	}
	return nil
}

func resolverInside(f Facts) (all []Finding) {
	outside := slices.ContainsFunc(f.Resolvers, func(r netip.Addr) bool { return !f.inNetworks(r) })
	for _, r := range f.Resolvers {
		if !f.inNetworks(r) {
			continue
		}
		one := Finding{Subject: r.String(), Sure: Likely, Text: fmt.Sprintf("the resolver %s is in the containers' network: what this host asks it goes to containers, and to nobody while those are not reached", r)}
		if outside {
			one.Remedy = fmt.Sprintf("Take nameserver %s out of /etc/resolv.conf, where others stand: in the file itself, or in what writes it.", r)
		}
		all = append(all, one)
	}
	return all
}

func (f Facts) inNetworks(a netip.Addr) bool {
	return slices.ContainsFunc(f.Networks(), func(n Network) bool {
		return slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}
