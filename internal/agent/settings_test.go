package agent

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"tulle/ip"
)

// set does what sysctl(8) does.
func (h *node) set(settings ...ip.Sysctl) {
	for _, s := range settings {
		h.external(ip.Op{Verb: ip.Add, New: s})
	}
}

// get reads a setting of a link.
func (h *node) get(f ip.Family, link, name string) string {
	h.t.Helper()
	setting := ip.LinkSetting(f, link, name, "")
	snap, err := h.kernel.Snapshot(h.t.Context(), ip.Scope{Sysctls: []ip.Sysctl{setting}})
	if err != nil || len(snap.Owned.Sysctls) != 1 {
		h.t.Fatalf("%s: %v, %v", setting.Key, snap.Owned.Sysctls, err)
	}
	return snap.Owned.Sysctls[0].Value
}

// What a single link is told is mended where packets of containers come in, and left alone elsewhere.
func TestSettingsOfLinks(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.kernel.AddInterface(ip.Interface{Name: "eth1", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("192.168.9.2/24")}}})
		w.start()
		w.converged(soon)
		h.bridge("cni0", h.lease())
		w.converged(soon)
		const off = "0"
		for _, tt := range []struct {
			broken ip.Sysctl
			want   string
		}{
			{ip.LinkSetting(ip.IPv4, "flannel.1", "forwarding", off), "1"},
			{ip.LinkSetting(ip.IPv4, "cni0", "forwarding", off), "1"},
			{ip.LinkSetting(ip.IPv4, "eth0", "forwarding", off), "1"},
			{ip.LinkSetting(ip.IPv4, "eth1", "forwarding", off), off},
			{ip.LinkSetting(ip.IPv6, "flannel-v6.1", "disable_ipv6", "1"), "0"},
			{ip.LinkSetting(ip.IPv6, "flannel-v6.1", "accept_ra", "1"), "0"},
		} {
			h.set(tt.broken)
			w.converged(soon)
			synctest.Wait()
			family := ip.IPv4
			if tt.broken.Link == "flannel-v6.1" {
				family = ip.IPv6
			}
			name := tt.broken.Key[len(ip.LinkSetting(family, tt.broken.Link, "", "").Key):]
			if got := h.get(family, tt.broken.Link, name); got != tt.want {
				t.Errorf("%s is %s, want %s", tt.broken.Key, got, tt.want)
			}
		}
	})
}

// learnt is a host whose way to the world over IPv6 is known by router advertisements in the kernel.
func (h *node) learnt() ip.Route {
	eth0 := eth0(h.n)
	eth0.Addrs[1].Dynamic = true
	h.kernel.SetInterface(eth0)
	static := ip.Route{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd30::fe"), Link: "eth0"}
	learnt := static
	learnt.Protocol, learnt.Metric = ip.ProtocolRA, 1024
	h.external(ip.Op{Verb: ip.Delete, Old: static}, ip.Op{Verb: ip.Add, New: learnt})
	h.set(ip.LinkSetting(ip.IPv6, "eth0", "accept_ra", "1"))
	return learnt
}

// A host that forwards heeds router advertisements as before, and its containers do not become its routers.
func TestRouterAdvertisementsAreHeeded(t *testing.T) {
	for name, config := range map[string]string{
		"dual": dualConfig,
		"IPv6": `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48"}`,
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, config, 2, func(t *testing.T, w *world) {
				h := w.hosts[0]
				learnt := h.learnt()
				for _, link := range []string{"veth7", "br-vm"} {
					kind := map[string]string{"veth7": "veth", "br-vm": "bridge"}[link]
					h.kernel.AddInterface(ip.Interface{Name: link, Kind: kind, MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{
						{Prefix: netip.MustParsePrefix("2001:db8::7/64"), Dynamic: true},
					}})
					h.set(ip.LinkSetting(ip.IPv6, link, "accept_ra", "1"))
				}
				w.start()
				w.converged(soon)
				synctest.Wait()
				snap, err := h.kernel.Snapshot(t.Context(), ip.Scope{})
				if err != nil {
					t.Fatal(err)
				}
				found := false
				for _, r := range snap.Defaults {
					found = found || r == learnt
				}
				if !found {
					t.Errorf("default routes %v, want %v", snap.Defaults, learnt)
				}
				for link, want := range map[string]string{"eth0": "2", "veth7": "1", "br-vm": "1"} {
					if got := h.get(ip.IPv6, link, "accept_ra"); got != want {
						t.Errorf("accept_ra of %s is %s, want %s", link, got, want)
					}
				}
				// What the operator switches off stays off.
				h.set(ip.LinkSetting(ip.IPv6, "eth0", "accept_ra", "0"))
				<-time.After(time.Minute)
				w.converged(soon)
				if got := h.get(ip.IPv6, "eth0", "accept_ra"); got != "0" {
					t.Errorf("accept_ra of eth0 is %s, want 0", got)
				}
			})
		})
	}
}
