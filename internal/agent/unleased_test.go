package agent

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"tulle/ip"
)

// What is for a subnet that nobody leases ends on the host, unless the host needs something that lies in the network without Tulle.
func TestUnleasedSubnetsLeadNowhere(t *testing.T) {
	network := netip.MustParsePrefix("10.5.0.0/16")
	for name, tt := range map[string]struct {
		change func(*node)
		ends   bool
	}{
		"alone":                            {func(*node) {}, true},
		"a bridge with an earlier subnet":  {func(h *node) { h.bridge("cni0", netip.MustParsePrefix("10.5.99.0/24")) }, true},
		"an interface in a LAN of its own": {func(h *node) { h.lan("192.168.9.2/24") }, true},
		"a LAN in the network":             {func(h *node) { h.lan("10.5.200.7/24") }, false},
		"a gateway in the network": {func(h *node) {
			h.external(ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.5.200.1"), Link: "eth0", Metric: 900, OnLink: true}})
		}, false},
		"etcd in the network": {func(h *node) {
			h.change = func(c *Config) {
				c.Networks[0].Reached = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.5.200.1")} }
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
				h := w.hosts[0]
				tt.change(h)
				w.start()
				w.converged(soon)
				synctest.Wait()
				want := []ip.UnreachableRoute{{Dst: netip.MustParsePrefix("fc00:5::/48")}}
				if tt.ends {
					want = append([]ip.UnreachableRoute{{Dst: network}}, want...)
				}
				if got := h.owned().Unreachable; !slices.Equal(got, want) {
					t.Errorf("unreachable routes %v, want %v", got, want)
				}
				if tt.ends {
					h.external(ip.Op{Verb: ip.Delete, Old: want[0]})
					w.converged(soon)
				}
			})
		})
	}
}

// lan gives the host a second interface.
func (h *node) lan(prefix string) {
	h.kernel.AddInterface(ip.Interface{Name: "eth1", Kind: "device", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.MustParsePrefix(prefix)}}})
}
