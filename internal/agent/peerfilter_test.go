package agent

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
)

// heard lists the addresses that the host's guards let in, by family.
func (h *node) heard() map[string][]string {
	all := map[string][]string{}
	for _, g := range h.owned().Guards {
		for _, p := range g.Peers {
			if !p.Subnet.IsValid() {
				all[g.Family.String()] = append(all[g.Family.String()], p.String())
			}
		}
	}
	return all
}

func (w *world) hears(h *node, what string, v4, v6 string) {
	w.t.Helper()
	want := map[string][]string{"ipv4": strings.Fields(v4), "ipv6": strings.Fields(v6)}
	w.within(soon, what+" is heard of", func(*node) bool { return cmp.Equal(want, h.heard()) })
}

func TestGuardFollowsPeers(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		w.hears(h, "who is there", "172.30.0.2 172.30.0.3", "fd30::2 fd30::3")
		var rewritten bool
		h.kernel.Refuse(func(op ip.Op) error {
			_, isGuard := op.New.(ip.Guard)
			rewritten = rewritten || isGuard
			return nil
		})
		w.store.Put("subnets/10.5.30.0-24", flannelLease("172.30.0.30", "02:00:00:00:00:30"), 0)
		w.hears(h, "a flanneld", "172.30.0.2 172.30.0.3 172.30.0.30", "fd30::2 fd30::3")
		w.hosts[1].move(202)
		w.hears(h, "a peer that moves", "172.30.0.3 172.30.0.30 172.30.0.202", "fd30::3 fd30::ca")
		w.store.Delete("subnets/10.5.30.0-24")
		w.hears(h, "a flanneld that is gone", "172.30.0.3 172.30.0.202", "fd30::3 fd30::ca")
		if rewritten {
			t.Error("the guard was made anew for a change of peers")
		}
	})
}

func TestStrangersAreCounted(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		var log lines
		h := w.hosts[0]
		h.log = log.handler()
		w.start()
		w.converged(soon)
		inner := w.hosts[1].agent.Status().Of("").Lease.Subnets
		for _, from := range []string{"172.30.0.66", "fd30::66", "172.30.0.2", "fd30::2"} {
			addr := netip.MustParseAddr(from)
			h.kernel.Knock(addr, ip.Tunnel{VNI: 1, Port: 8472}, inner[ip.FamilyOf(addr)/ip.IPv6].Addr())
		}
		<-time.After(resyncEvery + soon)
		synctest.Wait()
		if got := h.agent.Status().Strangers; got != 2 {
			t.Errorf("status tells of %d packets from strangers, want 2", got)
		}
		if n := strings.Count(log.String(), "strangers"); n != 1 {
			t.Errorf("logged %d times, want once:\n%s", n, log.String())
		}
	})
}

// The guard goes with what calls for it: the option, at a restart, or the backend.
func TestNoGuardWhereNoneIsWanted(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		h.stop()
		h.change = func(c *Config) { c.Networks[0].Options.PeerFilter = false }
		h.start()
		w.converged(soon)
		if guards := h.owned().Guards; len(guards) > 0 {
			t.Errorf("switched off, there are %v", guards)
		}
	})
	simulate(t, strings.Replace(dualConfig, "vxlan", "host-gw", 1), 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		if guards := w.hosts[0].owned().Guards; len(guards) > 0 {
			t.Errorf("without VXLAN, there are %v", guards)
		}
	})
}

// Behind NAT, a peer is heard at the address that it announces: its packets have that when they arrive.
func TestPeerBehindNATIsHeardAtItsPublicAddress(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.hosts[1].change = func(c *Config) { c.Uplink.Public.V4 = netip.MustParseAddr("203.0.113.2") }
		w.start()
		w.converged(soon)
		if got := w.hosts[0].heard()["ipv4"]; !cmp.Equal(got, []string{"203.0.113.2"}) {
			t.Errorf("heard are %v, want the public address", got)
		}
	})
}

// A peer speaks for its own subnets, and a host's containers for the host's: in the incremental passes as well.
func TestSourcesFollowLeases(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h, peer := w.hosts[0], netip.MustParseAddr("172.30.0.30")
		sources := func() (subnets []string) {
			for _, g := range h.owned().Guards {
				for _, p := range g.Peers {
					if p.Addr == peer && p.Subnet.IsValid() {
						subnets = append(subnets, p.Subnet.String())
					}
				}
			}
			return subnets
		}
		follows := func(what string, want ...string) {
			t.Helper()
			w.within(soon, what, func(*node) bool { return cmp.Equal(want, sources()) })
		}
		before := h.agent.Status().Work.Incremental
		w.store.Put("subnets/10.5.30.0-24", flannelLease("172.30.0.30", "02:00:00:00:00:30"), 0)
		follows("a lease", "10.5.30.0/24")
		w.store.Delete("subnets/10.5.30.0-24")
		follows("no lease")
		w.store.Put("subnets/10.5.32.0-24", flannelLease("172.30.0.30", "02:00:00:00:00:30"), 0)
		follows("another lease", "10.5.32.0/24")
		if h.agent.Status().Work.Incremental == before {
			t.Error("all passes were full ones")
		}
		w.store.Put("subnets/10.5.31.0-24", flannelLease("172.30.0.30", "02:00:00:00:00:30"), 0)
		follows("two leases", "10.5.31.0/24", "10.5.32.0/24")
		w.store.Put("subnets/10.5.33.128-25", flannelLease("172.30.0.30", "02:00:00:00:00:30"), 0)
		follows("a lease of half a subnet", "10.5.31.0/24", "10.5.32.0/24", "10.5.33.0/24")
		w.store.Delete("subnets/10.5.32.0-24")
		follows("one of them less", "10.5.31.0/24", "10.5.33.0/24")
	})
}

