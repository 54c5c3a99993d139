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

// origin is where packets come from.
type origin struct {
	bridge    string     // empty: there is none yet
	container netip.Addr // behind that
	own       netip.Addr // of the host in its subnet, if it has one
	uplink    netip.Addr // zero: it does not matter by which interface packets leave
}

// packet is one to a peer: to a container, or to the host itself.
type packet struct {
	subnet  netip.Prefix
	dst     netip.Addr
	between bool // hosts
}

// originOf finds out where packets of a family come from.
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
			if o.bridge == "" && (v.host.Owns(i.Name) || !i.Up || a.Prefix.IsSingleIP() || a.Prefix.Bits() < network.Bits()) {
				o.own = addr
				continue
			}
			if o.bridge == "" {
				o.bridge, o.own, o.container = i.Name, addr, containerOf(v, a.Prefix)
			}
		}
	}
	if !o.container.IsValid() {
		o.bridge = ""
	}
	return o
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
	changed := from != c.from || v.uplink.Link != c.uplink || v.snap.Others.Sum != c.others.Sum || len(c.peers) == 0 // those that are added later are asked about at once
	c.from, c.uplink, c.others, c.peers, c.current = from, v.uplink.Link, v.snap.Others, peers, true
	c.unasked = len(c.others.Into)
	if changed || time.Since(c.begun) >= askAll && c.left == 0 {
		c.left, c.begun, c.hurried = len(peers), time.Now(), changed
	}
}

// question is what the kernel is asked about a packet.
func (c *pathCheck) question(p packet) ip.Question {
	o := c.from.Of(ip.FamilyOf(p.dst))
	switch {
	case p.between:
		return ip.Question{Dst: p.dst, Src: o.uplink}
	case o.bridge != "":
		return ip.Question{Dst: p.dst, Src: o.container, In: o.bridge}
	}
	return ip.Question{Dst: p.dst, Src: o.own}
}

// right reports whether an answer is what is wanted.
func (c *pathCheck) right(p packet, a ip.Answer, want ip.Route) bool {
	switch {
	case a.Kind == "":
		return true
	case p.between: // who has no route to a peer is told so by the backend, if that matters to it
		return a.Kind == ip.Local || a.Kind == ip.Unrouted || a.Kind == ip.Unicast && a.Link == c.uplink
	}
	return a.Kind == ip.Unicast && a.Link == want.Link && a.Gateway == want.Via
}

