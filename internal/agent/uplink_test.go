package agent

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet/flannel"
)

func TestUplinkAddressChanges(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h, peer := w.hosts[0], w.hosts[1]
		subnets := h.agent.Status().Of("").Lease.Subnets
		h.move(201)
		moved := netip.MustParseAddr("172.30.0.201")
		w.within(soon, "the peer follows", func(*node) bool {
			return slices.ContainsFunc(peer.owned().FDB, func(f ip.FDB) bool { return f.Dst == moved })
		})
		w.converged(soon)
		if got := h.agent.Status().Of("").Lease.Subnets; !slices.Equal(got, subnets) {
			t.Errorf("subnets %v, were %v", got, subnets)
		}
	})
}

// A virtual address that comes to the uplink, and goes again, is none of Tulle's business.
func TestUplinkGetsAnotherAddress(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		h.kernel.Refuse(func(op ip.Op) error {
			t.Errorf("the kernel is changed: %s", op)
			return nil
		})
		for range 2 {
			more := eth0(h.n)
			more.Addrs = append([]ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("fd30::ff/128")}}, more.Addrs...)
			h.kernel.SetInterface(more)
			w.converged(soon)
			h.stop()
			h.start() // and is known after a restart
		}
	})
}

// vpn gives the host an interface with default routes that come before its own.
func (h *node) vpn() {
	tun := ip.Interface{Name: "tun0", MTU: 1400, Up: true, Addrs: []ip.InterfaceAddr{
		{Prefix: netip.MustParsePrefix("10.8.0.2/24")}, {Prefix: netip.MustParsePrefix("fd08::2/64")},
	}}
	h.kernel.AddInterface(tun)
	for dst, via := range bothDefaults {
		own := ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "eth0"}
		after := own
		after.Metric = 2000
		h.external(ip.Op{Verb: ip.Delete, Old: own}, ip.Op{Verb: ip.Add, New: after})
	}
	h.external(
		ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.8.0.1"), Link: "tun0", Metric: 50}},
		ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd08::1"), Link: "tun0", Metric: 50}},
	)
}

// The uplink in use is kept, also over restarts, while default routes come and go; and what others take away is put back meanwhile.
func TestUplinkIsKept(t *testing.T) {
	for name, change := range map[string]func(*node){
		"a default route that comes first": (*node).vpn,
		"no default route": func(h *node) {
			for dst, via := range bothDefaults {
				h.external(ip.Op{Verb: ip.Delete, Old: ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "eth0"}})
			}
		},
		"a virtual address beside one with a lifetime": func(h *node) {
			leased := eth0(h.n)
			for i := range leased.Addrs {
				leased.Addrs[i].Dynamic = true
			}
			leased.Addrs = append([]ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("172.30.0.99/32")}, {Prefix: netip.MustParsePrefix("fd30::99/128")}}, leased.Addrs...)
			h.kernel.SetInterface(leased)
		},
	} {
		for behind, public := range map[string]ip.Dual[netip.Addr]{"": {}, ", behind NAT": {V4: netip.MustParseAddr("203.0.113.1")}} {
			t.Run(name+behind, func(t *testing.T) {
				simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
					h := w.hosts[0]
					h.change = func(c *Config) { c.Uplink.Public = public }
					w.start()
					<-time.After(established)
					w.converged(soon)
					was, uplink := h.owned(), *h.agent.Status().Uplink
					kept := func(what string) {
						t.Helper()
						<-time.After(time.Minute)
						w.converged(soon)
						if now := *h.agent.Status().Uplink; fmt.Sprint(now) != fmt.Sprint(uplink) {
							t.Errorf("%s: another uplink: %v, was %v", what, now, uplink)
						}
						if diff := cmp.Diff(was.String(), h.owned().String()); diff != "" {
							t.Errorf("%s: another state:\n%s", what, diff)
						}
					}
					change(h)
					kept("at once")
					h.external(ip.Op{Verb: ip.Delete, Old: was.Routes[0]}, ip.Op{Verb: ip.Delete, Old: was.FDB[0]})
					kept("after something was taken away")
					h.stop()
					h.start()
					kept("after a restart")
				})
			})
		}
	}
}

