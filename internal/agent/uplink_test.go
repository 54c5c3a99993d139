package agent

import (
	"net/netip"
	"slices"
	"testing"

	"tulle/ip"
)

func TestUplinkAddressChanges(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h, peer := w.hosts[0], w.hosts[1]
		subnets := h.agent.Status().Lease.Subnets
		h.kernel.SetInterface(ip.Interface{Name: "eth0", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{
			{Prefix: netip.MustParsePrefix("172.30.0.201/24")}, {Prefix: netip.MustParsePrefix("fd30::201/64")},
		}})
		moved := netip.MustParseAddr("172.30.0.201")
		w.within(soon, "the peer follows", func(*node) bool {
			return slices.ContainsFunc(peer.owned().FDB, func(f ip.FDB) bool { return f.Dst == moved })
		})
		w.converged(soon)
		if got := h.agent.Status().Lease.Subnets; !slices.Equal(got, subnets) {
			t.Errorf("subnets %v, were %v", got, subnets)
		}
	})
}
