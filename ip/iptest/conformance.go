package iptest

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"tulle/ip"
)

// World is a fresh namespace with a loopback interface in it, as the conformance suite wants it.
type World struct {
	Kernel ip.Kernel // under test
	Other  ip.Kernel // another program in the same namespace
	// AddInterface adds an Ethernet interface that is up and has a carrier.
	AddInterface func(name string, addrs ...netip.Prefix)
	// SetInterface brings it up or down.
	SetInterface func(name string, up bool)
	// Knock has a packet of a tunnel come in through the interface, with a packet in it that comes from inner.
	Knock func(name string, from, to netip.Addr, tunnel ip.Tunnel, inner netip.Addr)
	// Forward has a packet come in through the interface that is for elsewhere.
	Forward func(name string, src, dst netip.Addr)
	// AddRoute and DelRoute add and delete a route of another program, AddRule and DelRule a policy rule.
	AddRoute, DelRoute func(TableRoute)
	AddRule, DelRule   func(Rule)
	// Restore does what iptables-restore(8) of the engine and family would do with the text: it replaces the tables that
	// are named in it.
	Restore func(engine ip.Engine, family ip.Family, text string)
}

// Conformance runs the suite that every ip.Kernel passes, operation by operation. open is called for each test; it
// registers its clean-up with t.
func Conformance(t *testing.T, open func(t *testing.T) World) {
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"links", (*suite).links},
		{"kinds", (*suite).kinds},
		{"IPIP", overIPIP((*suite).ipip)},
		{"objects", (*suite).objects},
		{"no link", (*suite).noLink},
		{"link down", (*suite).linkDown},
		{"link deleted", (*suite).linkDeleted},
		{"MAC changed", (*suite).macChanged},
		{"gateways", (*suite).gateways},
		{"uplink down", (*suite).uplinkDown},
		{"rerouted", (*suite).rerouted},
		{"sysctls", (*suite).sysctls},
		{"forwarding", (*suite).forwarding},
		{"tables", (*suite).tables},
		{"guards", (*suite).guards},
		{"networks", (*suite).networks},
		{"strangers", (*suite).strangers},
		{"strangers over IPIP", overIPIP((*suite).strangers)},
		{"forged", (*suite).forged},
		{"forged over IPIP", overIPIP((*suite).forged)},
		{"spoofed", (*suite).spoofed},
		{"filters", (*suite).filters},
		{"openings", (*suite).openings},
		{"foreign", (*suite).foreign},
		{"default elsewhere", (*suite).defaultElsewhere},
		{"paths", (*suite).paths},
		{"unreachable routes", (*suite).unreachableRoutes},
		{"route types", (*suite).routeTypes},
		{"route MTU", (*suite).routeMTU},
		{"others", (*suite).others},
		{"partial failure", (*suite).partialFailure},
		{"cancelled", (*suite).cancelled},
		{"watch", (*suite).watch},
	} {
		for _, f := range ip.Families() {
			t.Run(test.name+"/"+f.String(), func(t *testing.T) {
				test.run(&suite{T: t, World: open(t), fixture: newFixture(f)})
			})
		}
	}
}

type suite struct {
	*testing.T
	World
	fixture
}

// fixture is what the tests work with, in one family.
type fixture struct {
	family  ip.Family
	network netip.Prefix
	uplink  netip.Prefix // address of the host
	gateway netip.Addr   // on the network of the uplink
	tunnel  ip.Tunnel    // that guards guard
	link    ip.Link      // up
	vxlan   ip.VXLAN     // its kind
	addr    ip.Addr
	fdb     ip.FDB
	near    ip.Neighbor
	route   ip.Route
}

const linkName = "flannel.1"

