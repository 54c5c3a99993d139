package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/probe"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/subnettest"
)

// at is where the subnet of a family is in the list of a dual-stack host.
func at(f ip.Family) int {
	all := ip.Families()
	return slices.Index(all[:], f)
}

// Each host asks each other, in each family and by the ways there are, where its lease says, and what it asks follows leases and the uplink.
func TestHostsAskEachOther(t *testing.T) {
	for name, tt := range map[string]struct {
		backend string
		device  int // its MTU; 0: there is none
		v4      bool
	}{
		"vxlan":   {`"vxlan"`, 1450, false},
		"direct":  {`"vxlan","DirectRouting":true`, 0, false},
		"host-gw": {`"host-gw"`, 0, false},
		"ipip":    {`"ipip"`, 1480, true},
	} {
		t.Run(name, func(t *testing.T) {
			config := `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":` + tt.backend + `}}`
			if tt.v4 {
				config = `{"Network":"10.5.0.0/16","Backend":{"Type":` + tt.backend + `}}`
			}
			simulate(t, config, 3, func(t *testing.T, w *world) {
				probers := w.probers()
				probers[2] = nil
				w.hosts[2].change = nil // asks nobody, and is not asked
				w.start()
				w.converged(soon)
				<-time.After(time.Minute)
				synctest.Wait()
				other := w.hosts[1].agent.Status().Of("").Lease.Subnets
				want, own := probers[0].wanted(), w.hosts[0].agent.Status().Of("").Lease.Subnets
				if want.Self.Key != (probe.Key{1}) || want.Self.Port != 8473 || len(want.Peers) != len(other) {
					t.Fatalf("asked as %+v are %+v, want the one other host in %d families", want.Self, want.Peers, len(other))
				}
				for i, p := range want.Peers {
					f := ip.FamilyOf(other[i].Addr())
					uplink := netip.AddrPortFrom(eth0(2).Addrs[i].Prefix.Addr(), 8473)
					good := p.Node == "h2" && p.Key == probe.Key{2} && p.Family == f && p.At[probe.Underlay] == uplink && p.Size[probe.Underlay] == 1500 &&
						want.Self.Addr[probe.Underlay].Of(f) == eth0(1).Addrs[i].Prefix.Addr()
					device, from := netip.AddrPort{}, netip.Addr{}
					size := tt.device
					if size > 0 {
						device, from = netip.AddrPortFrom(other[i].Addr(), 8473), own[i].Addr()
					} else if name == "direct" {
						from = own[i].Addr() // it has the device all the same
					}
					if size > 0 && f == ip.IPv6 {
						size -= 20
					}
					if !good || p.At[probe.Fabric] != device || p.Size[probe.Fabric] != size || want.Self.Addr[probe.Fabric].Of(f) != from {
						t.Errorf("asked is %+v from %+v", p, want.Self)
					}
				}
				before := probers[0].told()
				<-time.After(10 * time.Minute)
				synctest.Wait()
				if n := probers[0].told() - before; n > 0 {
					t.Errorf("told %d times what has not changed", n)
				}
				// Without, the lease says nothing.
				w.hosts[1].stop()
				w.hosts[1].change = nil
				w.hosts[1].start()
				w.within(soon, "nobody asked", func(*node) bool { return len(probers[0].wanted().Peers) == 0 })
				w.converged(soon)
			})
		})
	}
}

