package ip_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tulle/ip"
)

func drawGuard(t *rapid.T, f family, label string) ip.Guard {
	g := ip.Guard{Family: ip.FamilyOf(f.local), VNI: 1, Port: rapid.SampledFrom([]uint16{8472, 8472, 8472, 4789}).Draw(t, label+" port")}
	g.Bits = g.Family.Bits() / 2
	for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(3, 8), 0, 6, rapid.ID).Draw(t, label+" peers") {
		host := netip.MustParseAddr(fmt.Sprintf(f.vtep, i))
		subnet, _ := host.Prefix(g.Bits)
		g.Peers = append(g.Peers, ip.Peer{Addr: host}, ip.Peer{Addr: host, Subnet: subnet})
	}
	return g
}

func guardOf(s ip.State, f ip.Family) (ip.Guard, bool) {
	i := slices.IndexFunc(s.Guards, func(g ip.Guard) bool { return g.Family == f })
	if i < 0 {
		return ip.Guard{}, false
	}
	return s.Guards[i], true
}

// TestWhoStaysIsLetIn stops after each op and looks at the guards: at no time do they drop what comes from a peer of before
// and after, nor work before they know who is wanted.
func TestWhoStaysIsLetIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawState(t, "have"), drawState(t, "want")
		k := newHost(t, have)
		plan := ip.Diff(owned(t, k), want)
		for i, op := range plan {
			apply(t, k, ip.Plan{op})
			now := owned(t, k)
			for _, f := range ip.Families() {
				was, guarded := guardOf(have, f)
				will, _ := guardOf(want, f)
				is, _ := guardOf(now, f)
				for _, p := range will.Peers {
					if stays := !guarded || slices.Contains(was.Peers, p); stays && is.Family != 0 && !slices.Contains(is.Peers, p) {
						t.Fatalf("after op %d, packets from %s are dropped; plan:\n%s", i, p, plan)
					}
				}
			}
		}
	})
}

// TestPeersComeFirstAndGoLast: a peer is let in before there is a route to it, and until there is none.
func TestPeersComeFirstAndGoLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		routed, gone := false, false
		for _, op := range ip.Diff(drawState(t, "have"), drawState(t, "want")) {
			isRoute, isPeer := false, false
			for _, o := range []ip.Object{op.New, op.Old} {
				switch o.(type) {
				case ip.Route:
					isRoute = true
				case ip.Guard, ip.Member:
					isPeer = true
				}
			}
			if isRoute && gone || isPeer && routed && op.Verb != ip.Delete {
				t.Fatalf("too late: %s", op)
			}
			routed = routed || isRoute
			gone = gone || isPeer && op.Verb == ip.Delete
		}
	})
}

// TestPeerIsOneOp: whoever comes or goes costs one op each, however many stay.
func TestPeerIsOneOp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, f := range families() {
			have, want := drawGuard(t, f, "have"), drawGuard(t, f, "want")
			want.Port = have.Port
			changes := 0
			for _, p := range slices.Concat(have.Peers, want.Peers) {
				if slices.Contains(have.Peers, p) != slices.Contains(want.Peers, p) {
					changes++
				}
			}
			plan := ip.Diff(ip.State{Guards: []ip.Guard{have}}, ip.State{Guards: []ip.Guard{want}})
			if len(plan) != changes {
				t.Fatalf("%d ops for %d changes:\n%s", len(plan), changes, plan)
			}
		}
	})
}
