package iptest

import (
	"net/netip"
	"slices"
	"syscall"

	"tulle/ip"
)

func (s *suite) links() {
	down := s.link
	down.Up = false
	s.apply(add(down), nil)
	s.owned(ip.State{Links: []ip.Link{down}})

	s.apply(add(down), syscall.EEXIST)
	twin := down
	twin.Name = "flannel.9"
	s.apply(add(twin), syscall.EEXIST) // of another name, but the same VNI and port

	s.apply(replace(down, s.link), nil)
	s.owned(ip.State{Links: []ip.Link{s.link}})
	other := s.link
	other.MAC[5], other.MTU = 9, 1380
	s.apply(replace(s.link, other), nil)
	s.owned(ip.State{Links: []ip.Link{other}})

	interfaces := s.snapshot(ip.Scope{}).Interfaces
	if !slices.ContainsFunc(interfaces, func(i ip.Interface) bool {
		return i.Name == linkName && i.Up && i.MTU == 1380 && !i.Loopback
	}) {
		s.Errorf("interfaces = %+v, lacks %s", interfaces, linkName)
	}

	silent := other
	silent.NoARP = true
	near := s.near
	s.must(s.Kernel, add(near))
	s.apply(replace(other, silent), nil)
	s.owned(ip.State{Links: []ip.Link{silent}}) // neighbours go with the change, permanent ones, too
	s.must(s.Kernel, add(near))
	s.apply(replace(silent, other), nil)
	s.owned(ip.State{Links: []ip.Link{other}})

	s.apply(del(other), nil)
	s.apply(del(other), nil)
	s.apply(replace(down, s.link), syscall.ENODEV)
	s.owned(ip.State{})

	special := down
	kind := s.vxlan
	kind.Learning, kind.GBP = true, true
	special.Kind = kind
	s.apply(add(special), nil)
	s.owned(ip.State{Links: []ip.Link{special}})
}

func (s *suite) kinds() {
	const none = "tulle-none"
	vxlan := s.vxlan.Type()
	for range 2 {
		lacks := s.snapshot(ip.Scope{Kinds: []string{none, vxlan}}).Lacks
		if !lacks[none] || lacks[vxlan] {
			s.Errorf("the kernel lacks %v, want %s alone", lacks, none)
		}
	}
	if lacks := s.snapshot(ip.Scope{}).Lacks; len(lacks) > 0 {
		s.Errorf("the kernel lacks %v, of what nobody asked for", lacks)
	}
}

// ipip makes a device and what is on it, where the kernel has the module.
func (s *suite) ipip() {
	const name = "flannel.ipip"
	s.AddInterface(uplinkName, s.uplink)
	scope := ip.Scope{Links: []string{name}, Kinds: []string{"ipip"}, Networks: []netip.Prefix{s.network}}
	link := ip.Link{Name: name, MTU: 1480, Up: true, Kind: ip.IPIP{Local: s.uplink.Addr()}}
	if s.snapshot(scope).Lacks["ipip"] {
		s.apply(add(link), syscall.EOPNOTSUPP)
		return
	}
	addr, route := s.addr, s.route
	addr.Link, route.Link, route.Via = name, name, s.gateway
	want := ip.State{Links: []ip.Link{link}, Addrs: []ip.Addr{addr}, Routes: []ip.Route{route}}
	s.create(want)
	s.same(s.snapshot(scope).Owned, want)
	twin := link
	twin.Name = "flannel.9"
	s.apply(add(twin), syscall.EEXIST)
	other := link
	other.MTU = 1400
	s.apply(replace(link, other), nil)
	want.Links[0] = other
	s.same(s.snapshot(scope).Owned, want)
	moved := ip.State{Links: []ip.Link{other}}
	moved.Links[0].Kind = ip.IPIP{Local: s.uplink.Addr().Next()}
	s.must(s.Kernel, ip.Diff(want, moved)...)
	s.same(s.snapshot(scope).Owned, moved)
	s.apply(del(other), nil)
	s.same(s.snapshot(scope).Owned, ip.State{})
}