// Peers that come and go by incremental passes reach the prober, and so does a key that changes.
func TestProberFollowsIncrementalPasses(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		m := w.probers()[0]
		w.start()
		h := w.hosts[0]
		h.hasBaseline(w)
		<-time.After(45 * time.Second) // between two full passes
		passes := h.agent.Status().Work.Passes
		put := func(key byte) {
			w.store.Put("subnets/10.5.77.0-24&fc00:5:0:4d::-64", probed(dualLease("172.30.0.77", "02:00:00:00:00:77"), key, "n77"), 0)
			w.within(soon, "a peer", func(*node) bool {
				peers := m.wanted().Peers
				return len(peers) == 2 && peers[0].Key == probe.Key{key} && peers[0].At[probe.Fabric].IsValid() && peers[1].At[probe.Underlay].IsValid()
			})
		}
		w.store.Put("subnets/10.5.78.0-24", flannelLease("172.30.0.78", "02:00:00:00:00:78"), 0) // does not say where it is asked
		put(7)
		first := m.wanted().Peers
		put(8)
		if first[0].Key != (probe.Key{7}) {
			t.Error("what was handed on has changed")
		}
		w.store.Delete("subnets/10.5.77.0-24&fc00:5:0:4d::-64")
		w.within(soon+subnet.HoldbackTime, "none", func(*node) bool { return len(m.wanted().Peers) == 0 })
		if st := h.agent.Status(); st.Work.Incremental < 2 || st.Work.Passes > passes+1 {
			t.Errorf("%d full and %d incremental passes", st.Work.Passes-passes, st.Work.Incremental)
		}
	})
}

// The route to a peer names the size of the packets that arrive there while larger ones do not, and that is all that a verdict costs.
func TestNarrowRoutes(t *testing.T) {
	for name, way := range map[string]probe.Way{"vxlan": probe.Fabric, "host-gw": probe.Underlay} {
		t.Run(name, func(t *testing.T) {
			config := `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"` + name + `"}}`
			simulate(t, config, 3, func(t *testing.T, w *world) {
				m := w.probers()[0]
				w.start()
				w.converged(soon)
				h, peer := w.hosts[0], w.hosts[1].agent.Status().Of("").Lease.Subnets
				lease := subnet.KeyOf(subnet.Subnets{V4: peer[0], V6: peer[1]})
				narrow := func(f ip.Family, mtu int) {
					t.Helper()
					w.within(soon, fmt.Sprintf("%s by %d bytes", f, mtu), func(*node) bool {
						for _, r := range h.owned().Routes {
							if meant := r.Dst == peer[at(f)]; meant && r.MTU != mtu || !meant && r.Dst != peer[1-at(f)] && r.MTU != 0 {
								return false
							}
						}
						return len(h.drift()) == 0
					})
				}
				m.say(lease, ip.IPv4, way, probe.Verdict{State: probe.Narrow, Size: 1300})
				narrow(ip.IPv4, 1300)
				m.say(lease, ip.IPv6, way, probe.Verdict{State: probe.Narrow, Size: 700})
				narrow(ip.IPv6, 1280) // no link of IPv6 may have less
				if st := h.agent.Status(); st.Probes.Narrow != 2 || !st.Ready || st.Troubles.Count[trouble.PeerNarrow] != 1 {
					t.Errorf("%+v, ready %t, troubles %v", st.Probes, st.Ready, st.Troubles.Count)
				}
				route := h.route(peer[0])
				route.MTU = 1400
				h.external(ip.Op{Verb: ip.Replace, New: route, Old: route}) // by another program
				narrow(ip.IPv4, 1300)
				m.say(lease, ip.IPv4, way, probe.Verdict{State: probe.Unreachable, Size: 1300})
				<-time.After(time.Minute)
				narrow(ip.IPv4, 1300)

				h.hasBaseline(w)
				<-time.After(45 * time.Second)
				before := h.agent.Status().Work
				m.say(lease, ip.IPv4, way, probe.Verdict{State: probe.Narrow, Size: 1300})
				m.say(lease, ip.IPv4, 1-way, probe.Verdict{State: probe.Narrow, Size: 1200}) // which packets of containers do not take
				<-time.After(3 * time.Second)
				synctest.Wait()
				if now := h.agent.Status().Work; now.Passes != before.Passes || now.Incremental == before.Incremental {
					t.Errorf("%d full and %d incremental passes over verdicts that change no route", now.Passes-before.Passes, now.Incremental-before.Incremental)
				}
				for _, f := range ip.Families() {
					m.say(lease, f, way, probe.Verdict{State: probe.Well})
					narrow(f, 0)
				}
			})
		})
	}
}

