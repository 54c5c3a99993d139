package fabric

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

const (
	askMost    = 1000             // packets that the kernel is asked about at once
	askAll     = 30 * time.Second // after this, or a change, about those to all peers
	askPause   = time.Second
	askShare   = 400  // asking may take up one part in this many of the time after a change
	askAtRest  = 1000 // and this without one: what the kernel does changes by routes and rules alone, nearly
	strayNamed = 8
)

// pathCheck is whether the kernel sends packets to peers where they should go: what is wanted is in the kernel, and something else may come before it
// (docs/adr/0041-what-the-kernel-would-do.md).
type pathCheck struct {
	current bool // the kernel has what is wanted
	peers   []routedPeer
	from    ip.Dual[origin]
	uplink  string
	others  ip.Others

	next, left int       // of the peers: who is asked about next, and about how many it is to be
	suspect    int       // of what others name: the one that is asked about next
	unasked    int       // of what others name: how many are still to be asked about
	begun      time.Time // when it was about all
	hurried    bool      // because of a change
	took       time.Duration
	astray     map[packet]ip.Answer
}

// origin is where packets come from, and where answers go.
type origin struct {
	bridges []bridge
	own     netip.Addr // of the host in its subnet, if it has one
	uplink  netip.Addr // zero: it does not matter by which interface packets leave
}

// bridge is one that holds a part of the lease, with an address that a container behind it might have.
type bridge struct {
	name      string
	container netip.Addr
	prefix    netip.Prefix
}

// packet is one to or from a peer.
type packet struct {
	subnet netip.Prefix // of the peer
	peer   netip.Addr   // of a container there, or of the host itself
	way    way
	bridge bridge // of the container here; zero: it is the host's own
}

// way is which way a packet goes.
type way uint8

const (
	toContainer way = iota // of a peer
	toHost                 // what carries such packets, or their answers
	fromContainer
)

// originOf finds out where packets of a family come from. Of two bridges with the same addresses the second is told as shared.
func originOf(v facts, f ip.Family, network netip.Prefix) origin {
	var o origin
	lease := v.self.Subnets.Of(f)
	for _, i := range v.snap.Interfaces {
		for _, a := range i.Addrs {
			addr := a.Prefix.Addr()
			if i.Name == v.uplink.Link && addr == v.uplink.Addr.Of(f) && !i.Loopback && !a.Prefix.IsSingleIP() {
				o.uplink = addr // an address that is routed to this host may be reached by any interface
			}
			if i.Loopback || i.Name == v.uplink.Link || !lease.Contains(addr) {
				continue
			}
			if len(o.bridges) == 0 {
				o.own = addr
			}
			if v.host.Owns(i.Name) || !i.Up || i.NoCarrier || a.Prefix.IsSingleIP() || a.Prefix.Bits() < network.Bits() ||
				slices.ContainsFunc(o.bridges, func(b bridge) bool { return b.prefix.Overlaps(a.Prefix) }) {
				continue
			}
			if container := containerOf(v, a.Prefix); container.IsValid() {
				o.bridges = append(o.bridges, bridge{i.Name, container, a.Prefix})
			}
		}
	}
	return o
}

func (o origin) equal(p origin) bool {
	return slices.Equal(o.bridges, p.bridges) && o.own == p.own && o.uplink == p.uplink
}

// containerOf returns an address of a subnet that a container might have.
func containerOf(v facts, p netip.Prefix) netip.Addr {
	last := ip.Last(p)
	for addr := p.Masked().Addr().Next(); addr.Less(last); addr = addr.Next() {
		if !v.host.Own[addr] {
			return addr
		}
	}
	return netip.Addr{}
}

// update takes in what a pass found: the kernel has what is wanted.
func (c *pathCheck) update(v facts, peers []routedPeer, n subnet.Network) {
	var from ip.Dual[origin]
	for _, f := range n.Families() {
		from.Set(f, originOf(v, f, n.Pools.Of(f).Network))
	}
	changed := !from.V4.equal(c.from.V4) || !from.V6.equal(c.from.V6) || v.uplink.Link != c.uplink || v.snap.Others.Sum != c.others.Sum || len(c.peers) == 0 // those that are added later are asked about at once
	c.from, c.uplink, c.others, c.peers, c.current = from, v.uplink.Link, v.snap.Others, peers, true
	c.unasked = len(c.others.Into)
	if changed || time.Since(c.begun) >= askAll && c.left == 0 {
		c.left, c.begun, c.hurried = len(peers), time.Now(), changed
	}
}

// question is what the kernel is asked about a packet. Tulle's route to the peer is also the one back.
func (c *pathCheck) question(p packet, want ip.Route) ip.Question {
	o := c.from.Of(ip.FamilyOf(p.peer))
	switch {
	case p.way == toHost:
		return ip.Question{Dst: p.peer, Src: o.uplink}
	case p.way == fromContainer:
		return ip.Question{Dst: p.bridge.container, Src: p.peer, In: want.Link}
	case p.bridge.name != "":
		return ip.Question{Dst: p.peer, Src: p.bridge.container, In: p.bridge.name}
	}
	return ip.Question{Dst: p.peer, Src: o.own}
}

