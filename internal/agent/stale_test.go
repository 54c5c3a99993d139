package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
)

// bridges is what is said of them.
func bridges(h *node) []string { return h.texts(trouble.BridgeStale, trouble.BridgeShared) }

// Bridges that hold the present subnet beside each other are named: what is on them gets the same addresses.
func TestBridgesThatShareTheLeaseAreNamed(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		w.converged(soon)
		own := h.agent.Status().Of("").Lease.Subnets[0]
		gateway := own.Addr().Next()
		add := func(name string, bits int) {
			h.kernel.AddInterface(ip.Interface{Name: name, MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.PrefixFrom(gateway, bits)}}})
		}
		add("cni0", own.Bits())
		add("veth1", own.Addr().BitLen())
		w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready })
		if got := bridges(h); len(got) > 0 {
			t.Errorf("with one bridge, status says %q", got)
		}
		add("docker0", own.Bits())
		w.within(soon, "named", func(h *node) bool { return h.agent.Status().Ready && len(bridges(h)) == 1 })
		if got, want := bridges(h)[0], "cni0, docker0 all hold "+own.String(); !strings.Contains(got, want) {
			t.Errorf("status says %q, want %q in it", got, want)
		}
	})
}

// Bridges that have a part of the subnet each do not.
func TestBridgesWithHalfTheLeaseShareNothing(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		w.converged(soon)
		half := netip.PrefixFrom(h.agent.Status().Of("").Lease.Subnets[0].Addr(), 25)
		for name, first := range map[string]netip.Addr{"cni0": half.Addr().Next(), "docker0": ip.Last(half).Next().Next()} {
			h.kernel.AddInterface(ip.Interface{Name: name, MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.PrefixFrom(first, half.Bits())}}})
		}
		<-time.After(time.Minute) // a full pass sees them
		w.converged(soon)
		if got := bridges(h); len(got) > 0 {
			t.Errorf("status says %q", got)
		}
	})
}

// A network of hosts that shares addresses with the containers' is named as one, whichever holds the other, and the uplink's is no exception.
func TestOverlapsAreNamed(t *testing.T) {
	for name, tt := range map[string]struct {
		network string
		lan     string
		want    string
	}{
		"a LAN in the network":     {"10.5.0.0/16", "10.5.200.7/24", "eth1 is in 10.5.200.0/24, which overlaps with the network 10.5.0.0/16"},
		"the network in a LAN":     {"10.5.0.0/16", "10.0.0.7/8", "eth1 is in 10.0.0.0/8, which overlaps with the network 10.5.0.0/16"},
		"the uplink's LAN":         {"172.30.0.0/16", "192.168.9.2/24", "eth0 is in 172.30.0.0/24, which overlaps with the network 172.30.0.0/16"},
		"none that has to do with": {"10.5.0.0/16", "10.6.0.7/16", ""},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, `{"Network":"`+tt.network+`","SubnetLen":24}`, 1, func(t *testing.T, w *world) {
				h := w.hosts[0]
				h.lan(tt.lan)
				h.start()
				w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready })
				got := strings.Join(h.texts(trouble.NetworkOverlaps), "; ")
				if stale := bridges(h); len(stale) > 0 || !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
					t.Errorf("told of %q and %q, want %q", got, stale, tt.want)
				}
			})
		})
	}
}

// A bridge with a subnet that another host has by now is named with that host.
func TestBridgeWithThePeersSubnet(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h, peer := w.hosts[0], w.hosts[1]
		h.bridge("docker0", peer.lease())
		w.within(soon, "named", func(o *node) bool {
			return o != h || len(bridges(h)) == 1 && strings.Contains(bridges(h)[0], peer.name+" at "+publicOf(h, peer)[0].String())
		})
	})
}

// A bridge with a subnet of the past is named with the command that moves it, and nothing is done to it.
func TestBridgeOfAnEarlierLeaseIsNamed(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		w.converged(soon)
		own := h.agent.Status().Of("").Lease.Subnets[0]
		bridge := func(name string, p netip.Prefix) ip.Interface {
			return ip.Interface{Name: name, MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.PrefixFrom(p.Addr().Next(), p.Bits())}}}
		}
		h.kernel.AddInterface(bridge("cni0", own))
		h.kernel.AddInterface(bridge("docker0", netip.MustParsePrefix("10.5.0.0/24")))
		h.kernel.AddInterface(bridge("br-old", netip.MustParsePrefix("10.5.0.0/25")))
		h.kernel.AddInterface(bridge("br-other", netip.MustParsePrefix("192.168.0.0/24")))
		w.within(soon, "named", func(h *node) bool { return h.agent.Status().Ready && len(bridges(h)) == 2 })
		for i, want := range [][]string{
			{"docker0 holds 10.5.0.1/24", own.String(), "tulle docker configure --restart"},
			{"br-old holds 10.5.0.1/25", "ip address del 10.5.0.1/25 dev br-old"},
		} {
			for _, text := range want {
				if got := bridges(h)[i]; !strings.Contains(got, text) {
					t.Errorf("%q lacks %q", got, text)
				}
			}
		}
	})
}

// A bridge with a subnet of a network that was configured earlier is named, with the command that mends it: its containers reach nobody.
func TestBridgeOfAnEarlierNetworkIsNamed(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		w.converged(soon)
		h.bridge("cni0", h.lease())
		h.bridge("virbr0", netip.MustParsePrefix("192.168.122.0/24"))
		h.stop()
		old := h.agent.Status().Of("").Lease.Subnets[0]
		w.store.Put("config", `{"Network":"10.7.0.0/16"}`, 0)
		h.start()
		w.within(soon, "named", func(h *node) bool { return h.agent.Status().Ready && len(bridges(h)) == 1 })
		gateway := netip.PrefixFrom(old.Addr().Next(), old.Bits()).String()
		for _, want := range []string{"cni0 holds " + gateway, "the network 10.5.0.0/16", h.lease().String(), "ip address del " + gateway + " dev cni0"} {
			if got := bridges(h)[0]; !strings.Contains(got, want) {
				t.Errorf("%q lacks %q", got, want)
			}
		}
		h.kernel.RemoveInterface("cni0")
		w.within(soon, "gone", func(h *node) bool { return h.agent.Status().Ready && len(bridges(h)) == 0 })
	})
}