// A host that works from a cached view asks nobody: it does not know by which keys.
func TestCachedViewAsksNobody(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		m := w.probers()[0]
		w.start()
		w.converged(soon)
		w.within(soon, "asked", func(*node) bool { return len(m.wanted().Peers) == 1 })
		h := w.hosts[0]
		h.stop()
		gate := make(chan struct{})
		h.store = gated{w.store, gate}
		again := &memoryProber{}
		h.change = again.give(h)
		h.start()
		w.within(soon, "working", func(*node) bool { return h.agent.Status().Of("").PeerCount == 1 })
		<-time.After(time.Minute)
		if n := again.told(); n != 0 {
			t.Errorf("told to ask %+v", again.wanted())
		}
		close(gate)
		w.within(time.Minute, "asked", func(*node) bool { return len(again.wanted().Peers) == 1 })
	})
}

// Of several networks the first says how this host is asked, and there is one prober for all.
func TestNetworksAreAskedTogether(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		second := w.second()
		var probers []*memoryProber
		for _, h := range w.hosts {
			m, add := &memoryProber{}, h.change
			probers = append(probers, m)
			h.change = func(cfg *Config) {
				add(cfg)
				m.give(h)(cfg)
			}
		}
		w.start()
		w.within(soon, "both asked", func(h *node) bool {
			peers := probers[h.n-1].wanted().Peers
			return len(peers) == 2 && peers[0].At[probe.Fabric].IsValid() && peers[1].At[probe.Underlay].IsValid() && !peers[1].At[probe.Fabric].IsValid()
		})
		m := probers[0]
		red := m.wanted().Peers[1].Lease
		m.say(red, ip.IPv4, probe.Underlay, probe.Verdict{State: probe.Unreachable, Since: time.Now()})
		w.within(soon, "told", func(*node) bool {
			found := w.hosts[0].agent.Status().Troubles.Of(trouble.PeerUnreachable)
			return len(found) == 1 && found[0].Network == "red" && found[0].Subject == red
		})
		<-time.After(15 * time.Second)
		synctest.Wait()
		if value, _, _ := second.Get(subnettest.ComplaintOf("h1")); !strings.Contains(value, red) || len(w.complaints()) > 0 {
			t.Errorf("the second store is told %q, the first %v", value, w.complaints())
		}
	})
}

// What was said of a peer does not hold for one that comes with its subnet later.
func TestNarrowPeerGoes(t *testing.T) {
	simulate(t, v4Config, 1, func(t *testing.T, w *world) {
		m, h := w.probers()[0], w.hosts[0]
		put := func(n int) {
			w.store.Put(fmt.Sprintf("subnets/10.5.%d.0-24", n), probed(flannelLease(fmt.Sprintf("172.30.0.%d", n), fmt.Sprintf("02:00:00:00:00:%02x", n)), byte(n), fmt.Sprint("n", n)), 0)
		}
		for n := 70; n < 80; n++ { // of which one may go without a second look
			put(n)
		}
		w.start()
		peers := func(n int) {
			t.Helper()
			w.within(time.Minute, fmt.Sprintf("%d peers", n), func(h *node) bool { return len(m.wanted().Peers) == n && h.agent.Status().Of("").PeerCount == n })
		}
		peers(10)
		h.hasBaseline(w)
		dst := netip.MustParsePrefix("10.5.77.0/24")
		mtu := func(want int) {
			t.Helper()
			w.within(soon, fmt.Sprintf("a route by %d bytes", want), func(h *node) bool { r := h.route(dst); return r.Dst == dst && r.MTU == want })
		}
		m.say("10.5.77.0-24", ip.IPv4, probe.Fabric, probe.Verdict{State: probe.Narrow, Size: 1300})
		mtu(1300)
		w.store.Delete("subnets/10.5.77.0-24")
		peers(9)
		put(77)
		peers(10)
		mtu(0)
	})
}

// What changes is logged at once, and in the status before.
func TestVerdictsAreLogged(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		m, h := w.probers()[0], w.hosts[0]
		var log lines
		h.log = log.handler()
		w.start()
		w.converged(soon)
		h.hasBaseline(w)
		m.say(m.wanted().Peers[0].Lease, ip.IPv4, probe.Fabric, probe.Verdict{State: probe.Unreachable})
		if !h.agent.Status().Troubles.Has(trouble.PeerUnreachable) {
			t.Error("it is not in the status at once")
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if text := log.String(); !strings.Contains(text, "code=peer.unreachable") || !strings.Contains(text, "UDP port 8472 is dropped") {
			t.Errorf("logged:\n%s", text)
		}
		passes := func() uint64 { w := h.agent.Status().Work; return w.Passes + w.Incremental }
		before := passes()
		m.changed() // something is known of a peer that is well, say
		<-time.After(2 * time.Second)
		synctest.Wait()
		if after := passes(); after != before {
			t.Errorf("%d passes, and nothing else is wrong than before", after-before)
		}
	})
}