// An uplink that loses the addresses of one family serves the other: what others take away is put back, and new peers are reached.
func TestUplinkLosesAFamily(t *testing.T) {
	for name, tt := range map[string]struct {
		config string
		lost   ip.Family
	}{
		"vxlan, IPv4":   {dualConfig, ip.IPv4},
		"vxlan, IPv6":   {dualConfig, ip.IPv6},
		"host-gw, IPv4": {strings.Replace(dualConfig, "vxlan", "host-gw", 1), ip.IPv4},
		"host-gw, IPv6": {strings.Replace(dualConfig, "vxlan", "host-gw", 1), ip.IPv6},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, tt.config, 3, func(t *testing.T, w *world) {
				h, late := w.hosts[0], w.hosts[2]
				h.start()
				w.hosts[1].start()
				early := &world{t: t, hosts: w.hosts[:2]}
				early.converged(soon)
				routes := func(f ip.Family) (all []ip.Route) {
					for _, r := range h.owned().Routes {
						if ip.FamilyOf(r.Dst.Addr()) == f {
							all = append(all, r)
						}
					}
					return all
				}
				other := ip.IPv4
				if tt.lost == ip.IPv4 {
					other = ip.IPv6
				}
				was := routes(other)
				less := eth0(h.n)
				less.Addrs = slices.DeleteFunc(less.Addrs, func(a ip.InterfaceAddr) bool { return ip.FamilyOf(a.Prefix.Addr()) == tt.lost })
				h.kernel.SetInterface(less)
				early.within(soon, "told", func(n *node) bool {
					return n != h || len(n.texts(trouble.UplinkMissing)) > 0 && !n.agent.Status().Ready
				})
				h.external(ip.Op{Verb: ip.Delete, Old: was[0]})
				early.within(soon, "put back", func(*node) bool { return slices.Equal(was, routes(other)) })
				late.start()
				early.within(soon, "a new peer is reached", func(*node) bool { return len(routes(other)) == 2 })
				h.stop()
				h.external(ip.Op{Verb: ip.Delete, Old: was[0]})
				h.start()
				early.within(soon, "put back after a restart", func(*node) bool { return len(routes(other)) == 2 })
				h.kernel.SetInterface(eth0(h.n))
				w.converged(soon)
			})
		})
	}
}

func TestUplinkGoesAndReturns(t *testing.T) {
	for name, config := range map[string]string{
		"vxlan":   dualConfig,
		"host-gw": strings.Replace(dualConfig, "vxlan", "host-gw", 1),
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, config, 2, func(t *testing.T, w *world) {
				w.start()
				w.converged(soon)
				h := w.hosts[0]
				was := h.owned().String()
				h.kernel.RemoveInterface("eth0")
				left := h.owned().String()
				w.within(soon, "noticed", func(o *node) bool {
					st := o.agent.Status()
					return o != h || !st.Ready && strings.Contains(st.Reason, "default route")
				})
				<-time.After(time.Hour)
				synctest.Wait()
				if diff := cmp.Diff(left, h.owned().String()); diff != "" {
					t.Errorf("the kernel was changed without an uplink:\n%s", diff)
				}
				h.uplink(h.n)
				w.converged(2 * time.Second)
				if diff := cmp.Diff(was, h.owned().String()); diff != "" {
					t.Errorf("another state than before:\n%s", diff)
				}
			})
		})
	}
}

func TestUplinkComesLate(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.kernel.RemoveInterface("eth0")
		w.start()
		<-time.After(time.Hour)
		synctest.Wait()
		if st := h.agent.Status(); st.Ready || !strings.Contains(st.Reason, "--iface") {
			t.Errorf("without an uplink: %+v", st)
		}
		h.uplink(h.n)
		w.converged(2 * time.Second)
	})
}

