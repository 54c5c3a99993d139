package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"tulle/ip"
	"tulle/ip/iptest"
)

// TestAgreesWithFake applies random operations to the kernel and to the one in memory, and compares after each one how
// it ended and what it left.
func TestAgreesWithFake(t *testing.T) {
	w := newWorld(t)
	uplinks := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
	w.AddInterface("up0", uplinks...)
	scope := randomScope()
	rapid.Check(t, func(r *rapid.T) {
		fake := iptest.New()
		fake.AddInterface(ip.Interface{Name: "up0", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{
			{Prefix: uplinks[0]}, {Prefix: uplinks[1]},
		}})
		left := snapshot(r, w.Kernel, scope).Owned
		if err := w.Kernel.Apply(t.Context(), ip.Diff(left, ip.State{})); err != nil {
			r.Fatal(err)
		}
		for range rapid.IntRange(1, 40).Draw(r, "length") {
			op := randomOp(r)
			got, want := w.Kernel.Apply(t.Context(), ip.Plan{op}), fake.Apply(t.Context(), ip.Plan{op})
			if errnoOf(got) != errnoOf(want) {
				r.Fatalf("%s\nkernel: %v\nfake: %v", op, got, want)
			}
			a, b := describe(snapshot(r, w.Kernel, scope)), describe(snapshot(r, fake, scope))
			if a != b {
				r.Fatalf("after %s\nkernel:\n%s\nfake:\n%s", op, a, b)
			}
		}
	})
}

func snapshot(t interface{ Fatal(...any) }, k ip.Kernel, scope ip.Scope) ip.Snapshot {
	s, err := k.Snapshot(context.Background(), scope)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return 0
}

func describe(s ip.Snapshot) string {
	for addr, path := range s.Paths {
		path.Source = netip.Addr{} // among several addresses, RFC 6724 chooses
		s.Paths[addr] = path
	}
	return fmt.Sprintf("%sforeign %v\npaths %v", s.Owned, s.Foreign, s.Paths)
}

func randomScope() ip.Scope {
	return ip.Scope{
		Links:    []string{"flannel.1", "flannel-v6.1"},
		Networks: []netip.Prefix{netip.MustParsePrefix("10.50.0.0/16"), netip.MustParsePrefix("fd50::/48")},
		Paths: []netip.Addr{
			netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7"),
			netip.MustParseAddr("10.50.3.0"), netip.MustParseAddr("fd50:0:0:3::"),
		},
	}
}

// randomOp draws from few values, so that operations meet.
func randomOp(r *rapid.T) ip.Op {
	object := randomObject(r)
	switch verb := rapid.SampledFrom([]ip.Verb{ip.Add, ip.Add, ip.Replace, ip.Delete}).Draw(r, "verb"); verb {
	case ip.Add:
		return ip.Op{Verb: verb, New: object}
	case ip.Delete:
		return ip.Op{Verb: verb, Old: object}
	default:
		l, ok := object.(ip.Link)
		if !ok {
			return ip.Op{Verb: verb, New: object, Old: object}
		}
		other := l
		other.Up = rapid.Bool().Draw(r, "was up")
		other.MAC[5] = byte(rapid.IntRange(1, 2).Draw(r, "old MAC"))
		return ip.Op{Verb: verb, New: l, Old: other}
	}
}

func randomObject(r *rapid.T) ip.Object {
	v6 := rapid.Bool().Draw(r, "v6")
	pick := func(label string, v4, six []string) netip.Addr {
		if v6 {
			v4 = six
		}
		return netip.MustParseAddr(rapid.SampledFrom(v4).Draw(r, label))
	}
	name := rapid.SampledFrom([]string{"flannel.1", "flannel-v6.1"}).Draw(r, "link")
	mac := ip.MAC{2, 0, 0, 0, 0, byte(rapid.IntRange(1, 2).Draw(r, "MAC"))}
	net := rapid.SampledFrom([]string{"", "two"}).Draw(r, "network")
	peer := pick("peer", []string{"10.50.3.0", "10.50.4.0"}, []string{"fd50:0:0:3::", "fd50:0:0:4::"})
	switch rapid.SampledFrom([]string{"link", "addr", "fdb", "neighbor", "route", "direct", "guard", "peer"}).Draw(r, "kind") {
	case "link":
		local := netip.MustParseAddr("192.0.2.1")
		if name == "flannel-v6.1" {
			local = netip.MustParseAddr("2001:db8::1")
		}
		return ip.Link{Name: name, MAC: mac, MTU: 1430, Up: rapid.Bool().Draw(r, "up"), Kind: ip.VXLAN{VNI: 1, Local: local, Port: 8472}}
	case "addr":
		return ip.Addr{Link: name, Prefix: ip.Host(pick("own", []string{"10.50.1.0", "10.50.2.0"}, []string{"fd50:0:0:1::", "fd50:0:0:2::"}))}
	case "fdb":
		// A device forwards to hosts of the family of its own address.
		v6 = name == "flannel-v6.1"
		return ip.FDB{Link: name, MAC: mac, Dst: pick("vtep", []string{"192.0.2.9", "192.0.2.8"}, []string{"2001:db8::9", "2001:db8::8"})}
	case "guard":
		f := map[bool]ip.Family{false: ip.IPv4, true: ip.IPv6}[v6]
		network := ip.Dual[netip.Prefix]{V4: netip.MustParsePrefix("10.50.0.0/16"), V6: netip.MustParsePrefix("fd50::/48")}.Of(f)
		return ip.Guard{
			Net: net, Family: f, VNI: 1, Port: 8472, Network: network, Bits: ip.Dual[int]{V4: 24, V6: 64}.Of(f),
			Link: name, Uplink: name,
			Peers: []ip.Peer{{Addr: pick("vtep", []string{"192.0.2.9", "192.0.2.8"}, []string{"2001:db8::9", "2001:db8::8"})}},
		}
	case "peer":
		p := ip.Peer{Addr: pick("vtep", []string{"192.0.2.9", "192.0.2.8"}, []string{"2001:db8::9", "2001:db8::8"})}
		if rapid.Bool().Draw(r, "source") {
			p.Subnet, _ = peer.Prefix(ip.Dual[int]{V4: 24, V6: 64}.Of(ip.FamilyOf(peer)))
		}
		return ip.Member{Net: net, Peer: p}
	case "neighbor":
		return ip.Neighbor{Link: name, IP: peer, MAC: mac}
	}
	bits := 24
	if v6 {
		bits = 64
	}
	route := ip.Route{Dst: netip.PrefixFrom(peer, bits), Link: "up0", Metric: uint32(rapid.IntRange(1, 3).Draw(r, "metric")), Protocol: ip.Protocol}
	route.OnLink = rapid.Bool().Draw(r, "onlink")
	route.MTU = rapid.SampledFrom([]int{0, 0, 1300, 1400}).Draw(r, "mtu")
	if rapid.Bool().Draw(r, "overlay") {
		route.Link, route.Via = name, peer
	} else {
		route.Via = pick("gateway", []string{"192.0.2.9", "192.0.2.8"}, []string{"2001:db8::9", "2001:db8::8"})
	}
	return route
}
