package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
	"tulle/subnet"
)

const soon = 5 * time.Second

func TestHostsConverge(t *testing.T) {
	for name, config := range map[string]string{
		"vxlan":   dualConfig,
		"host-gw": strings.Replace(dualConfig, "vxlan", "host-gw", 1),
		"direct":  strings.Replace(dualConfig, `"vxlan"`, `"vxlan","DirectRouting":true`, 1),
		"ipv4":    `{"Network":"10.5.0.0/16"}`,
		"ipv6":    `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48"}`,
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, config, 4, func(t *testing.T, w *world) {
				w.start()
				w.converged(soon)
				for _, h := range w.hosts {
					env, err := subnet.ReadEnv(filepath.Join(h.dir, "subnet.env"))
					if err != nil {
						t.Fatal(err)
					}
					st := h.agent.Status()
					if !env.IPMasq || env.MTU != st.MTU || !slices.Equal(prefixes(env.Subnets), st.Lease.Subnets) {
						t.Errorf("subnet file %+v does not match lease %+v, MTU %d", env, st.Lease, st.MTU)
					}
				}
			})
		})
	}
}

func TestTamperingHeals(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		dev := h.link("flannel.1")
		down, otherMAC := dev, dev
		down.Up = false
		otherMAC.MAC[5]++
		was := h.owned()
		for name, op := range map[string]ip.Op{
			"route deleted":     {Verb: ip.Delete, Old: was.Routes[0]},
			"neighbour deleted": {Verb: ip.Delete, Old: was.Neighbors[0]},
			"entry deleted":     {Verb: ip.Delete, Old: was.FDB[0]},
			"address deleted":   {Verb: ip.Delete, Old: was.Addrs[0]},
			"table deleted":     {Verb: ip.Delete, Old: was.Tables[0]},
			"link down":         {Verb: ip.Replace, Old: dev, New: down},
			"link deleted":      {Verb: ip.Delete, Old: dev},
			"MAC changed":       {Verb: ip.Replace, Old: dev, New: otherMAC},
		} {
			t.Log(name)
			h.external(op)
			w.converged(2 * time.Second)
			if diff := cmp.Diff(was.String(), h.owned().String()); diff != "" {
				t.Errorf("%s: healed to another state:\n%s", name, diff)
			}
		}
	})
}

func TestSysctlHealsByResync(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		off := ip.Sysctl{Key: "net/ipv4/ip_forward", Value: "0"}
		h.external(ip.Op{Verb: ip.Replace, New: off, Old: off})
		w.converged(resyncEvery + soon)
	})
}

func TestRestartChangesNothing(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[1]
		was, lease := h.owned(), h.agent.Status().Lease
		h.stop()
		h.kernel.Refuse(func(op ip.Op) error {
			t.Errorf("restart changes the kernel: %s", op)
			return nil
		})
		h.start()
		w.converged(soon)
		if got := h.agent.Status().Lease; !slices.Equal(got.Subnets, lease.Subnets) {
			t.Errorf("subnets %v after the restart, were %v", got.Subnets, lease.Subnets)
		}
		if diff := cmp.Diff(was.String(), h.owned().String()); diff != "" {
			t.Error(diff)
		}
	})
}

// silent is a store that never answers.
type silent struct{}

func (silent) Acquire(ctx context.Context, _ subnet.Claim) (subnet.Held, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (silent) Watch(ctx context.Context, _ func(subnet.Set)) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestNoStoreNoChange(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		was := h.owned()
		h.stop()
		trouble := errors.New("etcd at http://127.0.0.1:2379 does not answer: connection refused")
		h.change = func(c *Config) {
			c.Store = silent{}
			c.Trouble = func() error { return trouble }
		}
		h.start()
		<-time.After(time.Hour)
		synctest.Wait()
		if diff := cmp.Diff(was.String(), h.owned().String()); diff != "" {
			t.Errorf("the kernel changed without a view of the store:\n%s", diff)
		}
		if st := h.agent.Status(); st.Ready || st.Reason != trouble.Error() {
			t.Errorf("status %+v, want not ready because of %v", st, trouble)
		}
	})
}

func TestBadKeysCostOnlyThemselves(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		var was []string
		for _, h := range w.hosts {
			was = append(was, h.owned().String())
		}
		w.store.Put("subnets/README", "x", 0)
		w.store.Put("subnets-x", "x", 0)
		w.store.Put("subnets/10.6.0.0-24", flannelLease("172.30.0.66", "02:00:00:00:00:66"), 0)
		w.store.Put("subnets/0.0.0.0-0", flannelLease("172.30.0.67", "02:00:00:00:00:67"), 0)
		w.store.Put("subnets/172.30.0.0-24", flannelLease("172.30.0.68", "02:00:00:00:00:68"), 0)
		w.within(soon, "reported", func(h *node) bool { return len(h.agent.Status().Problems) >= 5 })
		w.converged(soon)
		for i, h := range w.hosts {
			if diff := cmp.Diff(was[i], h.owned().String()); diff != "" {
				t.Errorf("%s changed:\n%s", h.name, diff)
			}
		}
	})
}

