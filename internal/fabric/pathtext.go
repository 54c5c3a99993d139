package fabric

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

const strayNamed = 8 // peers whose packets go astray, and the like

// errors tells what goes astray, of some peers by name.
func (c *pathCheck) errors(want ip.State, leases string) error {
	if len(c.astray) == 0 {
		return nil
	}
	var all []packet
	for p := range c.astray {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b packet) int {
		return cmp.Or(ip.ComparePrefix(a.subnet, b.subnet), a.peer.Compare(b.peer), cmp.Compare(a.bridge.name, b.bridge.name))
	})
	keys := map[netip.Prefix]string{}
	for _, p := range c.peers {
		for _, f := range ip.Families() {
			keys[p.lease.Subnets.Of(f)] = leases + subnet.KeyOf(p.lease.Subnets)
		}
	}
	var errs []error
	for _, kind := range []struct {
		code     trouble.Code
		way      way
		describe func(packet, ip.Answer, ip.Route) error
	}{
		{trouble.RouteShadowed, toContainer, shadowed},
		{trouble.RouteShadowed, fromContainer, shadowedBack},
		{trouble.UplinkDiverted, toHost, c.diverted},
		{trouble.UplinkDiverted, fromHost, c.notArriving},
	} {
		var last netip.Prefix
		peers := 0
		for _, p := range all {
			if p.way != kind.way || p.subnet == last {
				continue
			}
			if _, both := c.astray[packet{subnet: p.subnet, peer: p.peer, way: toHost}]; both && p.way == fromHost {
				continue // by the same route, with rp_filter
			}
			last = p.subnet
			if peers++; peers <= strayNamed {
				r, _ := routeTo(want, p.subnet)
				errs = append(errs, trouble.Wrap(kind.code, keys[p.subnet], kind.describe(p, c.astray[p], r)))
			}
		}
		if more := peers - strayNamed; more > 0 {
			errs = append(errs, trouble.Wrap(kind.code, "", fmt.Errorf("and so it is with the packets %s %d more peers", kind.way, more)))
		}
	}
	return errors.Join(errs...)
}

func (w way) String() string {
	if w == fromContainer || w == fromHost {
		return "from"
	}
	return "to"
}

// becomes says what becomes of packets that come in by an interface, or of the host's own. Of the former, IPv4 has two errors that may be for
// other reasons than a route (ip_route_input_slow in net/ipv4/route.c).
func becomes(a ip.Answer, f ip.Family, in string) string {
	switch {
	case a.Kind == ip.Unicast:
		return "go " + a.String()
	case a.Kind == ip.Local:
		return "end on this host"
	case a.Kind == ip.Unrouted:
		return "have no route"
	case a.Kind == ip.Blackhole && in != "" && f == ip.IPv4:
		return "are dropped: blackhole, or rp_filter of " + in + " with the route to their source"
	case a.Kind == ip.Unreachable && in != "" && f == ip.IPv4:
		return "are dropped: unreachable, or forwarding is off on " + in
	}
	return "are dropped: " + string(a.Kind)
}

// finding are the commands that find what comes before Tulle's route.
func finding(f ip.Family, src, dst netip.Addr, in string) string {
	command := f.Command()
	text := fmt.Sprintf("a route or policy rule of another program comes first: find it with %s route show table all match %s, and %s rule", command, dst, command)
	if in != "" {
		text += fmt.Sprintf(", and ask again with %s route get %s from %s iif %s", command, dst, src, ip.ShellWord(in))
	}
	return text
}

func shadowed(p packet, a ip.Answer, want ip.Route) error {
	right := ip.Answer{Path: ip.Path{Link: want.Link, Gateway: want.Via}, Kind: ip.Unicast, Table: ip.MainTable}
	f := ip.FamilyOf(p.peer)
	return fmt.Errorf("packets from containers to %s, in %s of a peer, %s, and should go %s: %s",
		p.peer, p.subnet, becomes(a, f, p.bridge.name), right, finding(f, p.bridge.container, p.peer, p.bridge.name))
}

func shadowedBack(p packet, a ip.Answer, want ip.Route) error {
	f := ip.FamilyOf(p.peer)
	return fmt.Errorf("packets to containers such as %s from %s, in %s of a peer, %s, and should go dev %s: %s",
		p.bridge.container, p.peer, p.subnet, becomes(a, f, want.Link), ip.ShellWord(p.bridge.name), finding(f, p.peer, p.bridge.container, want.Link))
}

// uplinkTable is the routing table that a remedy has made. None in particular: that of nobody else, most likely.
const uplinkTable = 8472

func (c *pathCheck) diverted(p packet, a ip.Answer, _ ip.Route) error {
	f := ip.FamilyOf(p.peer)
	command, uplink, from := f.Command(), ip.ShellWord(c.uplink), c.from.Of(f)
	by := "by the uplink " + uplink
	if from.anyLink {
		by = "this host"
	}
	text := fmt.Sprintf("packets from %s to %s, the host of %s, %s, and should leave %s: ", from.uplink, p.peer, p.subnet, becomes(a, f, ""), by)
	show := fmt.Sprintf("(%s route show table all match %s, and %s rule)", command, p.peer, command)
	way, packets := "", from.uplink.String()
	switch {
	case from.segment.Contains(p.peer):
		way = from.segment.String()
	case from.gateway.IsValid(): // the host's answers to its containers are not to go there
		way, packets = "default via "+from.gateway.String(), packets+" to "+p.peer.String()
	}
	switch {
	case a.Kind == ip.Local: // no rule comes before the table of what is local
		return errors.New(text + "take away the address, or the route of type local, that is the peer's " + show)
	case a.Kind == ip.Unrouted:
		text += "add a route to there, or take away the policy rule or route that is in its place " + show
	default:
		text += "take away the route or policy rule that comes first " + show
	}
	if way != "" {
		text += fmt.Sprintf(", or have a table be asked before that leads there: %s route replace %s dev %s table %d && %s rule add from %s lookup %d",
			command, way, uplink, uplinkTable, command, packets, uplinkTable)
	}
	if a.Kind == ip.Unicast && a.Also.Link == "" {
		text += "; or start tulled with --iface " + ip.ShellWord(a.Link)
	}
	return errors.New(text)
}

func (c *pathCheck) notArriving(p packet, a ip.Answer, _ ip.Route) error {
	f := ip.FamilyOf(p.peer)
	command, uplink, own := f.Command(), ip.ShellWord(c.uplink), c.from.Of(f).uplink
	return fmt.Errorf("packets to %s from %s, the host of %s, as from all, %s, and should end on this host: "+
		"if %s route show table local %s shows nothing, give it back with %s route add local %s dev %s table local; else %s",
		own, p.peer, p.subnet, becomes(a, f, c.uplink), command, own, command, own, uplink, finding(f, p.peer, own, c.uplink))
}