// right reports whether an answer is what is wanted.
func (c *pathCheck) right(p packet, a ip.Answer, want ip.Route) bool {
	switch {
	case a.Kind == "":
		return true
	case p.way == toHost: // who has no route to a peer is told so by the backend, if that matters to it
		return a.Kind == ip.Local || a.Kind == ip.Unrouted || a.Kind == ip.Unicast && a.Link == c.uplink && (a.Also.Link == "" || a.Also.Link == c.uplink)
	case p.way == fromContainer: // a container beside the bridge has a link and a route of its own
		return a.Kind == ip.Local || a.Kind == ip.Unicast && !a.Gateway.IsValid() && a.Also.Link == "" &&
			(a.Link == p.bridge.name || a.Single && a.Link != want.Link && a.Link != c.uplink)
	}
	return a.Kind == ip.Unicast && a.Link == want.Link && a.Gateway == want.Via && a.Also.Link == ""
}

// ask asks about packets and takes note of those that go astray. It returns how many no longer do.
func (c *pathCheck) ask(ctx context.Context, kernel ip.Kernel, want ip.State, packets []packet) (mended int, err error) {
	began := time.Now()
	defer func() { c.took = time.Since(began) }()
	questions := make([]ip.Question, len(packets))
	for i, p := range packets {
		r, _ := routeTo(want, p.subnet)
		questions[i] = c.question(p, r)
	}
	answers, err := kernel.Lookup(ctx, questions)
	if err != nil {
		return 0, err
	}
	for i, p := range packets {
		_, was := c.astray[p]
		switch r, ok := routeTo(want, p.subnet); {
		case !ok || c.right(p, answers[i], r):
			delete(c.astray, p)
			if was {
				mended++
			}
		case c.astray == nil:
			c.astray = map[packet]ip.Answer{p: answers[i]}
		default:
			c.astray[p] = answers[i]
		}
	}
	return mended, nil
}

// routeTo finds the wanted route to a subnet, or the one that an address is in. What is wanted must be sorted, and its routes lie apart.
func routeTo(want ip.State, p netip.Prefix) (ip.Route, bool) {
	i, found := slices.BinarySearchFunc(want.Routes, p, func(r ip.Route, p netip.Prefix) int { return ip.ComparePrefix(r.Dst, p) })
	if !found {
		i--
	}
	if i < 0 || !ip.Contains(want.Routes[i].Dst, p) {
		return ip.Route{}, false
	}
	return want.Routes[i], true
}

// inside is an address of a prefix that a container might have.
func inside(p netip.Prefix) netip.Addr {
	if p.IsSingleIP() {
		return p.Addr()
	}
	return p.Masked().Addr().Next()
}

// with lists the packets to and from an address in the subnet of a peer.
func (c *pathCheck) with(subnet netip.Prefix, addr netip.Addr) []packet {
	bridges := c.from.Of(ip.FamilyOf(addr)).bridges
	if len(bridges) == 0 {
		return []packet{{subnet: subnet, peer: addr}}
	}
	var ps []packet
	for _, b := range bridges {
		ps = append(ps, packet{subnet, addr, toContainer, b}, packet{subnet, addr, fromContainer, b})
	}
	return ps
}

// of lists the packets to and from a peer, as far as there is a route to it.
func (c *pathCheck) of(l *subnet.Lease, want ip.State) []packet {
	var ps []packet
	for _, f := range ip.Families() {
		p := l.Subnets.Of(f)
		if r, ok := routeTo(want, p); !ok || r.Dst != p {
			continue
		}
		ps = append(ps, c.with(p, inside(p))...)
		if host := l.Attrs.Public.Of(f); host.IsValid() && c.from.Of(f).uplink.IsValid() {
			ps = append(ps, packet{subnet: p, peer: host, way: toHost})
		}
	}
	return ps
}

// some lists the packets that it is time to ask about.
func (c *pathCheck) some(want ip.State) []packet {
	var ps []packet
	for c.left > 0 && len(ps) < askMost {
		if c.next >= len(c.peers) {
			c.next = 0
		}
		ps = append(ps, c.of(c.peers[c.next].lease, want)...)
		c.next, c.left = c.next+1, c.left-1
	}
	return ps
}

// suspects lists packets to the subnets of peers that another route or rule names: as many as may be asked about at once, and later the others.
func (c *pathCheck) suspects(want ip.State) []packet {
	var ps []packet
	for ; c.unasked > 0 && len(ps) < askMost; c.unasked-- {
		c.suspect = (c.suspect + 1) % len(c.others.Into)
		p := c.others.Into[c.suspect]
		if r, ok := routeTo(want, p); ok {
			ps = append(ps, c.with(r.Dst, inside(p))...)
		}
	}
	return ps
}

