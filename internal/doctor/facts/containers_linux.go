package facts

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"tulle/internal/doctor"
	"tulle/internal/netns"
	"tulle/ip"
	"tulle/ip/kernel/inspect"
)

// known is what runtimes call the containers that have an address.
type known map[netip.Addr]name

type name struct{ runtime, name, id string }

// readContainers looks into the container that the question names, or into those on bridges of the network.
func (g *gathering) readContainers(ctx context.Context) {
	var bridges []string
	for _, l := range g.facts.LinksAs(doctor.RoleBridge) {
		bridges = append(bridges, l.Name)
	}
	var ports, loose []inspect.Link
	for _, l := range g.links {
		switch {
		case l.Kind == "veth" && slices.Contains(bridges, l.Master):
			ports = append(ports, l)
		case l.Kind == "veth" && l.Master == "" && l.Namespace >= 0 && len(l.Addrs) == 0 && (len(bridges) > 0 || g.question.Of != ""):
			loose = append(loose, l)
		}
	}
	for _, list := range [][]inspect.Link{ports, loose} {
		slices.SortFunc(list, func(a, b inspect.Link) int { return cmp.Compare(a.Name, b.Name) })
	}
	ports = append(ports, loose[:min(len(loose), doctor.MaxContainers)]...)
	var ids map[int]string
	if len(ports) > 0 {
		ids = g.namespaces()
	}
	var lost []string
	more := 0
	for _, port := range ports {
		if ctx.Err() != nil {
			g.unread(doctor.PartContainers, fmt.Errorf("there was no time for all: %w", ctx.Err()))
			break
		}
		if g.question.Of == "" && len(g.facts.Containers) == doctor.MaxContainers {
			more++
			continue
		}
		c, err := g.lookInto(port, ids[port.Namespace])
		switch {
		case port.Master == "" && (err != nil || !g.belongs(c)):
		case err != nil:
			lost = append(lost, fmt.Sprintf("behind %s: %v", port.Name, err))
		case g.question.Of == "":
			g.facts.Containers = append(g.facts.Containers, c)
			g.addPort(port)
		case called(c, g.question.Of):
			g.facts.Container = &c
			g.addPort(port)
			return
		}
	}
	if len(lost) > 0 {
		g.unread(doctor.PartContainers, fmt.Errorf("%d of them, such as %s", len(lost), lost[0]))
	}
	switch {
	case more > 0:
		g.unread(doctor.PartContainers, fmt.Errorf("%d were looked into, and %d more were not: name one", doctor.MaxContainers, more))
	case g.question.Of != "":
		g.facts.NoSuch = len(lost) == 0 && ctx.Err() == nil && len(bridges) > 0 // without a bridge they may hang anywhere
		g.unread(doctor.PartContainers, fmt.Errorf("none of this host's is called %.64q", g.question.Of))
	}
}

func (g *gathering) addPort(port inspect.Link) {
	g.facts.Links = append(g.facts.Links, linkOf(port, doctor.RolePort))
}

// belongs reports whether a container that hangs on no bridge was made for one: it has addresses of this host's, and the host does not send to them by its link,
// as some CNI plugins have it.
func (g *gathering) belongs(c doctor.Container) bool {
	return slices.ContainsFunc(c.Addrs, func(a netip.Prefix) bool {
		if !holdsAny(g.subnets(), a.Addr()) {
			return false
		}
		route, err := g.reader.Route(a.Addr())
		return err == nil && route.Link != c.Port
	})
}

// called reports whether a container is the one that somebody means.
func called(c doctor.Container, who string) bool {
	if addr, err := netip.ParseAddr(who); err == nil {
		return slices.ContainsFunc(c.Addrs, func(p netip.Prefix) bool { return p.Addr() == addr.Unmap() })
	}
	const shortest = 4 // of an id that is cut
	return who == c.Name || len(who) >= shortest && strings.HasPrefix(c.ID, who) || who == filepath.Base(c.Namespace) || who == c.Port
}

// namespaces finds paths of the namespaces that links name by a number.
func (g *gathering) namespaces() map[int]string {
	ids := map[int]string{}
	for _, path := range namespacePaths() {
		ns, err := netns.Open(path)
		if err != nil {
			continue // it is gone
		}
		if id, err := g.reader.NamespaceID(ns.FD()); err == nil && id >= 0 {
			ids[id] = path
		}
		ns.Close()
	}
	return ids
}

