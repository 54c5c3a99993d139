package agent

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/ip"
)

// DHCP gives another address with a gap in which the virtual one alone is there.
func TestUplinkVirtualAddressInAGap(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		own := iface("eth0", "172.30.0.99/32", "172.30.0.1/24")
		own.Addrs[1].Dynamic = true
		h.kernel.SetInterface(own)
		w.start()
		h.uses("at first", "eth0")
		h.kernel.SetInterface(iface("eth0", "172.30.0.99/32"))
		<-time.After(time.Second)
		h.kernel.SetInterface(own)
		h.uses("own address is there again", "eth0")
		if p := publicOf(w.hosts[1], h); !slices.Equal(p, []netip.Addr{netip.MustParseAddr("172.30.0.1")}) {
			t.Errorf("peers send to the virtual address %v an hour after the own came back (1 s gap); record %+v", p, h.record().Established)
		}
	})
}

// A substitute with both families works; the established one comes back with IPv4 alone.
func TestUplinkEstablishedComesBackWithoutAFamily(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.backup()
		w.start()
		<-time.After(established)
		h.kernel.RemoveInterface("eth0")
		<-time.After(5 * time.Minute)
		w.converged(soon)
		h.kernel.AddInterface(iface("eth0", "172.30.0.1/24"))
		h.uses("half of the established is back", "eth1")
	})
}

// The operator named several interfaces; the one in use loses a family.
func TestUplinkNamedListLosesAFamily(t *testing.T) {
	for name, choice := range map[string]ip.UplinkChoice{
		"list":  {Interfaces: []string{"eth0", "eth1"}},
		"regex": {Patterns: []*regexp.Regexp{regexp.MustCompile(`^eth`)}},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
				h := w.hosts[0]
				h.backup()
				h.change = func(c *Config) { c.Uplink = choice }
				w.start()
				h.uses("at first", "eth0")
				h.kernel.SetInterface(without(eth0(h.n), ip.IPv6))
				<-time.After(established)
				synctest.Wait()
				if st := h.agent.Status(); st.Uplink.Link != "eth0" {
					t.Errorf("moved to %+v, ready %v; peers send to %v", *st.Uplink, st.Ready, publicOf(w.hosts[1], h))
				}
			})
		})
	}
}

// --iface-can-reach, and a VPN that takes the default route.
func TestUplinkCanReachAndVPN(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.change = func(c *Config) { c.Uplink.CanReach = netip.MustParseAddr("8.8.8.8") }
		w.start()
		h.uses("at first", "eth0")
		h.vpn()
		h.uses("VPN", "eth0")
	})
}

// An IPv6 host whose router announces preferred lifetime 0.
func TestUplinkDeprecatedAlone(t *testing.T) {
	for name, config := range map[string]string{"IPv6": `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48"}`, "dual": dualConfig} {
		for _, vpn := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " vpn ", vpn), func(t *testing.T) {
				simulate(t, config, 2, func(t *testing.T, w *world) {
					h := w.hosts[0]
					w.start()
					h.uses("at first", "eth0")
					if vpn {
						h.vpn()
						h.uses("vpn", "eth0")
					}
					e := eth0(h.n)
					e.Addrs[1].Deprecated, e.Addrs[1].Dynamic = true, true
					h.kernel.SetInterface(e)
					h.uses("deprecated", "eth0")
				})
			})
		}
	}
}

// The lease is another's by now; what is in force is still mended, unless a family is lacking.
func TestUplinkLeaseLostAndLacking(t *testing.T) {
	for name, lack := range map[string]bool{"control": false, "lacking": true} {
		t.Run(name, func(t *testing.T) {
			simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
				h, peer := w.hosts[0], w.hosts[1]
				w.start()
				<-time.After(established)
				w.converged(soon)
				if lack {
					h.kernel.SetInterface(without(eth0(h.n), ip.IPv6))
					<-time.After(established)
				}
				var route ip.Route
				for _, r := range h.owned().Routes {
					if r.Dst.Addr().Is4() && r.Dst.Addr() == peer.agent.Status().Of("").Lease.Subnets[0].Addr() {
						route = r
					}
				}
				key := "subnets/" + strings.TrimPrefix(h.key(), "subnets/")
				value, _, _ := w.store.Get(key)
				value = strings.ReplaceAll(strings.ReplaceAll(value, "172.30.0.1", "172.30.0.77"), "fd30::1", "fd30::77")
				value = strings.ReplaceAll(value, `h1"`, `h77"`)
				w.store.Put(key, value, 0)
				<-time.After(established)
				h.mends(route)
			})
		})
	}
}

// The configuration is away for a while; the uplink changes meanwhile.
func TestUplinkTimeWithoutLookingEstablishes(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.backup()
		w.start()
		h.uses("at first", "eth0")
		h.kernel.RemoveInterface("eth0")
		<-time.After(time.Second)
		w.store.Delete("config")
		<-time.After(2 * time.Second)
		h.uplink(h.n)
		<-time.After(11 * time.Minute)
		w.store.Put("config", v4Config, 0)
		h.uses("back after 3 s", "eth0")
	})
}

// A bridge takes the interface and one of its addresses over, and loses a family within ten minutes.
func TestUplinkBridgeLosesAFamily(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		<-time.After(established)
		h.kernel.SetInterface(iface("eth0"))
		h.kernel.AddInterface(iface("br0", "172.30.0.201/24", "fd30::1/64"))
		for dst, via := range bothDefaults {
			h.external(ip.Op{Verb: ip.Delete, Old: ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "eth0"}},
				ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "br0"}})
		}
		<-time.After(established)
		w.converged(soon)
		was := publicOf(w.hosts[1], h)
		h.kernel.SetInterface(iface("br0", "fd30::1/64"))
		<-time.After(established)
		if now := publicOf(w.hosts[1], h); !slices.Equal(was, now) {
			t.Errorf("peers are told %v, were told %v", now, was)
		}
	})
}