func TestConfigurationChanges(t *testing.T) {
	simulate(t, "", 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		reason := func(want string) {
			t.Helper()
			w.within(time.Minute, want, func(h *node) bool { return strings.Contains(h.agent.Status().Reason, want) })
		}
		reason("tulle config set")
		w.store.Put("config", `{"Network":"10.5.0.0/16","SubnetLen":12}`, 0)
		reason("SubnetLen")
		w.store.Put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlam"}}`, 0)
		reason(`"vxlam": choose one of alloc, host-gw, vxlan`)
		w.store.Put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRoutng":true}}`, 0)
		w.converged(time.Minute)
		if st := h.agent.Status(); len(st.Problems) != 1 || !strings.Contains(st.Problems[0].Reason, "DirectRouting") {
			t.Errorf("problems %v, want one that names DirectRouting", st.Problems)
		}
		was := h.owned().String()

		w.store.Put("config", `not JSON`, 0)
		w.within(soon, "invalid reported", func(h *node) bool { return h.agent.Status().Ready && len(h.agent.Status().Problems) > 1 })
		w.store.Put("config", `{"Network":"10.7.0.0/16","Backend":{"Type":"host-gw"}}`, 0)
		w.within(soon, "pending", func(h *node) bool {
			st := h.agent.Status()
			return st.Ready && strings.Contains(st.Pending, "restart") && st.Network.Backend == "vxlan"
		})
		if diff := cmp.Diff(was, h.owned().String()); diff != "" {
			t.Errorf("half applied:\n%s", diff)
		}

		h.stop()
		h.start()
		w.converged(soon)
		st := h.agent.Status()
		if st.Network.Backend != "host-gw" || st.Pending != "" || !netip.MustParsePrefix("10.7.0.0/16").Overlaps(st.Lease.Subnets[0]) {
			t.Errorf("after the restart: %+v, lease %+v", st.Network, st.Lease)
		}
		if left := h.owned(); len(left.Links) > 0 {
			t.Errorf("left over from before: %v", left.Links)
		}
	})
}

func TestTakesOverFromFlanneld(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		mac, err := ip.ParseMAC("4e:f3:a5:78:97:d4")
		if err != nil {
			t.Fatal(err)
		}
		peerMAC := ip.MAC{0x5a, 1, 2, 3, 4, 5}
		a, b := w.hosts[0], w.hosts[1]
		w.store.Put("subnets/10.5.34.0-24", flannelLease("172.30.0.1", mac.String()), 20*time.Hour)
		w.store.Put("subnets/10.5.77.0-24", flannelLease("172.30.0.9", peerMAC.String()), 20*time.Hour)
		device := ip.Link{Name: "flannel.1", MAC: mac, MTU: 1450, VXLAN: ip.VXLAN{VNI: 1, Local: netip.MustParseAddr("172.30.0.1"), Port: 8472}}
		up := device
		up.Up = true
		peer := netip.MustParsePrefix("10.5.77.0/24")
		gone := netip.MustParsePrefix("10.5.78.0/24")
		a.external(
			ip.Op{Verb: ip.Add, New: device},
			ip.Op{Verb: ip.Replace, New: up, Old: device},
			ip.Op{Verb: ip.Add, New: ip.Addr{Link: "flannel.1", Prefix: netip.MustParsePrefix("10.5.34.0/32")}},
			ip.Op{Verb: ip.Add, New: ip.FDB{Link: "flannel.1", MAC: peerMAC, Dst: netip.MustParseAddr("172.30.0.9")}},
			ip.Op{Verb: ip.Add, New: ip.Neighbor{Link: "flannel.1", IP: peer.Addr(), MAC: peerMAC}},
			ip.Op{Verb: ip.Add, New: ip.Route{Dst: peer, Via: peer.Addr(), Link: "flannel.1", Protocol: protocolBoot, OnLink: true}},
			ip.Op{Verb: ip.Add, New: ip.Route{Dst: gone, Via: gone.Addr(), Link: "flannel.1", Protocol: protocolBoot, OnLink: true}},
		)
		for _, l := range []ip.Leftover{{Family: ip.IPv4, Table: "nat", Chain: "FLANNEL-POSTRTG"}, {Family: ip.IPv4, Table: "flannel-ipv4"}} {
			a.kernel.AddLeftover(l, netip.MustParsePrefix("10.5.0.0/16"))
		}
		a.kernel.Refuse(func(op ip.Op) error {
			if _, ok := op.Old.(ip.Link); ok {
				t.Errorf("the device is touched: %s", op)
			}
			return nil
		})
		a.start()
		b.start()
		w.within(soon, "taken over", func(h *node) bool { return h.agent.Status().Ready && len(h.agent.Status().Peers) == 2 })
		st := a.agent.Status()
		if want := []netip.Prefix{netip.MustParsePrefix("10.5.34.0/24")}; !slices.Equal(st.Lease.Subnets, want) {
			t.Errorf("subnets %v, want %v", st.Lease.Subnets, want)
		}
		got := a.owned()
		if got.Links[0] != up {
			t.Errorf("device %+v, want it as it was: %+v", got.Links[0], up)
		}
		if len(got.Leftovers) > 0 {
			t.Errorf("left behind: %v", got.Leftovers)
		}
		for _, r := range got.Routes {
			if r.Protocol != ip.Protocol || r.Metric == 0 {
				t.Errorf("left behind: %v", r)
			}
		}
		if len(got.Routes) != 2 {
			t.Errorf("routes %v, want one to the flanneld and one to the other tulled", got.Routes)
		}

		// From now on the MAC is kept, whatever happens to the device.
		a.kernel.Refuse(nil)
		a.external(ip.Op{Verb: ip.Delete, Old: up})
		w.within(2*time.Second, "healed", func(h *node) bool { return len(h.drift()) == 0 })
		if got := a.link("flannel.1").MAC; got != mac {
			t.Errorf("MAC %s after the device was deleted, want %s", got, mac)
		}
	})
}