func TestPeersAndPing(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		m := w.probers()[0]
		w.store.Put("subnets/10.5.78.0-24", flannelLease("172.30.0.78", "02:00:00:00:00:78"), 0)
		w.start()
		w.within(soon, "two peers", func(*node) bool { return len(w.hosts[0].agent.Peers().Peers) == 2 && len(m.wanted().Peers) == 2 })
		a, peer := w.hosts[0].agent, w.hosts[1].agent.Status().Of("").Lease.Subnets
		lease := subnet.KeyOf(subnet.Subnets{V4: peer[0], V6: peer[1]})
		all := a.Peers()
		i := slices.IndexFunc(all.Peers, func(p PeerReport) bool { return p.Lease == lease })
		if !all.Asked || i < 0 || len(all.Peers[i].Verdicts) != 4 || all.Peers[i].Verdicts[1].Way != "fabric" || all.Peers[i].Verdicts[1].P99 != 2*time.Millisecond || len(all.Peers[1-i].Verdicts) != 0 {
			t.Errorf("peers %+v", all)
		}
		for _, who := range []string{"h2", lease, peer[0].String(), "172.30.0.2", "fd30::2", peer[0].Addr().Next().Next().String(), peer[1].Addr().Next().String(), "::ffff:172.30.0.2"} {
			m.asked = nil
			p, err := a.Ping(t.Context(), who, 3)
			if err != nil || p.Node != "h2" || p.Lease != lease || len(m.asked) != 2 || len(p.Answers) != 3 || p.Answers[0].Asked != 3 || p.Answers[2].Reason != "no address to ask from" {
				t.Errorf("ping %s: %+v, %v", who, p, err)
			}
		}
		for who, want := range map[string]string{"h3": "no such peer", "h1": "no such peer", "10.6.0.1": "no such peer", "": "no such peer", "172.30.0.78": "start tulled there with --probe=on"} {
			if p, err := a.Ping(t.Context(), who, 3); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("ping %q: %+v, %v", who, p, err)
			}
		}
	})
}

func TestProbesOff(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		w.hosts[1].change = (&memoryProber{}).give(w.hosts[1])
		w.hosts[0].change = func(cfg *Config) { cfg.Networks[0].Probe = subnet.Probe{Port: 8473} } // without a prober nobody would answer
		w.start()
		w.converged(soon)
		a := w.hosts[0].agent
		if _, err := a.Ping(t.Context(), "h2", 1); !errors.Is(err, ErrProbesOff) {
			t.Errorf("ping: %v", err)
		}
		if all := a.Peers(); all.Asked || len(all.Peers) != 1 || len(all.Peers[0].Verdicts) != 0 || a.Status().Probes != nil {
			t.Errorf("peers %+v, status %+v", all, a.Status().Probes)
		}
		if value, _, ok := w.store.Get("subnets/" + a.Peers().Peers[0].Lease); !ok || !strings.Contains(value, `"Probe"`) {
			t.Errorf("the lease of a host that is asked is %s", value)
		}
		for _, p := range w.hosts[1].agent.Peers().Peers {
			if value, _, ok := w.store.Get("subnets/" + p.Lease); !ok || strings.Contains(value, `"Probe"`) {
				t.Errorf("the lease of a host that is not is %s", value)
			}
		}
	})
}

// A prober that fails ends nobody's work.
func TestProberThatEnds(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		m := &brokenProber{}
		w.hosts[0].change = func(cfg *Config) {
			m.give(w.hosts[0])(cfg)
			cfg.Prober = func(func()) Prober { return m }
		}
		w.start()
		w.converged(soon)
		<-time.After(time.Minute)
		w.converged(soon)
	})
}