// lookInto reads the container at the other end of a port, in the namespace at path.
func (g *gathering) lookInto(port inspect.Link, path string) (doctor.Container, error) {
	c := doctor.Container{Port: port.Name, Bridge: port.Master, Namespace: path}
	if path == "" {
		return c, fmt.Errorf("no process of this host is in its namespace, and no path leads there")
	}
	ns, err := netns.Open(path)
	if err != nil {
		return c, err
	}
	defer ns.Close()
	var r *inspect.Reader
	if err := ns.Do(func() (err error) { r, err = inspect.Open(); return err }); err != nil {
		return c, err
	}
	defer r.Close()
	links, err := r.Links()
	if err != nil {
		return c, err
	}
	i := slices.IndexFunc(links, func(l inspect.Link) bool { return l.Index == port.PeerIndex })
	if i < 0 {
		return c, fmt.Errorf("its interface is gone")
	}
	c.Link, c.MAC, c.Up, c.NoARP, c.MTU, c.Addrs = links[i].Name, links[i].MAC, links[i].Up, links[i].NoARP, links[i].MTU, links[i].Addrs
	routes, err := r.Routes()
	if err != nil {
		return c, err
	}
	for _, route := range routes {
		if len(c.Routes) < doctor.MaxRoutes {
			c.Routes = append(c.Routes, routeOf(route))
		}
	}
	neighbors, err := r.Neighbors()
	if err != nil {
		return c, err
	}
	for _, n := range neighbors {
		if slices.ContainsFunc(c.Routes, func(r doctor.Route) bool { return r.Via == n.Addr && n.Addr.IsValid() }) {
			c.Neighbors = append(c.Neighbors, neighborOf(n))
		}
	}
	known, err := g.ownNeighbors()
	if err != nil {
		return c, err
	}
	for _, n := range known {
		if n.Link == c.Bridge && c.Bridge != "" && slices.ContainsFunc(c.Addrs, func(p netip.Prefix) bool { return p.Addr() == n.Addr }) {
			c.Known = append(c.Known, neighborOf(n))
		}
	}
	for _, a := range c.Addrs {
		if n, ok := g.known[a.Addr()]; ok {
			c.Runtime, c.Name, c.ID = n.runtime, n.name, n.id
		}
	}
	return c, nil
}

// ownNeighbors lists whom this host knows.
func (g *gathering) ownNeighbors() ([]inspect.Neighbor, error) {
	if g.neighbors == nil {
		found, err := g.reader.Neighbors()
		if err != nil {
			return nil, err
		}
		g.neighbors = &found
	}
	return *g.neighbors, nil
}

func routeOf(r inspect.Route) doctor.Route {
	route := doctor.Route{Dst: r.Dst, Via: r.Via, Link: r.Link, MTU: r.MTU}
	if r.Kind != ip.Unicast {
		route.Kind = string(r.Kind)
	}
	return route
}

func neighborOf(n inspect.Neighbor) doctor.Neighbor {
	return doctor.Neighbor{Addr: n.Addr, MAC: n.MAC, State: n.State, Link: n.Link}
}

// readToward reads what this host's kernel, and its probes, say of the way to the address that the question names.
func (g *gathering) readToward(ctx context.Context) {
	addr := g.question.Toward
	if !addr.IsValid() {
		return
	}
	t := &doctor.Toward{Addr: addr, Here: holdsAny(g.subnets(), addr)}
	g.facts.Toward = t
	g.readPeer(ctx, t)
	route, err := g.reader.Route(addr)
	if err != nil {
		g.unread(doctor.PartToward, err)
		return
	}
	route.Dst = netip.PrefixFrom(addr, addr.BitLen())
	found := routeOf(route)
	t.Route, t.Source = &found, route.Source
	next := addr
	if route.Via.IsValid() {
		next = route.Via
	}
	neighbors, err := g.ownNeighbors()
	if err != nil {
		g.unread(doctor.PartToward, err)
		return
	}
	if i := slices.IndexFunc(neighbors, func(n inspect.Neighbor) bool { return n.Addr == next && n.Link == route.Link }); i >= 0 {
		n := neighborOf(neighbors[i])
		t.Neighbor = &n
		stations, err := g.reader.Stations()
		if err != nil {
			g.unread(doctor.PartToward, err)
			return
		}
		if i := slices.IndexFunc(stations, func(s inspect.Neighbor) bool { return s.MAC == n.MAC && s.Link == route.Link }); i >= 0 {
			t.Station = &doctor.Station{MAC: n.MAC, Dst: stations[i].Dst}
		}
	}
	if len(t.Public) > 0 {
		under, err := g.reader.Route(t.Public[0])
		if err != nil {
			g.unread(doctor.PartToward, err)
			return
		}
		under.Dst = netip.PrefixFrom(t.Public[0], t.Public[0].BitLen())
		way := routeOf(under)
		t.Underlay = &way
		g.readNext(t, neighbors)
	}
}

// readNext finds whom the packets to the peer's public address are handed to.
func (g *gathering) readNext(t *doctor.Toward, neighbors []inspect.Neighbor) {
	next := t.Public[0]
	if t.Underlay.Via.IsValid() {
		next = t.Underlay.Via
	}
	if i := slices.IndexFunc(neighbors, func(n inspect.Neighbor) bool { return n.Addr == next && n.Link == t.Underlay.Link }); i >= 0 {
		n := neighborOf(neighbors[i])
		t.Next = &n
	}
}

// readPeer finds the peer whose address, or whose container's, that is.
func (g *gathering) readPeer(ctx context.Context, t *doctor.Toward) {
	if g.facts.Status == nil || t.Here {
		return
	}
	peers, err := g.doors.Peers(ctx)
	if err != nil {
		g.unread(doctor.PartToward, err)
		return
	}
	for _, p := range peers.Peers {
		if !slices.Contains(p.Public, t.Addr) && !holdsAny(p.Subnets, t.Addr) {
			continue
		}
		t.Node, t.Lease, t.Public, t.Via = p.Node, p.Lease, p.Public, p.Via
		for _, v := range p.Verdicts {
			t.Ways = append(t.Ways, doctor.Way{
				Family: v.Family, Way: v.Way, State: v.State, Since: v.Since, Size: v.Size, Full: v.Full, Asked: v.Asked, Lost: v.Lost, Reason: cut(v.Reason),
			})
		}
		return
	}
}
