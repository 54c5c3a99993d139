package agent

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
)

// iface is an interface that is up.
func iface(name string, prefixes ...string) ip.Interface {
	i := ip.Interface{Name: name, MTU: 1500, Up: true}
	for _, p := range prefixes {
		i.Addrs = append(i.Addrs, ip.InterfaceAddr{Prefix: netip.MustParsePrefix(p)})
	}
	return i
}

// Names are swapped at a boot, and the right interface gets its address 3 s late (DHCP).
func TestUplinkSwappedNamesSlowAddress(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		h.uses("at first", "eth0")
		h.stop()
		h.kernel.RemoveInterface("eth0")
		h.kernel.AddInterface(iface("eth0", "192.168.9.2/24"))
		h.kernel.AddInterface(iface("eth1"))
		h.start()
		<-time.After(3 * time.Second)
		h.kernel.SetInterface(iface("eth1", "172.30.0.1/24"))
		h.external(ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.30.0.254"), Link: "eth1"}})
		h.uses("after a swap of names", "eth1")
	})
}

// Names are swapped at a boot, IPv6 by RA comes 2 s late on the right one.
func TestUplinkSwappedNamesLackFamily(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		h.uses("at first", "eth0")
		h.stop()
		h.kernel.RemoveInterface("eth0")
		h.kernel.AddInterface(iface("eth0", "192.168.9.2/24", "fd99::2/64"))
		h.kernel.AddInterface(iface("eth1", "172.30.0.1/24"))
		h.external(ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.30.0.254"), Link: "eth1"}})
		h.start()
		<-time.After(2 * time.Second)
		h.kernel.SetInterface(iface("eth1", "172.30.0.1/24", "fd30::1/64"))
		h.uses("after a swap of names", "eth1")
	})
}

// At a boot a virtual address is there before the own one (DHCP).
func TestUplinkVirtualAddressFirstAtBoot(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		own := iface("eth0", "172.30.0.1/24")
		own.Addrs[0].Dynamic = true
		h.kernel.SetInterface(own)
		w.start()
		h.uses("at first", "eth0")
		h.stop()
		h.kernel.SetInterface(iface("eth0", "172.30.0.99/32"))
		h.start()
		<-time.After(3 * time.Second)
		own.Addrs = append(iface("eth0", "172.30.0.99/32").Addrs, own.Addrs...)
		h.kernel.SetInterface(own)
		h.uses("own address is there again", "eth0")
		if p := publicOf(w.hosts[1], h); !slices.Equal(p, []netip.Addr{netip.MustParseAddr("172.30.0.1")}) {
			t.Errorf("peers send to the virtual address %v an hour after the own, recorded address came; record %+v", p, h.record().Established)
		}
	})
}

// A host waits for a free subnet; loses IPv6; a subnet gets free.
func TestUplinkWaitingAcquiresWithLostAddress(t *testing.T) {
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
		synctest.Wait()
		for _, key := range w.store.Keys() {
			if value, _, _ := w.store.Get(key); strings.HasPrefix(key, "subnets/") && strings.Contains(value, `"PublicIPv6":"fd30::1"`) {
				t.Errorf("acquired with an address that the host does not have: %s is %s", key, value)
			}
		}
	})
}

// Off for days, starts without store from the cached view, lacks a family; then the store answers.
func TestUplinkCachedViewAcquiresWithLostAddress(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		<-time.After(established)
		w.converged(soon)
		h.stop()
		<-time.After(72 * time.Hour)
		h.kernel.SetInterface(without(eth0(h.n), ip.IPv4))
		store := gated{w.store, make(chan struct{})}
		h.store = store
		h.start()
		<-time.After(established)
		for _, key := range w.store.Keys() {
			value, _, _ := w.store.Get(key)
			if strings.Contains(value, `"172.30.0.1"`) {
				t.Fatal("not lost", value)
			}
		}
		close(store.gate)
		<-time.After(established)
		synctest.Wait()
		for _, key := range w.store.Keys() {
			if value, _, _ := w.store.Get(key); strings.HasPrefix(key, "subnets/") && strings.Contains(value, `"172.30.0.1"`) {
				t.Errorf("acquired with an address that the host does not have: %s is %s", key, value)
			}
		}
	})
}

// Named by address, family lost, restart.
func TestUplinkNamedAddressLostRestart(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.change = func(c *Config) { c.Uplink.Interfaces = []string{"172.30.0.1"} }
		w.start()
		<-time.After(established)
		h.kernel.SetInterface(without(eth0(h.n), ip.IPv4))
		<-time.After(established)
		i := slices.IndexFunc(h.owned().Routes, func(r ip.Route) bool { return r.Dst.Addr().Is6() })
		route := h.owned().Routes[i]
		h.mends(route)
		h.stop()
		h.start()
		<-time.After(established)
		h.mends(route)
	})
}

// A record with the uplink eth0 and the lease of the substitute.
func TestUplinkRecordMixesTwoInterfaces(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.backup()
		w.start()
		<-time.After(established)
		h.kernel.RemoveInterface("eth0")
		<-time.After(5 * time.Minute)
		h.stop()
		h.kernel.RemoveInterface("eth1")
		h.kernel.AddInterface(iface("eth0", "172.30.0.1/24"))
		h.start()
		<-time.After(established)
		if p := publicOf(w.hosts[1], h); slices.Contains(p, netip.MustParseAddr("fd99::2")) {
			t.Errorf("announces %v, of two interfaces, of which one is gone", p)
		}
	})
}

