package fabric

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"tulle/ip"
	"tulle/subnet"
)

const (
	askMost   = 1000             // packets that the kernel is asked about at once
	askAll    = 30 * time.Second // after this, or a change, about those to all peers
	askPause  = time.Second
	askShare  = 400  // asking may take up one part in this many of the time after a change
	askAtRest = 1000 // and this without one: what the kernel does changes by routes and rules alone, nearly
)

// pathCheck is whether the kernel sends packets to peers where they should go: what is wanted is in the kernel, and something else may come before it
// (docs/adr/0041-what-the-kernel-would-do.md).
type pathCheck struct {
	current bool // the kernel has what is wanted
	peers   []routedPeer
	from    ip.Dual[origin]
	uplink  string
	others  ip.Others
	own     map[netip.Addr]bool // addresses of the host
	network subnet.Network

	next, left int       // of the peers: who is asked about next, and about how many it is to be
	suspect    int       // of what others name: the one that is asked about next
	unasked    int       // of what others name: how many are still to be asked about
	begun      time.Time // when it was about all
	hurried    bool      // because of a change
	took       time.Duration
	astray     map[packet]ip.Answer
	warned     bool // that packets may go astray, if there are such

	// Of the last asks, to be used again.
	packets   []packet
	questions []ip.Question
	routes    []ip.Route
}

// origin is where packets come from, and where answers go.
type origin struct {
	bridges []bridge
	links   []string     // all that have an address in the lease
	own     netip.Addr   // of the host in its subnet, if it has one
	uplink  netip.Addr   // of the host, on the uplink
	anyLink bool         // packets may leave by any interface: the address is routed to this host
	segment netip.Prefix // what is reached over the uplink without a gateway
	gateway netip.Addr   // zero: none by the uplink is known
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
	fromHost
)

// originOf finds out where packets of a family come from. Of two bridges with the same addresses the second is told as shared.
func originOf(v facts, f ip.Family, network netip.Prefix) origin {
	var o origin
	lease := v.self.Subnets.Of(f)
	byUplink, byOthers := defaultsOf(v, f)
	for _, i := range v.snap.Interfaces {
		for _, a := range i.Addrs {
			addr := a.Prefix.Addr()
			if i.Name == v.uplink.Link && addr == v.uplink.Addr.Of(f) {
				o.uplink = addr
				if single := a.Prefix.IsSingleIP(); !single {
					o.segment = a.Prefix.Masked()
				} else if i.Loopback || !byUplink || byOthers { // clouds give a host with one interface such an address, too
					o.anyLink = true
				}
			}
			if i.Loopback || i.Name == v.uplink.Link || !lease.Contains(addr) {
				continue
			}
			if len(o.bridges) == 0 {
				o.own = addr
			}
			o.links = append(o.links, i.Name)
			if v.host.Owns(i.Name) || !i.Up || i.NoCarrier || a.Prefix.IsSingleIP() || a.Prefix.Bits() < network.Bits() ||
				slices.ContainsFunc(o.bridges, func(b bridge) bool { return b.prefix.Overlaps(a.Prefix) }) {
				continue
			}
			if container := containerOf(v, a.Prefix); container.IsValid() {
				o.bridges = append(o.bridges, bridge{i.Name, container, a.Prefix})
			}
		}
	}
	if i := slices.IndexFunc(v.snap.Defaults, func(r ip.Route) bool {
		return r.Link == v.uplink.Link && r.Via.IsValid() && ip.FamilyOf(r.Via) == f
	}); i >= 0 {
		o.gateway = v.snap.Defaults[i].Via
	}
	return o
}

// defaultsOf reports whether there is a default route of a family by the uplink, and by another interface.
func defaultsOf(v facts, f ip.Family) (byUplink, byOthers bool) {
	for _, r := range v.snap.Defaults {
		if ip.FamilyOf(r.Dst.Addr()) == f {
			byUplink, byOthers = byUplink || r.Link == v.uplink.Link, byOthers || r.Link != v.uplink.Link
		}
	}
	return byUplink, byOthers
}