func TestUplinkMTUChanges(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		h.kernel.Refuse(func(op ip.Op) error {
			if op.Verb != ip.Replace {
				t.Errorf("more than the MTU is changed: %s", op)
			}
			return nil
		})
		eth0 := eth0(h.n)
		eth0.MTU = 9000
		h.kernel.SetInterface(eth0)
		w.within(2*time.Second, "followed", func(o *node) bool { return o != h || h.link("flannel.1").MTU == 8950 })
		w.converged(soon)
		env, err := flannel.ReadEnv(filepath.Join(h.dir, "subnet.env"))
		if err != nil || env.MTU != 8930 {
			t.Errorf("subnet file: MTU %d, error %v, want 8930", env.MTU, err)
		}

		eth0.RouteMTU = ip.RouteMTU{Bytes: 1400, Dst: ip.IPv4.All()}
		h.kernel.SetInterface(eth0)
		w.within(2*time.Second, "a route has a smaller one", func(o *node) bool {
			return o != h || h.link("flannel.1").MTU == 1350 && h.link("flannel-v6.1").MTU == 1330 && h.agent.Status().Uplink.Route == ip.IPv4.All()
		})
		w.converged(soon)
		if env, err := flannel.ReadEnv(filepath.Join(h.dir, "subnet.env")); err != nil || env.MTU != 1330 {
			t.Errorf("subnet file: MTU %d, error %v, want 1330", env.MTU, err)
		}
		eth0.RouteMTU.Bytes = 1300
		h.kernel.SetInterface(eth0)
		w.within(soon, "too small for IPv6 by a route", func(o *node) bool {
			return o != h || strings.Contains(h.agent.Status().Reason, "need 1280: raise the MTU of the route to 0.0.0.0/0 over eth0")
		})

		eth0.MTU, eth0.RouteMTU = 1300, ip.RouteMTU{}
		h.kernel.SetInterface(eth0)
		w.within(soon, "too small for IPv6", func(o *node) bool {
			return o != h || strings.Contains(h.agent.Status().Reason, "need 1280: raise the MTU of eth0")
		})
	})
}

// Another host's address that this host takes over, as a virtual address moves, must not send its packets in circles.
func TestPeerWithAnAddressOfThisHost(t *testing.T) {
	for name, config := range map[string]string{
		"vxlan":   dualConfig,
		"direct":  strings.Replace(dualConfig, `"vxlan"`, `"vxlan","DirectRouting":true`, 1),
		"host-gw": strings.Replace(dualConfig, "vxlan", "host-gw", 1),
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, config, 2, func(t *testing.T, w *world) {
				w.start()
				w.converged(soon)
				h := w.hosts[0]
				h.kernel.AddInterface(ip.Interface{Name: "eth1", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("172.30.0.2/32")}}})
				w.within(soon, "reported", func(o *node) bool {
					st := h.agent.Status()
					return st.Ready && len(h.leftOut()) == 1 && strings.Contains(h.leftOut()[0].Text, "172.30.0.2 is this host's own")
				})
				for _, f := range h.owned().FDB {
					if f.Dst == netip.MustParseAddr("172.30.0.2") {
						t.Errorf("sends to itself: %v", f)
					}
				}
				h.kernel.RemoveInterface("eth1")
				w.converged(soon)
			})
		})
	}
}

// A name that no interface has, or that is of a device of Tulle's own, is refused before anything is changed, with those that could be meant.
func TestWrongInterfaceIsRefused(t *testing.T) {
	for _, name := range []string{"eth7", "flannel.1"} {
		t.Run(name, func(t *testing.T) {
			simulate(t, v4Config, 2, func(t *testing.T, w *world) {
				w.start()
				w.converged(soon)
				h := w.hosts[0]
				h.stop()
				was := h.owned().String()
				h.change = func(c *Config) { c.Uplink.Interfaces = []string{name} }
				h.start()
				want := "--iface " + name + ": no such interface on this host, Tulle's own aside: could be eth0"
				w.within(soon, "refused", func(o *node) bool {
					return o != h || !h.agent.Status().Ready && strings.Contains(h.agent.Status().Reason, want)
				})
				if diff := cmp.Diff(was, h.owned().String()); diff != "" {
					t.Errorf("the kernel is changed:\n%s", diff)
				}
			})
		})
	}
}
