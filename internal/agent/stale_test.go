package agent

import (
	"net/netip"
	"strings"
	"testing"

	"tulle/ip"
)

// A bridge with a subnet of the past is named with the command that moves it, and nothing is done to it.
func TestBridgeOfAnEarlierLeaseIsNamed(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		w.converged(soon)
		own := h.agent.Status().Lease.Subnets[0]
		bridge := func(name string, p netip.Prefix) ip.Interface {
			return ip.Interface{Name: name, MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.PrefixFrom(p.Addr().Next(), p.Bits())}}}
		}
		h.kernel.AddInterface(bridge("cni0", own))
		h.kernel.AddInterface(bridge("docker0", netip.MustParsePrefix("10.5.0.0/24")))
		h.kernel.AddInterface(bridge("br-old", netip.MustParsePrefix("10.5.0.0/25")))
		h.kernel.AddInterface(bridge("br-other", netip.MustParsePrefix("192.168.0.0/24")))
		w.within(soon, "named", func(h *node) bool { return h.agent.Status().Ready && len(h.agent.Status().Stale) == 2 })
		for i, want := range [][]string{
			{"docker0 holds 10.5.0.1/24", own.String(), "tulle docker configure --restart"},
			{"br-old holds 10.5.0.1/25", "ip address del 10.5.0.1/25 dev br-old"},
		} {
			for _, text := range want {
				if got := h.agent.Status().Stale[i]; !strings.Contains(got, text) {
					t.Errorf("%q lacks %q", got, text)
				}
			}
		}
	})
}