// The same, and another address comes to the bridge.
func TestUplinkBridgeGetsAnotherAddress(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		<-time.After(established)
		h.kernel.SetInterface(iface("eth0"))
		br := iface("br0", "172.30.0.201/24", "fd30::1/64")
		br.Addrs[0].Dynamic = true
		h.kernel.AddInterface(br)
		for dst, via := range bothDefaults {
			h.external(ip.Op{Verb: ip.Delete, Old: ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "eth0"}},
				ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "br0"}})
		}
		<-time.After(established)
		w.converged(soon)
		was := publicOf(w.hosts[1], h)
		br.Addrs = append(br.Addrs, ip.InterfaceAddr{Prefix: netip.MustParsePrefix("172.30.0.99/24")})
		h.kernel.SetInterface(br)
		<-time.After(established)
		if now := publicOf(w.hosts[1], h); !slices.Equal(was, now) {
			t.Errorf("peers are told %v, were told %v", now, was)
		}
	})
}

// While IPv4 is lacking IPv6 is renumbered, and then another address comes.
func TestUplinkLackingAndAnotherAddress(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		<-time.After(established)
		e := iface("eth0", "fd30::c9/64")
		e.Addrs[0].Dynamic = true
		h.kernel.SetInterface(e)
		<-time.After(established)
		synctest.Wait()
		was := publicOf(w.hosts[1], h)
		t.Log(was)
		e.Addrs = append(e.Addrs, ip.InterfaceAddr{Prefix: netip.MustParsePrefix("fd30::99/128")})
		h.kernel.SetInterface(e)
		<-time.After(established)
		if now := publicOf(w.hosts[1], h); !slices.Equal(was, now) {
			t.Errorf("peers are told %v, were told %v", now, was)
		}
	})
}

// The other network of a host goes on.
func TestUplinkTwoNetworks(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.second()
		h := w.hosts[0]
		w.start()
		<-time.After(established)
		h.vpn()
		h.kernel.SetInterface(without(eth0(h.n), ip.IPv6))
		<-time.After(established)
		synctest.Wait()
		for _, n := range []string{"", "red"} {
			st := h.agent.Status().Of(n)
			t.Logf("%q ready %v %s", n, st.Ready, st.Reason)
		}
		if !h.agent.Status().Of("red").Ready {
			t.Error("red is not ready")
		}
		h.stop()
		h.start()
		<-time.After(established)
		synctest.Wait()
		if !h.agent.Status().Of("red").Ready {
			t.Error("red is not ready")
		}
	})
}

// Renamed live, then a family goes, while another interface has taken the name.
func TestUplinkRenamedLive(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		<-time.After(established)
		h.kernel.RemoveInterface("eth0")
		h.kernel.AddInterface(iface("ens3", "172.30.0.1/24", "fd30::1/64"))
		h.kernel.AddInterface(iface("eth0", "192.168.9.2/24", "fd99::2/64"))
		h.uses("renamed", "ens3")
		h.kernel.SetInterface(iface("ens3", "172.30.0.1/24"))
		<-time.After(established)
		if l := h.agent.Status().Uplink.Link; l != "ens3" {
			t.Error(l)
		}
	})
}

// The same within ten minutes.
func TestUplinkRenamedLiveSoon(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		<-time.After(established)
		h.kernel.RemoveInterface("eth0")
		h.kernel.AddInterface(iface("ens3", "172.30.0.1/24", "fd30::1/64"))
		h.kernel.AddInterface(iface("eth0", "192.168.9.2/24", "fd99::2/64"))
		<-time.After(established)
		w.converged(soon)
		h.kernel.SetInterface(iface("ens3", "172.30.0.1/24"))
		<-time.After(established)
		if l := h.agent.Status().Uplink.Link; l != "ens3" {
			t.Error(l)
		}
	})
}

// An uplink that is taken out of service for a second beside a VPN, IPv6 returns by RA two seconds later.
func TestUplinkDownAndUpBesideVPN(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		<-time.After(established)
		h.vpn()
		h.uses("vpn", "eth0")
		e := eth0(h.n)
		e.Up = false
		h.kernel.SetInterface(e)
		<-time.After(time.Second)
		h.kernel.SetInterface(without(eth0(h.n), ip.IPv6))
		<-time.After(2 * time.Second)
		h.kernel.SetInterface(eth0(h.n))
		h.uses("up again", "eth0")
	})
}

// An uplink that flaps beside another.
func TestUplinkFlaps(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.backup()
		w.start()
		<-time.After(established)
		for range 30 {
			h.kernel.RemoveInterface("eth0")
			<-time.After(55 * time.Second)
			h.uplink(h.n)
			<-time.After(5 * time.Second)
		}
		h.uses("flaps", "eth0")
	})
}

// Peers that come while the substitute is used are reached by it.
func TestUplinkIncrementalAfterAMove(t *testing.T) {
	simulate(t, strings.Replace(dualConfig, "vxlan", "host-gw", 1), 3, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		w.hosts[1].start()
		<-time.After(established)
		h.kernel.RemoveInterface("eth0")
		h.kernel.AddInterface(iface("br0", "172.30.0.201/24", "fd30::c9/64"))
		for dst, via := range bothDefaults {
			h.external(ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "br0"}})
		}
		<-time.After(established)
		w.hosts[2].start()
		<-time.After(established)
		w.converged(soon)
		for _, r := range h.owned().Routes {
			if r.Link != "br0" {
				t.Error(r)
			}
		}
	})
}
