package agent

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
)

// protocolBoot is what flanneld marks its routes with (rtnetlink(7), RTPROT_BOOT).
const protocolBoot = 3

func TestTakesOverFromFlanneld(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		mac, err := ip.ParseMAC("4e:f3:a5:78:97:d4")
		if err != nil {
			t.Fatal(err)
		}
		peerMAC := ip.MAC{0x5a, 1, 2, 3, 4, 5}
		a, b := w.hosts[0], w.hosts[1]
		w.store.Put("subnets/10.5.34.0-24", flannelLease("172.30.0.1", mac.String()), 20*time.Hour)
		w.store.Put("subnets/10.5.77.0-24", flannelLease("172.30.0.9", peerMAC.String()), 20*time.Hour)
		device := ip.Link{Name: "flannel.1", MAC: mac, MTU: 1450, Kind: ip.VXLAN{VNI: 1, Local: netip.MustParseAddr("172.30.0.1"), Port: 8472}}
		up := device
		up.Up = true
		peer := netip.MustParsePrefix("10.5.77.0/24")
		gone := netip.MustParsePrefix("10.5.78.0/24")
		a.external(
			ip.Op{Verb: ip.Add, New: device},
			ip.Op{Verb: ip.Replace, New: up, Old: device},
			ip.Op{Verb: ip.Add, New: ip.Addr{Link: "flannel.1", Prefix: netip.MustParsePrefix("10.5.34.0/32")}},
			ip.Op{Verb: ip.Add, New: ip.FDB{Link: "flannel.1", MAC: peerMAC, Dst: netip.MustParseAddr("172.30.0.9")}},
			ip.Op{Verb: ip.Add, New: ip.Neighbor{Link: "flannel.1", IP: peer.Addr(), MAC: peerMAC}},
			ip.Op{Verb: ip.Add, New: ip.Route{Dst: peer, Via: peer.Addr(), Link: "flannel.1", Protocol: protocolBoot, OnLink: true}},
			ip.Op{Verb: ip.Add, New: ip.Route{Dst: gone, Via: gone.Addr(), Link: "flannel.1", Protocol: protocolBoot, OnLink: true}},
		)
		for _, l := range []ip.Leftover{{Engine: ip.NFTables, Family: ip.IPv4, Table: "nat", Chain: "FLANNEL-POSTRTG"}, {Engine: ip.NFTables, Family: ip.IPv4, Table: "flannel-ipv4"}} {
			a.kernel.AddLeftover(l, netip.MustParsePrefix("10.5.0.0/16"))
		}
		a.kernel.Refuse(func(op ip.Op) error {
			if _, ok := op.Old.(ip.Link); ok {
				t.Errorf("the device is touched: %s", op)
			}
			return nil
		})
		a.start()
		b.start()
		w.within(soon, "taken over", func(h *node) bool { return h.agent.Status().Ready && len(h.agent.Status().Of("").Peers) == 2 })
		st := a.agent.Status()
		if want := []netip.Prefix{netip.MustParsePrefix("10.5.34.0/24")}; !slices.Equal(st.Of("").Lease.Subnets, want) {
			t.Errorf("subnets %v, want %v", st.Of("").Lease.Subnets, want)
		}
		got := a.owned()
		if got.Links[0] != up {
			t.Errorf("device %+v, want it as it was: %+v", got.Links[0], up)
		}
		if len(got.Leftovers) > 0 {
			t.Errorf("left behind: %v", got.Leftovers)
		}
		for _, r := range got.Routes {
			if r.Protocol != ip.Protocol || r.Metric == 0 {
				t.Errorf("left behind: %v", r)
			}
		}
		if len(got.Routes) != 2 {
			t.Errorf("routes %v, want one to the flanneld and one to the other tulled", got.Routes)
		}

		// From now on the MAC is kept, whatever happens to the device.
		a.kernel.Refuse(nil)
		a.external(ip.Op{Verb: ip.Delete, Old: up})
		w.within(2*time.Second, "healed", func(h *node) bool { return len(h.drift()) == 0 })
		if got := a.link("flannel.1").MAC; got != mac {
			t.Errorf("MAC %s after the device was deleted, want %s", got, mac)
		}
	})
}

func TestRoutesOfAFlanneldWithHostGW(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`, 2, func(t *testing.T, w *world) {
		w.hosts[1].start()
		w.within(soon, "leased", func(h *node) bool { return h != w.hosts[1] || h.agent.Status().Ready })
		subnets := w.hosts[1].agent.Status().Of("").Lease.Subnets
		via := netip.MustParseAddr("172.30.0.2")
		mine := ip.Route{Dst: netip.MustParsePrefix("10.5.200.0/24"), Via: netip.MustParseAddr("172.30.0.77"), Link: "eth0", Protocol: protocolBoot}
		a := w.hosts[0]
		a.external(
			ip.Op{Verb: ip.Add, New: ip.Route{Dst: subnets[0], Via: via, Link: "eth0", Protocol: protocolBoot}},
			ip.Op{Verb: ip.Add, New: mine},
		)
		a.start()
		w.converged(soon)
		snap, err := a.kernel.Snapshot(t.Context(), ip.Scope{Networks: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]ip.Route{mine}, snap.Foreign, cmp.Comparer(func(a, b ip.Route) bool { return a == b })); diff != "" {
			t.Errorf("foreign routes (-want +got):\n%s", diff)
		}
	})
}
