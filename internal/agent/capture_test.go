package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tulle/ip"
)

// No lease takes etcd or a name server away from a host. A name server that is on no network of the host may be a container.
func TestLeasesThatCaptureServers(t *testing.T) {
	simulate(t, `{"Network":"10.0.0.0/8","SubnetLen":24}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		addr := netip.MustParseAddr
		h.change = func(cfg *Config) {
			cfg.Networks[0].Reached = func() []netip.Addr { return []netip.Addr{addr("10.7.1.1")} }
			cfg.Networks[0].Resolvers = func() []netip.Addr { return []netip.Addr{addr("10.9.7.53"), addr("10.8.8.8")} }
		}
		h.kernel.AddInterface(ip.Interface{Name: "eth1", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("10.9.0.5/16")}}})
		h.start()
		const value = `{"PublicIP":"172.30.0.77","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:04:00:00:00:77"}}`
		for _, key := range []string{"10.7.1.0-24", "10.9.7.0-24", "10.8.8.0-24"} {
			w.store.Put("subnets/"+key, value, 0)
		}
		var refused []string
		w.within(soon, "judged", func(*node) bool {
			refused = nil
			for _, p := range h.leftOut() {
				refused = append(refused, strings.TrimPrefix(p.Subject, "subnets/"))
			}
			return h.agent.Status().Ready && len(refused) > 0
		})
		if want := []string{"10.7.1.0-24", "10.9.7.0-24"}; !slices.Equal(refused, want) {
			t.Errorf("refused %q, want %q: %v", refused, want, h.leftOut())
		}
		if routes := h.routed(); len(routes) != 1 || routes["10.8.8.0/24"] == "" {
			t.Errorf("routes %v, want one to 10.8.8.0/24", routes)
		}
	})
}

// A lease that names the broadcast address of the underlay would have each packet sent to all hosts.
func TestLeaseAtABroadcastAddress(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		broadcast := ip.Last(eth0(h.n).Addrs[0].Prefix)
		w.store.Put("subnets/10.5.7.0-24", `{"PublicIP":"`+broadcast.String()+`","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:04:00:00:00:77"}}`, 0)
		w.within(soon, "left out", func(*node) bool {
			out := h.leftOut()
			return len(out) == 1 && strings.Contains(out[0].Text, broadcast.String()+" is not the address of a host")
		})
	})
}