// --public-ip is taken away at a restart at which the family is lost.
func TestUplinkPublicOfNATTakenAway(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.change = func(c *Config) { c.Uplink.Public.V4 = netip.MustParseAddr("203.0.113.1") }
		w.start()
		<-time.After(established)
		h.stop()
		h.change = nil
		h.kernel.SetInterface(without(eth0(h.n), ip.IPv4))
		h.start()
		<-time.After(established)
		if p := publicOf(w.hosts[1], h); slices.Contains(p, netip.MustParseAddr("203.0.113.1")) {
			t.Errorf("announces %v", p)
		}
	})
}

// The network becomes dual; the established uplink has no IPv6, a VPN has both.
func TestUplinkNetworkBecomesDualBesideVPN(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		h.uses("at first", "eth0")
		h.vpn()
		h.uses("vpn", "eth0")
		h.kernel.SetInterface(without(eth0(h.n), ip.IPv6))
		h.uses("without IPv6, of which the network has none", "eth0")
		h.stop()
		w.hosts[1].stop()
		w.store.Put("config", dualConfig, 0)
		w.start()
		<-time.After(established)
		if st := h.agent.Status(); st.Uplink != nil && st.Uplink.Link == "tun0" {
			t.Errorf("moved to %+v, ready %v; peers send to %v", *st.Uplink, st.Ready, publicOf(w.hosts[1], h))
		}
		<-time.After(15 * time.Minute)
		h.kernel.SetInterface(eth0(1))
		<-time.After(established)
		if st := h.agent.Status(); st.Uplink != nil && st.Uplink.Link == "tun0" {
			t.Errorf("moved for good to %+v, ready %v; peers send to %v", *st.Uplink, st.Ready, publicOf(w.hosts[1], h))
		}
	})
}

// What the message says where nothing is acquired.
func TestUplinkTextWithoutALease(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		<-time.After(established)
		h.stop()
		<-time.After(72 * time.Hour)
		h.kernel.SetInterface(without(eth0(h.n), ip.IPv4))
		h.start()
		<-time.After(established)
		if r := h.agent.Status().Reason; strings.Contains(r, "goes on") {
			t.Errorf("nothing goes on, lease %v: %s", h.agent.Status().Of("").Lease, r)
		}
	})
}

// --iface is taken away at a restart, beside a VPN.
func TestUplinkNamedChoiceTakenAway(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.change = func(c *Config) { c.Uplink.Interfaces = []string{"eth0"} }
		w.start()
		<-time.After(3 * time.Second)
		h.vpn()
		h.uses("named", "eth0")
		if o := h.texts(trouble.UplinkOther); len(o) > 0 {
			t.Error(o)
		}
		h.stop()
		h.change = nil
		h.start()
		h.uses("unnamed", "eth0")
		if o := h.texts(trouble.UplinkOther); len(o) != 1 {
			t.Error(o)
		}
		h.kernel.RemoveInterface("tun0")
		h.uses("no VPN", "eth0")
		if o := h.texts(trouble.UplinkOther); len(o) > 0 {
			t.Error(o)
		}
	})
}

// A clone with the same node id on other hardware.
func TestUplinkCloneWithTheSameNode(t *testing.T) {
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
		clone.change = func(c *Config) { c.Host.Node = "h1" }
		clone.start()
		<-time.After(established)
		synctest.Wait()
		for _, key := range w.store.Keys() {
			if value, _, _ := w.store.Get(key); strings.Contains(value, "fd30::1\"") {
				t.Errorf("%s %s", key, value)
			}
		}
	})
}

// The record of an old version, and a VPN that came while tulled was off.
func TestUplinkOldRecordBesideVPN(t *testing.T) {
	for _, d := range []time.Duration{time.Second, time.Hour} {
		simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
			h := w.hosts[0]
			w.start()
			<-time.After(d)
			h.stop()
			r := h.record()
			r.Established = nil
			data, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(h.dir, "state", "host.json"), data, 0o600); err != nil {
				t.Fatal(err)
			}
			h.vpn()
			h.start()
			h.uses("after an upgrade", "eth0")
		})
	}
}

// The record is written only when something changes.
func TestUplinkRecordWrites(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		stat := func() os.FileInfo {
			synctest.Wait()
			i, err := os.Stat(filepath.Join(h.dir, "state", "host.json"))
			if err != nil {
				t.Fatal(err)
			}
			return i
		}
		still := func(what string) {
			was := stat()
			<-time.After(time.Hour)
			if !os.SameFile(was, stat()) {
				t.Errorf("%s: written", what)
			}
		}
		w.start()
		<-time.After(established)
		still("established")
		h.kernel.SetInterface(without(eth0(h.n), ip.IPv6))
		<-time.After(established)
		still("lacking")
		h.stop()
		h.start()
		<-time.After(established)
		still("lacking after a restart")
		h.kernel.SetInterface(eth0(h.n))
		h.backup()
		<-time.After(established)
		h.kernel.RemoveInterface("eth0")
		<-time.After(time.Hour)
		still("another")
	})
}

// A boot on another NIC of the same name, with IPv4 alone, for good.
func TestUplinkAnotherNICOfTheNameLacks(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		<-time.After(established)
		h.stop()
		h.kernel.RemoveInterface("eth0")
		h.kernel.AddInterface(iface("eth0", "192.168.9.2/24"))
		h.kernel.AddInterface(iface("eth1", "172.31.0.1/24", "fd31::1/64"))
		for dst, via := range map[string]string{"0.0.0.0/0": "172.31.0.254", "::/0": "fd31::fe"} {
			h.external(ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "eth1"}})
		}
		h.start()
		<-time.After(time.Hour)
		if p := publicOf(w.hosts[1], h); slices.Contains(p, netip.MustParseAddr("fd30::1")) && slices.Contains(p, netip.MustParseAddr("192.168.9.2")) {
			t.Errorf("announces %v: no interface ever had both", p)
		}
	})
}
