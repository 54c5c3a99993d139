package agent

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
)

// established is more than an uplink takes to be that.
const established = time.Minute

var bothDefaults = map[string]string{"0.0.0.0/0": "172.30.0.254", "::/0": "fd30::fe"}

// without is an interface without its addresses of a family.
func without(i ip.Interface, f ip.Family) ip.Interface {
	i.Addrs = slices.DeleteFunc(slices.Clone(i.Addrs), func(a ip.InterfaceAddr) bool { return ip.FamilyOf(a.Prefix.Addr()) == f })
	return i
}

// backup gives the host eth1, with default routes that come after those of eth0.
func (h *node) backup() {
	h.kernel.AddInterface(ip.Interface{Name: "eth1", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{
		{Prefix: netip.MustParsePrefix("192.168.9.2/24")}, {Prefix: netip.MustParsePrefix("fd99::2/64")},
	}})
	for dst, via := range map[string]string{"0.0.0.0/0": "192.168.9.1", "::/0": "fd99::1"} {
		h.external(ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "eth1", Metric: 600}})
	}
}

// uses checks by which interface the host sends after a quarter of an hour, in which a substitute is established. The address of one that is not on the peers' network does not leave by it.
func (h *node) uses(what, link string) {
	h.t.Helper()
	<-time.After(15 * time.Minute)
	synctest.Wait()
	if st := h.agent.Status(); st.Uplink == nil || st.Uplink.Link != link || !st.Ready && !(link == "eth1" && st.Troubles.Has(trouble.UplinkDiverted)) {
		h.t.Errorf("%s: uplink %+v, ready %v (%s), want %s", what, st.Uplink, st.Ready, st.Reason, link)
	}
}

// publicOf is where a host sees another.
func publicOf(seen, of *node) []netip.Addr {
	for _, p := range seen.agent.Status().Of("").Peers {
		if p.Node == of.name {
			return p.Public
		}
	}
	return nil
}

// An uplink that is gone for a while, or comes late, is used again; one that took its place for long stays.
func TestUplinkComesBack(t *testing.T) {
	for name, config := range map[string]string{"IPv4": `{"Network":"10.5.0.0/16"}`, "dual": dualConfig} {
		t.Run(name, func(t *testing.T) {
			simulate(t, config, 2, func(t *testing.T, w *world) {
				h := w.hosts[0]
				h.backup()
				for dst, via := range bothDefaults { // at the first start of all its routes come second
					route := ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "eth0"}
					h.external(ip.Op{Verb: ip.Delete, Old: route})
					time.AfterFunc(time.Second, func() { h.external(ip.Op{Verb: ip.Add, New: route}) })
				}
				w.start()
				h.uses("at first", "eth0")
				h.kernel.RemoveInterface("eth0")
				<-time.After(2 * time.Second)
				h.uplink(h.n)
				h.uses("after two seconds", "eth0")
				h.stop()
				h.kernel.RemoveInterface("eth0")
				h.start()
				<-time.After(2 * time.Second)
				h.uplink(h.n)
				h.uses("two seconds after a start", "eth0")
				h.kernel.RemoveInterface("eth0")
				h.uses("without it", "eth1")
				h.uplink(h.n)
				h.uses("after an hour", "eth1")
			})
		})
	}
}

// An uplink that gets another address stays the uplink, though a VPN has the default routes.
func TestUplinkIsRenumberedBesideVPN(t *testing.T) {
	for name, config := range map[string]string{"IPv4": `{"Network":"10.5.0.0/16"}`, "dual": dualConfig} {
		t.Run(name, func(t *testing.T) {
			simulate(t, config, 2, func(t *testing.T, w *world) {
				h := w.hosts[0]
				w.start()
				<-time.After(established)
				h.vpn()
				h.uses("beside a VPN", "eth0")
				renumbered := eth0(201)
				renumbered.Addrs[1] = eth0(h.n).Addrs[1]
				h.kernel.SetInterface(renumbered)
				h.uses("with another IPv4 address", "eth0")
				h.move(h.n)
				h.uses("with the old one", "eth0")
			})
		})
	}
}

// The clone of a host that is off has nothing of what the record says of that one's uplink.
func TestUplinkOfAClone(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		h, clone, peer := w.hosts[0], w.hosts[1], w.hosts[2]
		h.start()
		peer.start()
		<-time.After(established)
		h.stop()
		if err := os.CopyFS(clone.dir, os.DirFS(h.dir)); err != nil {
			t.Fatal(err)
		}
		<-time.After(72 * time.Hour)
		clone.kernel.SetInterface(without(eth0(clone.n), ip.IPv6))
		clone.start()
		<-time.After(established)
		synctest.Wait()
		if public := publicOf(peer, clone); slices.Contains(public, netip.MustParseAddr("fd30::1")) {
			t.Errorf("the clone announces %v", public)
		}
		h.start()
		h.uses("on its address again", "eth0")
	})
}