func (o origin) equal(p origin) bool {
	return slices.Equal(o.bridges, p.bridges) && slices.Equal(o.links, p.links) && o.own == p.own && o.uplink == p.uplink && o.anyLink == p.anyLink
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

// update takes in what a pass found: the kernel has what is wanted. It returns the peers that are to be asked about at once, beside those whose turn it is: they
// are new.
func (c *pathCheck) update(v facts, peers []routedPeer, n subnet.Network) (come []*subnet.Lease) {
	var from ip.Dual[origin]
	for _, f := range n.Families() {
		from.Set(f, originOf(v, f, n.Pools.Of(f).Network))
	}
	first := len(c.peers) == 0
	changed := first || !from.V4.equal(c.from.V4) || !from.V6.equal(c.from.V6) || v.uplink.Link != c.uplink || v.snap.Others.Sum != c.others.Sum
	come = newcomers(peers, c.peers)
	c.from, c.uplink, c.others, c.peers, c.current = from, v.uplink.Link, v.snap.Others, peers, true
	c.own, c.network, c.unasked = v.host.Own, n, len(c.others.Into)
	if changed = changed || len(come) > askMost; changed {
		come = nil
	}
	if changed || time.Since(c.begun) >= askAll && c.left == 0 {
		c.left, c.begun, c.hurried = len(peers), time.Now(), changed && !first // a start leaves the processor to what else starts
	}
	return come
}

// newcomers lists the peers that are not among those of before. Both are in the order of their subnets.
func newcomers(peers, before []routedPeer) (come []*subnet.Lease) {
	for _, p := range peers {
		for len(before) > 0 && subnet.CompareSubnets(before[0].lease.Subnets, p.lease.Subnets) < 0 {
			before = before[1:]
		}
		if len(before) == 0 || before[0].lease != p.lease {
			come = append(come, p.lease)
		}
	}
	return come
}

// question is what the kernel is asked about a packet. Tulle's route to the peer is also the one back.
func (c *pathCheck) question(p packet, want ip.Route) ip.Question {
	o := c.from.Of(ip.FamilyOf(p.peer))
	switch {
	case p.way == toHost:
		return ip.Question{Dst: p.peer, Src: o.uplink}
	case p.way == fromHost:
		return ip.Question{Dst: o.uplink, Src: p.peer, In: c.uplink}
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
	case p.way == toHost:
		right := func(link string) bool { return link == c.uplink || c.from.Of(ip.FamilyOf(p.peer)).anyLink }
		return a.Kind == ip.Unicast && right(a.Link) && (a.Also.Link == "" || right(a.Also.Link))
	case p.way == fromHost:
		return a.Kind == ip.Local
	case p.way == fromContainer: // a container beside the bridge has a link and a route of its own
		return a.Kind == ip.Local || a.Kind == ip.Unicast && a.Also.Link == "" &&
			(slices.Contains(c.from.Of(ip.FamilyOf(p.peer)).links, a.Link) || a.Single && !a.Gateway.IsValid() && a.Link != want.Link && a.Link != c.uplink)
	}
	return a.Kind == ip.Unicast && a.Link == want.Link && a.Gateway == want.Via && a.Also.Link == ""
}

// ask asks about packets and takes note of those that go astray. It returns how many no longer do.
func (c *pathCheck) ask(ctx context.Context, kernel ip.Kernel, want ip.State, packets []packet) (mended int, err error) {
	began := time.Now()
	defer func() { c.took = time.Since(began) }()
	c.questions, c.routes = c.questions[:0], c.routes[:0]
	for _, p := range packets {
		r, _ := routeTo(want, p.subnet)
		c.questions, c.routes = append(c.questions, c.question(p, r)), append(c.routes, r)
	}
	answers, err := kernel.Lookup(ctx, c.questions)
	if err != nil {
		return 0, err
	}
	if err := c.askFlows(ctx, kernel, packets, c.questions, answers); err != nil {
		return 0, err
	}
	for i, p := range packets {
		_, was := c.astray[p]
		switch r := c.routes[i]; {
		case r == ip.Route{} || c.right(p, answers[i], r):
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

// flowsAsked is how many connections to a peer's host are asked about where a route has several next hops.
const flowsAsked = 8

const udp = 17 // as in /etc/protocols

// askFlows finds out whether packets between hosts really take a next hop that leads away. They have few addresses, by which alone the kernel may choose, and it
// prefers the next hop that has their source (fib_select_multipath in net/ipv4/fib_semantics.c).
func (c *pathCheck) askFlows(ctx context.Context, kernel ip.Kernel, packets []packet, questions []ip.Question, answers []ip.Answer) error {
	var several []int
	var flows []ip.Question
	for i, p := range packets {
		if p.way != toHost || answers[i].Also.Link == "" || c.right(p, answers[i], ip.Route{}) {
			continue
		}
		several = append(several, i)
		for n := range uint16(flowsAsked) {
			q := questions[i]
			q.Taken, q.Protocol, q.SrcPort, q.DstPort = true, udp, 1<<15+n*0x0e37, 8472
			flows = append(flows, q)
		}
	}
	if len(flows) == 0 {
		return nil
	}
	taken, err := kernel.Lookup(ctx, flows)
	if err != nil {
		return err
	}
	for n, i := range several {
		all := taken[n*flowsAsked : (n+1)*flowsAsked]
		if !slices.ContainsFunc(all, func(a ip.Answer) bool { return !c.right(packets[i], a, ip.Route{}) }) {
			answers[i] = all[0]
		}
	}
	return nil
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

// behind finds the bridge that a part of its addresses is named of, with a container there.
func (c *pathCheck) behind(p netip.Prefix) (bridge, bool) {
	if !p.IsValid() {
		return bridge{}, false
	}
	for _, b := range c.from.Of(ip.FamilyOf(p.Addr())).bridges {
		if b.prefix.Bits() < p.Bits() && ip.Contains(b.prefix, p) {
			b.container = inside(p)
			return b, !c.own[b.container]
		}
	}
	return bridge{}, false
}

// with adds the packets between an address in the subnet of a peer and bridges, or the host itself.
func (c *pathCheck) with(ps []packet, subnet netip.Prefix, addr netip.Addr, bridges []bridge) []packet {
	if len(bridges) == 0 {
		return append(ps, packet{subnet: subnet, peer: addr})
	}
	for _, b := range bridges {
		ps = append(ps, packet{subnet, addr, toContainer, b}, packet{subnet, addr, fromContainer, b})
	}
	return ps
}

// of adds the packets to and from a peer, as far as there is a route to it, but those that its host sends.
func (c *pathCheck) of(ps []packet, l *subnet.Lease, want ip.State) []packet {
	for _, f := range ip.Families() {
		p := l.Subnets.Of(f)
		if r, ok := routeTo(want, p); !ok || r.Dst != p {
			continue
		}
		ps = c.with(ps, p, inside(p), c.from.Of(f).bridges)
		if host := l.Attrs.Public.Of(f); host.IsValid() && c.from.Of(f).uplink.IsValid() {
			ps = append(ps, packet{subnet: p, peer: host, way: toHost})
		}
	}
	return ps
}

// fromHostOf lists the packets from the host of a peer. They are for an address of this host, whoever sends them, so that one peer stands for all.
func (c *pathCheck) fromHostOf(l *subnet.Lease, want ip.State) []packet {
	ps := c.of(nil, l, want)
	ps = slices.DeleteFunc(ps, func(p packet) bool { return p.way != toHost || c.from.Of(ip.FamilyOf(p.peer)).anyLink })
	for i := range ps {
		ps[i].way = fromHost
	}
	return ps
}

// some adds the packets that it is time to ask about.
func (c *pathCheck) some(ps []packet, want ip.State) []packet {
	for n := len(ps); c.left > 0 && len(ps) < n+askMost; {
		if c.next >= len(c.peers) {
			c.next = 0
		}
		if len(ps) == n {
			ps = append(ps, c.fromHostOf(c.peers[c.next].lease, want)...)
		}
		ps = c.of(ps, c.peers[c.next].lease, want)
		c.next, c.left = c.next+1, c.left-1
	}
	return ps
}

// suspects adds packets to the subnets of peers that another route or rule names: as many as may be asked about at once, and later the others.
func (c *pathCheck) suspects(ps []packet, want ip.State) []packet {
	for ; c.unasked > 0 && len(ps) < askMost; c.unasked-- {
		c.suspect = (c.suspect + 1) % len(c.others.Into)
		p := c.others.Into[c.suspect]
		if r, ok := routeTo(want, p); ok {
			ps = c.with(ps, r.Dst, inside(p), c.from.Of(ip.FamilyOf(p.Addr())).bridges)
		} else if b, ok := c.behind(p); ok && len(c.peers) > 0 {
			if peer := c.peers[0].lease.Subnets.Of(ip.FamilyOf(p.Addr())); peer.IsValid() {
				ps = append(ps, packet{peer, inside(peer), fromContainer, b})
			}
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
		for _, p := range append(c.of(nil, peer.lease, want), c.fromHostOf(peer.lease, want)...) {
			known[p] = true
		}
	}
	var ps []packet
	for p := range c.astray {
		_, routed := routeTo(want, p.subnet)
		if !known[p] && (p.way == toHost || p.way == fromHost || !routed || !c.connects(p)) {
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

// connects reports whether a container may still be where a packet comes from, or goes to.
func (c *pathCheck) connects(p packet) bool {
	bridges := c.from.Of(ip.FamilyOf(p.peer)).bridges
	return p.bridge == bridge{} && len(bridges) == 0 || slices.ContainsFunc(bridges, func(b bridge) bool {
		return b.name == p.bridge.name && b.prefix == p.bridge.prefix && !c.own[p.bridge.container]
	})
}

// Ask asks the kernel where it sends packets to peers, after a look that found nothing to do: about those that went astray, those that others'
// routes and rules name, and some more. On a cached view what leads to peers may be from a newer one, and stays.
func (p *Pass) Ask(ctx context.Context, kernel ip.Kernel) error {
	if p.set.cached {
		return nil
	}
	c := &p.fabric.pathCheck
	come := c.update(p.facts, p.Status.peers, *p.fabric.network)
	if err := c.review(ctx, kernel, p.Want); err != nil {
		return err
	}
	var err error
	if p.found.uncertain, err = c.uncertain(ctx, kernel, p.Want, c.peers); err != nil {
		return err
	}
	c.warned = len(p.found.uncertain) > 0
	c.packets = c.some(c.suspects(c.packets[:0], p.Want), p.Want)
	for _, l := range come {
		c.packets = c.of(c.packets, l, p.Want)
	}
	_, err = c.ask(ctx, kernel, p.Want, c.packets)
	p.astray = c.errors(p.Want, p.fabric.cfg.Keys.Leases)
	return err
}

// Ask asks where the packets to peers that were added go. It returns false if one goes astray, or may no longer: a full pass will tell.
func (c *Change) Ask(ctx context.Context, kernel ip.Kernel) bool {
	cs := &c.fabric.pathCheck
	if len(cs.astray) > 0 {
		return false
	}
	var ps []packet
	var added []routedPeer
	for _, l := range c.diff.added {
		ps = cs.of(ps, l, c.Want)
		added = append(added, routedPeer{lease: l})
	}
	uncertain, err := cs.uncertain(ctx, kernel, c.Want, added)
	if err == nil {
		_, err = cs.ask(ctx, kernel, c.Want, ps)
	}
	cs.current, cs.peers, cs.left = true, c.baseline.peers, min(cs.left, len(c.baseline.peers))
	return err == nil && len(cs.astray) == 0 && (cs.warned || len(uncertain) == 0) // a warning that there is already need not be exact before the next full pass
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
	c.packets = c.some(c.suspects(c.packets[:0], f.wanted), f.wanted)
	if len(c.packets) == 0 {
		return false
	}
	before := len(c.astray)
	_, err := c.ask(ctx, kernel, f.wanted, c.packets)
	return err != nil || before == 0 && len(c.astray) > 0
}