// ask asks about packets to peers and takes note of those that go astray. It returns how many no longer do.
func (c *pathCheck) ask(ctx context.Context, kernel ip.Kernel, want ip.State, packets []packet) (mended int, err error) {
	began := time.Now()
	defer func() { c.took = time.Since(began) }()
	questions := make([]ip.Question, len(packets))
	for i, p := range packets {
		questions[i] = c.question(p)
	}
	answers, err := kernel.Lookup(ctx, questions)
	if err != nil {
		return 0, err
	}
	// The host's own packet knows neither forwarding nor the check of its source.
	var again []int
	for i, a := range answers {
		if questions[i].In != "" && doubtful(a, ip.FamilyOf(packets[i].dst)) {
			questions[len(again)] = ip.Question{Dst: packets[i].dst, Src: c.from.Of(ip.FamilyOf(packets[i].dst)).own}
			again = append(again, i)
		}
	}
	second, err := kernel.Lookup(ctx, questions[:len(again)])
	if err != nil {
		return 0, err
	}
	for n, i := range again {
		answers[i] = second[n]
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

// doubtful reports whether the answer about a packet that comes in by an interface may be for other reasons than its route, such as forwarding
// that is off or the check of its source. Only IPv4 asks for these, and answers that it has no way, or nothing that says more.
func doubtful(a ip.Answer, f ip.Family) bool {
	return a.Kind == "" || f == ip.IPv4 && a.Kind == ip.Unreachable
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

// to lists the packets to a peer, as far as there is a route to it.
func (c *pathCheck) to(l *subnet.Lease, want ip.State) []packet {
	var ps []packet
	for _, f := range ip.Families() {
		p := l.Subnets.Of(f)
		if r, ok := routeTo(want, p); !ok || r.Dst != p {
			continue
		}
		ps = append(ps, packet{subnet: p, dst: inside(p)})
		if host := l.Attrs.Public.Of(f); host.IsValid() && c.from.Of(f).uplink.IsValid() {
			ps = append(ps, packet{p, host, true})
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
		ps = append(ps, c.to(c.peers[c.next].lease, want)...)
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
			ps = append(ps, packet{subnet: r.Dst, dst: inside(p)})
		}
	}
	return ps
}

// review asks again about what went astray, for as long as it has changed, and forgets what is no longer to be sent.
func (c *pathCheck) review(ctx context.Context, kernel ip.Kernel, want ip.State) error {
	if len(c.astray) == 0 {
		return nil
	}
	hosts := map[packet]bool{}
	for _, peer := range c.peers {
		for _, p := range c.to(peer.lease, want) {
			hosts[p] = p.between
		}
	}
	var ps []packet
	for p := range c.astray {
		if _, ok := routeTo(want, p.subnet); !ok || p.between && !hosts[p] {
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
		return cmp.Or(ip.ComparePrefix(a.subnet, b.subnet), a.dst.Compare(b.dst))
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
		between  bool
		describe func(packet, ip.Answer, ip.Route) error
	}{
		{trouble.RouteShadowed, false, shadowed},
		{trouble.UplinkDiverted, true, c.diverted},
	} {
		var last netip.Prefix
		peers := 0
		for _, p := range all {
			if p.between != kind.between || p.subnet == last {
				continue
			}
			last = p.subnet
			if peers++; peers <= strayNamed {
				r, _ := routeTo(want, p.subnet)
				errs = append(errs, trouble.Wrap(kind.code, keys[p.subnet], kind.describe(p, c.astray[p], r)))
			}
		}
		if more := peers - strayNamed; more > 0 {
			errs = append(errs, trouble.Wrap(kind.code, "", fmt.Errorf("and so it is with the packets to %d more peers", more)))
		}
	}
	return errors.Join(errs...)
}

// becomes says what becomes of packets.
func becomes(a ip.Answer) string {
	switch a.Kind {
	case ip.Unicast:
		return "go " + a.String()
	case ip.Local:
		return "end on this host"
	case ip.Unrouted:
		return "have no route"
	}
	return "are dropped: " + string(a.Kind)
}

func ipCommand(f ip.Family) string {
	if f == ip.IPv6 {
		return "ip -6"
	}
	return "ip"
}

func shadowed(p packet, a ip.Answer, want ip.Route) error {
	right := ip.Answer{Path: ip.Path{Link: want.Link, Gateway: want.Via}, Kind: ip.Unicast, Table: ip.MainTable}
	command := ipCommand(ip.FamilyOf(p.dst))
	return fmt.Errorf("packets from containers to %s, in %s of a peer, %s, and should go %s: a route or policy rule of another program comes first: find it with %s route show table all match %s, and %s rule",
		p.dst, p.subnet, becomes(a), right, command, p.dst, command)
}

func (c *pathCheck) diverted(p packet, a ip.Answer, _ ip.Route) error {
	f := ip.FamilyOf(p.dst)
	command, uplink, source := ipCommand(f), ip.ShellWord(c.uplink), c.from.Of(f).uplink
	text := fmt.Sprintf("packets from %s to %s, the host of %s, %s, and should leave by the uplink %s: take away the route or policy rule that comes first (%s route show table all match %s, and %s rule), "+
		"or have a table with a route over %s be asked before (%s rule add from %s lookup TABLE)", source, p.dst, p.subnet, becomes(a), uplink, command, p.dst, command, uplink, command, source)
	if a.Kind == ip.Unicast {
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
		ps = append(ps, cs.to(l, c.Want)...)
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