// objects runs each kind through add, add again, replace, delete, delete again.
func (s *suite) objects() {
	s.create(ip.State{Links: []ip.Link{s.link}})
	fdb, near, route := s.fdb, s.near, s.route
	fdb.Dst, near.MAC[5], route.Via = s.gateway, 9, s.addr.Prefix.Addr().Next()
	links := []ip.Link{s.link}
	for _, o := range []struct {
		first, second   ip.Object
		one, two, three ip.State
	}{
		{s.fdb, fdb, ip.State{Links: links, FDB: []ip.FDB{s.fdb}}, ip.State{Links: links, FDB: []ip.FDB{fdb}}, ip.State{Links: links}},
		{s.near, near, ip.State{Links: links, Neighbors: []ip.Neighbor{s.near}}, ip.State{Links: links, Neighbors: []ip.Neighbor{near}}, ip.State{Links: links}},
		{s.route, route, ip.State{Links: links, Routes: []ip.Route{s.route}}, ip.State{Links: links, Routes: []ip.Route{route}}, ip.State{Links: links}},
		{s.addr, s.addr, ip.State{Links: links, Addrs: []ip.Addr{s.addr}}, ip.State{Links: links, Addrs: []ip.Addr{s.addr}}, ip.State{Links: links}},
	} {
		s.apply(del(o.first), nil)
		s.apply(add(o.first), nil)
		s.owned(o.one)
		s.apply(add(o.first), nil)
		s.owned(o.one)
		s.apply(replace(o.first, o.second), nil)
		s.owned(o.two)
		s.apply(del(o.second), nil)
		s.owned(o.three)
		s.apply(del(o.second), nil)
	}

	// Routes of different metrics live side by side; deleting one that is gone does not take the other.
	s.apply(add(s.route), nil)
	route = s.route
	route.Metric = 78
	s.apply(add(route), nil)
	s.owned(ip.State{Links: links, Routes: []ip.Route{s.route, route}})
	for _, metric := range []uint32{0, 79} {
		gone := s.route
		gone.Metric = metric
		gone.Protocol = 4
		s.apply(del(gone), nil)
	}
	s.owned(ip.State{Links: links, Routes: []ip.Route{s.route, route}})
}

// routeMTU has a route name the size of packets that take it, name another, and no longer name one. It is there all the time.
func (s *suite) routeMTU() {
	s.AddInterface(uplinkName, s.uplink)
	s.create(ip.State{Links: []ip.Link{s.link}})
	for _, route := range []ip.Route{s.route, s.direct()} {
		want, was := ip.State{Links: []ip.Link{s.link}}, ip.State{Links: []ip.Link{s.link}}
		for _, mtu := range []int{0, 1400, 1300, 0, 1280} {
			route.MTU = mtu
			want.Routes = []ip.Route{route}
			plan := ip.Diff(was, want)
			if len(plan) != 1 || plan[0].Verb == ip.Delete {
				s.Errorf("to MTU %d by:\n%s", mtu, plan)
			}
			s.must(s.Kernel, plan...)
			s.owned(want)
			was.Routes = []ip.Route{route}
		}
		gone := route
		gone.MTU = 1400 // another program has changed it since it was read
		s.apply(del(gone), nil)
		if s.family == ip.IPv4 {
			s.owned(want)
			s.apply(del(route), nil)
		}
		s.owned(ip.State{Links: []ip.Link{s.link}})
	}
}

func (s *suite) noLink() {
	for _, o := range []ip.Object{s.addr, s.fdb, s.near, s.route} {
		s.apply(add(o), syscall.ENODEV)
		s.apply(del(o), nil)
	}
	s.owned(ip.State{})
}

func (s *suite) linkDown() {
	s.create(s.all())
	s.owned(s.all())
	down := s.link
	down.Up = false
	want := ip.State{Links: []ip.Link{down}, FDB: []ip.FDB{s.fdb}}
	if s.family == ip.IPv4 {
		want.Addrs = []ip.Addr{s.addr}
	}
	s.apply(replace(s.link, down), nil)
	s.owned(want)

	s.apply(add(s.route), syscall.ENETDOWN)
	s.owned(want)
	s.apply(replace(down, s.link), nil)
	want.Links = []ip.Link{s.link}
	s.owned(want)
	s.must(s.Kernel, ip.Diff(want, s.all())...)
	s.owned(s.all())
}

func (s *suite) linkDeleted() {
	s.create(s.all())
	s.must(s.Other, del(s.link))
	s.owned(ip.State{})
	s.create(s.all())
	s.owned(s.all())
}

func (s *suite) macChanged() {
	s.create(s.all())
	other := s.link
	other.MAC[5] = 9
	s.apply(replace(s.link, other), nil)
	want := s.all()
	want.Links, want.Neighbors = []ip.Link{other}, nil
	s.owned(want)
}