func newFixture(f ip.Family) fixture {
	text := ip.Dual[[6]string]{
		V4: [6]string{"10.50.0.0/16", "192.0.2.1/24", "192.0.2.250", "192.0.2.9", "10.50.3.0/24", "10.50.1.0"},
		V6: [6]string{"fd50::/48", "2001:db8::1/64", "2001:db8::fa", "2001:db8::9", "fd50:0:0:3::/64", "fd50:0:0:1::"},
	}.Of(f)
	mac := ip.MAC{2, 0, 0, 0, 0, 3}
	peer := netip.MustParsePrefix(text[4])
	x := fixture{
		family:  f,
		network: netip.MustParsePrefix(text[0]),
		uplink:  netip.MustParsePrefix(text[1]),
		gateway: netip.MustParseAddr(text[2]),
		addr:    ip.Addr{Link: linkName, Prefix: ip.Host(netip.MustParseAddr(text[5]))},
		fdb:     ip.FDB{Link: linkName, MAC: mac, Dst: netip.MustParseAddr(text[3])},
		near:    ip.Neighbor{Link: linkName, IP: peer.Addr(), MAC: mac},
		route: ip.Route{
			Dst: peer, Via: peer.Addr(), Link: linkName, Metric: 77, Protocol: ip.Protocol, OnLink: true,
		},
	}
	x.vxlan = ip.VXLAN{VNI: 1, Local: x.uplink.Addr(), Port: 8472}
	x.tunnel = x.vxlan.Tunnel()
	x.link = ip.Link{
		Name: linkName, MAC: ip.MAC{2, 0, 0, 0, 0, 1}, MTU: 1430, Up: true, Kind: x.vxlan,
	}
	return x
}

func (x fixture) scope() ip.Scope {
	return ip.Scope{Links: []string{linkName}, Networks: []netip.Prefix{x.network}}
}

// all is one object of each kind that a link carries.
func (x fixture) all() ip.State {
	return ip.State{
		Links:     []ip.Link{x.link},
		Addrs:     []ip.Addr{x.addr},
		FDB:       []ip.FDB{x.fdb},
		Neighbors: []ip.Neighbor{x.near},
		Routes:    []ip.Route{x.route},
	}
}

func add(o ip.Object) ip.Op          { return ip.Op{Verb: ip.Add, New: o} }
func del(o ip.Object) ip.Op          { return ip.Op{Verb: ip.Delete, Old: o} }
func replace(old, o ip.Object) ip.Op { return ip.Op{Verb: ip.Replace, New: o, Old: old} }

// apply runs one op, which must end in want.
func (s *suite) apply(op ip.Op, want error) {
	s.Helper()
	err := s.Kernel.Apply(s.Context(), ip.Plan{op})
	if want == nil && err != nil || !errors.Is(err, want) {
		s.Errorf("%s\ngot error %v, want %v", op, err, want)
	}
}

// must applies the ops as k, and ends the test if one fails.
func (s *suite) must(k ip.Kernel, ops ...ip.Op) {
	s.Helper()
	if err := k.Apply(s.Context(), ops); err != nil {
		s.Fatal(err)
	}
}

// create puts everything in want into a namespace where nothing of it is.
func (s *suite) create(want ip.State) {
	s.Helper()
	s.must(s.Kernel, ip.Diff(ip.State{}, want)...)
}

func (s *suite) snapshot(scope ip.Scope) ip.Snapshot {
	s.Helper()
	snap, err := s.Kernel.Snapshot(s.Context(), scope)
	if err != nil {
		s.Fatal(err)
	}
	snap.Owned.Sort()
	return snap
}

// owned checks what Tulle owns.
func (s *suite) owned(want ip.State) {
	s.Helper()
	s.same(s.snapshot(s.scope()).Owned, want)
}

func (s *suite) same(got, want any) {
	s.Helper()
	if !reflect.DeepEqual(got, want) {
		s.Errorf("snapshot\ngot:\n%+v\nwant:\n%+v", got, want)
	}
}

func (s *suite) partialFailure() {
	s.create(ip.State{Links: []ip.Link{s.link}})
	lost := s.near
	lost.Link = "flannel.2"
	bad := s.route
	bad.OnLink = false // and so nobody knows the way to its gateway
	err := s.Kernel.Apply(s.Context(), ip.Plan{add(s.fdb), add(lost), add(s.near), add(bad), add(s.route)})
	var errs ip.OpErrors
	if !errors.As(err, &errs) || len(errs) != 2 {
		s.Fatalf("error = %v, want two OpErrors", err)
	}
	if errs[0].Op != add(lost) || errs[1].Op != add(bad) {
		s.Errorf("refused were %v, want the two bad ops", errs)
	}
	want := s.all()
	want.Addrs = nil
	s.owned(want)
}

func (s *suite) cancelled() {
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if err := s.Kernel.Apply(ctx, ip.Plan{add(s.link)}); !errors.Is(err, context.Canceled) {
		s.Errorf("Apply = %v, want %v", err, context.Canceled)
	}
	if _, err := s.Kernel.Snapshot(ctx, s.scope()); !errors.Is(err, context.Canceled) {
		s.Errorf("Snapshot = %v, want %v", err, context.Canceled)
	}
	s.owned(ip.State{})
}