func TestRoutesOfAFlanneldWithHostGW(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`, 2, func(t *testing.T, w *world) {
		w.hosts[1].start()
		w.within(soon, "leased", func(h *node) bool { return h != w.hosts[1] || h.agent.Status().Ready })
		subnets := w.hosts[1].agent.Status().Lease.Subnets
		via := netip.MustParseAddr("172.30.0.2")
		mine := ip.Route{Dst: netip.MustParsePrefix("10.5.200.0/24"), Via: netip.MustParseAddr("172.30.0.77"), Link: "eth0", Protocol: protocolBoot}
		a := w.hosts[0]
		a.external(
			ip.Op{Verb: ip.Add, New: ip.Route{Dst: subnets[0], Via: via, Link: "eth0", Protocol: protocolBoot}},
			ip.Op{Verb: ip.Add, New: mine},
		)
		a.start()
		w.converged(soon)
		snap, err := a.kernel.Snapshot(t.Context(), ip.Scope{Networks: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]ip.Route{mine}, snap.Foreign, cmp.Comparer(func(a, b ip.Route) bool { return a == b })); diff != "" {
			t.Errorf("foreign routes (-want +got):\n%s", diff)
		}
	})
}

func TestRefusedOperationCostsOnlyItself(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		h := w.hosts[0]
		var bad netip.Prefix
		h.kernel.Refuse(func(op ip.Op) error {
			r, ok := op.New.(ip.Route)
			if ok && !bad.IsValid() {
				bad = r.Dst
			}
			if ok && r.Dst == bad {
				return errors.New("no buffer space available")
			}
			return nil
		})
		w.start()
		w.within(time.Minute, "the others converge", func(o *node) bool {
			st := o.agent.Status()
			return len(st.Peers) == 2 && (st.Ready || o == h && len(h.drift()) == 1)
		})
		if st := h.agent.Status(); !strings.Contains(st.Reason, bad.String()) || !strings.Contains(st.Reason, "no buffer space") {
			t.Errorf("reason %q, want the route and the error", st.Reason)
		}
		if _, err := os.Stat(filepath.Join(h.dir, "subnet.env")); err != nil {
			t.Error(err)
		}
		h.kernel.Refuse(nil)
		w.converged(time.Minute)
	})
}

func TestLostLeaseIsHeld(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		was := h.owned().String()
		var self subnet.Subnets
		for _, p := range h.agent.Status().Lease.Subnets {
			self.Set(ip.FamilyOf(p.Addr()), p)
		}
		w.store.Put("subnets/"+subnet.KeyOf(self), `{"PublicIP":"172.30.0.99","PublicIPv6":"fd30::99","BackendType":"vxlan","Tulle":{"Node":"thief","Instance":"x"}}`, 0)
		w.within(soon, "noticed", func(o *node) bool {
			return o != h || !o.agent.Status().Ready && strings.Contains(o.agent.Status().Reason, "thief")
		})
		<-time.After(time.Hour)
		synctest.Wait()
		if st := h.agent.Status(); st.Ready || !strings.Contains(st.Reason, "thief") {
			t.Errorf("an hour later: %+v, want it to name the thief", st)
		}
		if diff := cmp.Diff(was, h.owned().String()); diff != "" {
			t.Errorf("the data plane changed:\n%s", diff)
		}

		w.store.Delete("subnets/" + subnet.KeyOf(self))
		w.converged(time.Minute)
	})
}

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