// While the uplink lacks a family, nothing is changed, neither on the host nor for its peers, whatever other interface has that family; and what comes
// back may be another address.
func TestUplinkLacksAFamilyForLong(t *testing.T) {
	for name, config := range map[string]string{
		"vxlan":   dualConfig,
		"direct":  strings.Replace(dualConfig, `"vxlan"`, `"vxlan","DirectRouting":true`, 1),
		"host-gw": strings.Replace(dualConfig, "vxlan", "host-gw", 1),
	} {
		for _, lost := range ip.Families() {
			t.Run(name+", "+lost.String(), func(t *testing.T) {
				simulate(t, config, 2, func(t *testing.T, w *world) {
					w.start()
					<-time.After(established)
					h, peer := w.hosts[0], w.hosts[1]
					addr, dst, via := "10.8.0.2/24", "0.0.0.0/0", "10.8.0.1"
					if lost == ip.IPv6 {
						addr, dst, via = "fd08::2/64", "::/0", "fd08::1"
					}
					h.kernel.AddInterface(ip.Interface{Name: "tun0", MTU: 1400, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.MustParsePrefix(addr)}}})
					h.external(ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "tun0", Metric: 50}})
					w.converged(soon)
					seen := publicOf(peer, h)
					h.kernel.SetInterface(without(eth0(h.n), lost))
					<-time.After(established)
					for range 2 {
						synctest.Wait()
						changes := h.agent.Status().Work.Changes
						<-time.After(time.Hour)
						synctest.Wait()
						st := h.agent.Status()
						if st.Ready || st.Uplink.Link != "eth0" || st.Work.Changes != changes || len(h.drift()) > 0 || st.Violated > 0 {
							t.Errorf("ready %t, by %s, %d changes, %d missing, %d violations", st.Ready, st.Uplink.Link, st.Work.Changes-changes, len(h.drift()), st.Violated)
						}
						if now := publicOf(peer, h); !slices.Equal(now, seen) {
							t.Errorf("the peer sends to %v, was %v", now, seen)
						}
						h.stop()
						h.start()
						<-time.After(established)
					}
					h.move(201)
					<-time.After(established)
					w.converged(soon)
					if now := publicOf(peer, h); !slices.Equal(now, []netip.Addr{netip.MustParseAddr("172.30.0.201"), netip.MustParseAddr("fd30::c9")}) {
						t.Errorf("the peer sends to %v", now)
					}
				})
			})
		}
	}
}

// An uplink that the operator named by the address, or the family, that is lost serves the other as well.
func TestNamedUplinkLosesAFamily(t *testing.T) {
	for name, choice := range map[string]ip.UplinkChoice{
		"address":    {Interfaces: []string{"172.30.0.1"}},
		"expression": {Patterns: []*regexp.Regexp{regexp.MustCompile(`^172\.30\.`)}},
		"reach":      {CanReach: netip.MustParseAddr("172.30.0.2")},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
				h := w.hosts[0]
				h.change = func(c *Config) { c.Uplink = choice }
				w.start()
				<-time.After(established)
				h.kernel.SetInterface(without(eth0(h.n), ip.IPv4))
				<-time.After(established)
				i := slices.IndexFunc(h.owned().Routes, func(r ip.Route) bool { return r.Dst.Addr().Is6() })
				route := h.owned().Routes[i]
				h.external(ip.Op{Verb: ip.Delete, Old: route})
				<-time.After(soon)
				synctest.Wait()
				if !slices.Contains(h.owned().Routes, route) {
					t.Errorf("not put back: %v; %s", route, h.agent.Status().Reason)
				}
			})
		})
	}
}

// A family that goes while a host waits for its first lease is in no lease.
func TestNoLeaseWithoutAnAddress(t *testing.T) {
	config := strings.Replace(dualConfig, `"Network":"10.5.0.0/16"`, `"Network":"10.5.0.0/16","SubnetMin":"10.5.7.0","SubnetMax":"10.5.7.0"`, 1)
	simulate(t, config, 2, func(t *testing.T, w *world) {
		h, first := w.hosts[0], w.hosts[1]
		first.start()
		<-time.After(established)
		h.start()
		<-time.After(established)
		h.kernel.SetInterface(without(eth0(h.n), ip.IPv6))
		<-time.After(established)
		first.stop()
		<-time.After(72 * time.Hour)
		for _, key := range w.store.Keys() {
			if value, _, _ := w.store.Get(key); strings.HasPrefix(key, "subnets/") && strings.Contains(value, `"PublicIPv6":null`) {
				t.Errorf("%s is %s", key, value)
			}
		}
	})
}