// What has been dropped is told by kind, and never becomes less while tulled runs: not when a bridge comes, and with it other
// rules, nor when somebody deletes the tables.
func TestDropsAreCountedByKind(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		var log lines
		h := w.hosts[0]
		h.log = log.handler()
		w.start()
		w.converged(soon)
		own, peer := h.agent.Status().Of("").Lease.Subnets[0], w.hosts[1].agent.Status().Of("").Lease.Subnets[0]
		addBridge := func(name string) {
			gateway := netip.PrefixFrom(own.Addr().Next(), own.Bits())
			h.kernel.AddInterface(ip.Interface{Name: name, MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: gateway}}})
			<-time.After(soon)
			synctest.Wait()
		}
		addBridge("docker0")
		var want Dropped
		drop := func(what string) {
			t.Helper()
			from, public := netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("172.30.0.2")
			h.kernel.Knock(public, ip.Tunnel{VNI: 1, Port: 8472}, peer.Addr())
			h.kernel.Knock(public, ip.Tunnel{VNI: 1, Port: 8472}, from)
			h.kernel.Knock(public, ip.Tunnel{VNI: 1, Port: 8472}, own.Addr())
			h.kernel.Forward("docker0", own.Addr().Next().Next(), peer.Addr())
			h.kernel.Forward("docker0", public, peer.Addr())
			h.kernel.Forward("docker0", peer.Addr().Next(), peer.Addr())
			h.kernel.Forward("docker0", from, peer.Addr())
			h.kernel.Forward("docker0", from, netip.MustParseAddr("8.8.4.4"))
			h.kernel.Forward("br-other", peer.Addr().Next(), peer.Addr())
			h.kernel.Forward("br-other", from, peer.Addr())
			want.Forged, want.Spoofed = want.Forged+2, want.Spoofed+4
			<-time.After(resyncEvery + soon)
			synctest.Wait()
			if got := h.agent.Status().Dropped; got != want {
				t.Errorf("%s: dropped are %+v, want %+v", what, got, want)
			}
		}
		drop("at first")
		addBridge("cni0")
		drop("with another bridge")
		o := h.owned()
		_ = h.kernel.External(ip.Plan{{Verb: ip.Delete, Old: o.Guards[0]}, {Verb: ip.Delete, Old: o.Tables[0]}})
		<-time.After(soon)
		synctest.Wait()
		drop("with the tables made anew")
		h.kernel.RemoveInterface("eth0")
		<-time.After(soon)
		synctest.Wait()
		if got := h.agent.Status(); got.Dropped != want || got.Ready {
			t.Errorf("without an uplink, dropped are %+v (ready: %t), want %+v", got.Dropped, got.Ready, want)
		}
		for _, text := range []string{"packets from peers dropped", "packets of containers dropped"} {
			if n := strings.Count(log.String(), text); n != 1 {
				t.Errorf("logged %q %d times, want once:\n%s", text, n, log.String())
			}
		}
	})
}

// Each family's table counts from its own beginning.
func TestTallyByFamily(t *testing.T) {
	sum := tally{}
	for _, read := range []struct{ v4, v6, want uint64 }{{100, 100, 200}, {0, 100, 200}, {5, 107, 212}} {
		got := sum.add(map[string]ip.Dual[ip.Drops]{"": {V4: ip.Drops{Strangers: read.v4}, V6: ip.Drops{Strangers: read.v6}}})
		if want := (Dropped{Strangers: read.want}); got != want {
			t.Errorf("after %d and %d: %+v, want %+v", read.v4, read.v6, got, want)
		}
	}
}

// Switched off, sources are nobody's business, and peers still are.
func TestNoSourceCheckWhereNoneIsWanted(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		checks := func() (n int) {
			s := h.owned()
			for _, g := range s.Guards {
				n += g.Bits
			}
			for _, table := range s.Tables {
				for _, r := range table.Rules {
					if r.Verdict == ip.DropSpoof {
						n++
					}
				}
			}
			return n
		}
		if checks() == 0 {
			t.Error("nothing is checked")
		}
		h.stop()
		h.change = func(c *Config) { c.Networks[0].Options.SourceCheck = false }
		h.start()
		w.converged(soon)
		if n := checks(); n > 0 {
			t.Errorf("switched off, %d checks are there", n)
		}
		w.hears(h, "a peer", "172.30.0.2", "fd30::2")
	})
}