// review asks again about what went astray, for as long as it has changed, and forgets what is no longer to be sent.
func (c *pathCheck) review(ctx context.Context, kernel ip.Kernel, want ip.State) error {
	if len(c.astray) == 0 {
		return nil
	}
	known := map[packet]bool{}
	for _, peer := range c.peers {
		for _, p := range c.of(peer.lease, want) {
			known[p] = true
		}
	}
	var ps []packet
	for p := range c.astray {
		_, routed := routeTo(want, p.subnet)
		if !known[p] && (p.way == toHost || !routed || !slices.Contains(c.with(p.subnet, p.peer), p)) {
			delete(c.astray, p)
			continue
		}
		ps = append(ps, p)
	}
	for some := range slices.Chunk(ps, askMost) {
		mended, err := c.ask(ctx, kernel, want, some)
		if err != nil {
			return err
		}
		if mended == 0 {
			break
		}
	}
	return nil
}

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
	} {
		var last netip.Prefix
		peers := 0
		for _, p := range all {
			if p.way != kind.way || p.subnet == last {
				continue
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
	if w == fromContainer {
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

func ipCommand(f ip.Family) string {
	if f == ip.IPv6 {
		return "ip -6"
	}
	return "ip"
}

// finding are the commands that find what comes before Tulle's route.
func finding(f ip.Family, src, dst netip.Addr, in string) string {
	command := ipCommand(f)
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

func (c *pathCheck) diverted(p packet, a ip.Answer, _ ip.Route) error {
	f := ip.FamilyOf(p.peer)
	command, uplink, source := ipCommand(f), ip.ShellWord(c.uplink), c.from.Of(f).uplink
	text := fmt.Sprintf("packets from %s to %s, the host of %s, %s, and should leave by the uplink %s: take away the route or policy rule that comes first (%s route show table all match %s, and %s rule), "+
		"or have a table with a route over %s be asked before (%s rule add from %s lookup TABLE)", source, p.peer, p.subnet, becomes(a, f, ""), uplink, command, p.peer, command, uplink, command, source)
	if a.Kind == ip.Unicast && a.Also.Link == "" {
		text += ", or start tulled with --iface " + ip.ShellWord(a.Link)
	}
	return errors.New(text)
}

// Ask asks the kernel where it sends packets to peers, after a look that found nothing to do: about those that went astray, those that others'
// routes and rules name, and some more. On a cached view what leads to peers may be from a newer one, and stays.
func (p *Pass) Ask(ctx context.Context, kernel ip.Kernel) error {
	if p.set.cached {
		return nil
	}
	c := &p.fabric.pathCheck
	c.update(p.facts, p.Status.peers, *p.fabric.network)
	if err := c.review(ctx, kernel, p.Want); err != nil {
		return err
	}
	ps := append(c.suspects(p.Want), c.some(p.Want)...)
	if _, err := c.ask(ctx, kernel, p.Want, ps); err != nil {
		return err
	}
	p.astray = c.errors(p.Want, p.fabric.cfg.Keys.Leases)
	return nil
}

// Ask asks where the packets to peers that were added go. It returns false if one goes astray, or may no longer: a full pass will tell.
func (c *Change) Ask(ctx context.Context, kernel ip.Kernel) bool {
	cs := &c.fabric.pathCheck
	if len(cs.astray) > 0 {
		return false
	}
	var ps []packet
	for _, l := range c.diff.added {
		ps = append(ps, cs.of(l, c.Want)...)
	}
	_, err := cs.ask(ctx, kernel, c.Want, ps)
	cs.current, cs.peers, cs.left = true, c.baseline.peers, min(cs.left, len(c.baseline.peers))
	return err == nil && len(cs.astray) == 0
}

// CheckIn is for how long there is nothing to ask; zero if there is nothing at all before the next pass.
func (f *Fabric) CheckIn() time.Duration {
	c := &f.pathCheck
	switch {
	case !c.current || c.left == 0 && c.unasked == 0:
		return 0
	case c.hurried || c.unasked > 0:
		return max(askPause, askShare*c.took)
	}
	return max(askPause, askAtRest*c.took)
}

// Check asks about some more packets, between passes. It returns true if a full pass has something to tell.
func (f *Fabric) Check(ctx context.Context, kernel ip.Kernel) bool {
	c := &f.pathCheck
	if !c.current {
		return false
	}
	ps := append(c.suspects(f.wanted), c.some(f.wanted)...)
	if len(ps) == 0 {
		return false
	}
	before := len(c.astray)
	_, err := c.ask(ctx, kernel, f.wanted, ps)
	return err != nil || before == 0 && len(c.astray) > 0
}
