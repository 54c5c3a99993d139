package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/fabric"
	"tulle/ip"
)

// However leases come, change and go, incremental passes leave what a full pass would: it finds nothing to do, and says the same. They go on
// beside odd leases, refused ones, and those that the backend cannot serve.
func TestIncrementalPassesAreAsGoodAsFullOnes(t *testing.T) {
	for name, config := range map[string]string{
		"vxlan":     `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0"}`,
		"open":      `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0"}`, // to strangers
		"unchecked": `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0"}`,
		"direct":    `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0","Backend":{"Type":"vxlan","DirectRouting":true}}`,
		"host-gw":   `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0","Backend":{"Type":"host-gw"}}`,
		"ipip":      `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0","Backend":{"Type":"ipip"}}`,
		"dual":      `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0","EnableIPv6":true,"IPv6Network":"fc00:5::/48"}`,
	} {
		t.Run(name, func(t *testing.T) {
			backend := "vxlan"
			if name == "host-gw" || name == "ipip" {
				backend = name
			}
			simulate(t, config, 1, func(t *testing.T, w *world) {
				r := rand.New(rand.NewPCG(1, 0))
				h := w.hosts[0]
				w.dual = name == "dual"
				for i, key := range oddKeys() {
					w.putPeer(key, fmt.Sprintf("172.30.0.%d", 220+i/2), fmt.Sprintf("02:00:00:00:01:%02x", i), backend)
				}
				for i, key := range []string{"subnets/10.9.1.0-24", "subnets/10.5.0.0-24"} { // outside of the network, and reserved
					w.putPeer(key, fmt.Sprintf("172.30.0.%d", 240+i), fmt.Sprintf("02:00:00:00:02:%02x", i), backend)
				}
				w.putPeer("subnets/10.5.60.0-24", "172.30.0.242", "02:00:00:00:02:42", "udp")
				w.putPeer("subnets/10.5.61.0-24", "172.30.0.243", "none", backend)
				w.putPeer(sameMAC[0], "172.30.0.244", "02:00:00:00:03:00", backend)
				w.putPeer(sameMAC[1], "172.30.0.245", "02:00:00:00:03:00", backend)
				w.putLease("subnets/10.5.64.0-24", flannelLease("172.30.0.246", "02:00:00:00:02:46"), backend) // in dual networks it lacks a family
				path, prober := &memoryPath{}, &memoryProber{}
				w.keys = rand.New(rand.NewPCG(2, 0))
				h.change = func(cfg *Config) {
					path.give(cfg)
					prober.give(h)(cfg)
					cfg.Networks[0].Options.PeerFilter, cfg.Networks[0].Options.SourceCheck = name != "open", name != "unchecked"
				}
				w.start()
				w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready })
				for step := range 300 {
					for range 1 + r.IntN(3) {
						w.churn(r, backend)
					}
					<-time.After(time.Duration(r.IntN(500)) * time.Millisecond) // views that come closer than the grace for leases may be one
					if step%10 != 0 {
						continue
					}
					prober.sayAny(r)
					<-time.After(3 * time.Second)
					synctest.Wait()
					if d := h.drift(); len(d) > 0 {
						t.Fatalf("step %d: it wants %s, and has not done so", step, d[0])
					}
					before, last, fast := h.agent.work.Changes, h.agent.Status(), path.wanted()
					if whole := wholeFastPath(t, h); fast == nil || !fast.Peers.Equal(whole.Peers) {
						t.Fatalf("step %d: the fast path lacks peers, or has others: %v, want %v", step, fast, whole)
					}
					wantAsked(t, h, prober)
					h.agent.inbox.Wake()
					<-time.After(3 * time.Second)
					synctest.Wait()
					if after := h.agent.work.Changes; after != before {
						t.Fatalf("step %d: a full pass had %d things to do", step, after-before)
					}
					shows := func(st Status) string {
						return fmt.Sprintf("%v %+v %v", st.Of("").Peers, st.Of("").Leases, st.Troubles)
					}
					if now := h.agent.Status(); shows(now) != shows(last) {
						t.Fatalf("step %d: a full pass shows\n%s, and before it was\n%s", step, shows(now), shows(last))
					}
					if d := h.drift(); len(d) > 0 {
						t.Fatalf("step %d: the kernel lacks %s", step, d[0])
					}
				}
				if n := h.agent.Status().Work.Incremental; n < 60 {
					t.Errorf("%d incremental passes beside odd leases in 300 steps", n)
				}
			})
		})
	}
}

// oddKeys are of leases that stay odd: two of one host, one beyond SubnetMax and a small one.
func oddKeys() []string {
	return []string{"subnets/10.5.41.0-24", "subnets/10.5.42.0-24", "subnets/10.5.120.0-24", "subnets/10.5.40.128-25"}
}

// aroundOdd is a lease around the small one.
const aroundOdd = "subnets/10.5.40.0-24"

// sameMAC are of leases of two hosts with one MAC: the second is not served while the first is there.
var sameMAC = [...]string{"subnets/10.5.62.0-24", "subnets/10.5.63.0-24"}

// putPeer stores the lease of a host, of both families where w is dual.
func (w *world) putPeer(key, public, mac, backend string) {
	value := flannelLease(public, mac)
	if w.dual {
		value = dualLease(public, mac)
	}
	w.putLease(w.peerKey(key), value, backend)
}

func (w *world) putLease(key, value, backend string) {
	if w.keys != nil && w.keys.IntN(4) > 0 {
		value = probed(value, byte(1+w.keys.IntN(100)), "of-"+strings.NewReplacer("/", "-", "&", "-", ":", "-").Replace(key))
	}
	w.store.Put(key, strings.Replace(value, `"vxlan"`, strconv.Quote(backend), 1), 0)
}

// peerKey is the key of a lease of the families of w. The IPv6 subnet is numbered as the IPv4 one is.
func (w *world) peerKey(key string) string {
	var n, rest, bits int
	if _, err := fmt.Sscanf(key, "subnets/10.5.%d.%d-%d", &n, &rest, &bits); err != nil || !w.dual {
		return key
	}
	return fmt.Sprintf("%s_fc00:5:0:%x::-%d", key, n, bits+40)
}

// deletePeer deletes the leases of a peer, of one family or both.
func (w *world) deletePeer(key string) {
	w.store.Delete(key)
	w.store.Delete(w.peerKey(key))
}

// dualLease is flannelLease for both families.
func dualLease(public, mac string) string {
	addr := netip.MustParseAddr(public).As4()
	v6 := fmt.Sprintf(`"PublicIPv6":"fd30::%x:%x:%x:%x","BackendV6Data":{"VNI":1,"VtepMAC":%q}`, addr[0], addr[1], addr[2], addr[3], mac)
	return strings.Replace(flannelLease(public, mac), `"PublicIPv6":null`, v6, 1)
}

// churn makes a change to the leases of hosts that do not live: most are good, and some in the way of others.
func (w *world) churn(r *rand.Rand, backend string) {
	n := 20 + r.IntN(12)
	key := fmt.Sprintf("subnets/10.5.%d.0-24", n)
	public, mac := fmt.Sprintf("172.30.0.%d", n+r.IntN(2)*100), fmt.Sprintf("02:00:00:00:00:%02x", n+r.IntN(2)*100)
	switch r.IntN(40) {
	case 0:
		public = fmt.Sprintf("172.30.0.%d", 20+r.IntN(12))
	case 1:
		mac = fmt.Sprintf("02:00:00:00:00:%02x", 20+r.IntN(12))
	case 2:
		key = fmt.Sprintf("subnets/10.5.%d.0-23", n&^1)
	case 3:
		key = fmt.Sprintf("subnets/10.5.%d.128-25", n)
	case 4:
		public = fmt.Sprintf("10.5.%d.7", 20+r.IntN(12))
	case 5:
		mac = "x"
	case 6:
		public = fmt.Sprintf("172.30.0.%d", 220+r.IntN(2)) // of odd leases
	case 7:
		key = aroundOdd
	case 8:
		i := r.IntN(2) // of those that stand alone
		w.putPeer(oddKeys()[2+i], fmt.Sprintf("172.30.0.%d", 230+2*r.IntN(8)+i), fmt.Sprintf("02:00:00:00:01:%02x", 2+i), backend)
		return
	case 9:
		w.deletePeer(sameMAC[r.IntN(2)])
		return
	case 10:
		i := r.IntN(2)
		w.putPeer(sameMAC[i], fmt.Sprintf("172.30.0.%d", 244+i), fmt.Sprintf("02:00:00:00:03:%02x", r.IntN(3)/2), backend)
		return
	case 11:
		w.putLease(key, flannelLease(public, mac), backend)
		return
	}
	if r.IntN(3) == 0 {
		w.deletePeer(key)
		w.deletePeer(aroundOdd)
		for _, odd := range []string{"subnets/10.5.%d.128-25", "subnets/10.5.%d.0-23"} {
			w.deletePeer(fmt.Sprintf(odd, n&^1))
			w.deletePeer(fmt.Sprintf(odd, n))
		}
		return
	}
	w.putPeer(key, public, mac, backend)
}

// hasBaseline waits until incremental passes may go on from the last one.
func (h *node) hasBaseline(w *world) {
	h.t.Helper()
	w.within(time.Minute, "ready for incremental passes", func(n *node) bool {
		st := h.agent.Status()
		return n != h || st.Ready && !slices.ContainsFunc(st.Networks, func(n fabric.Status) bool { return n.FullOnly != nil })
	})
}

// When the last peer behind a link goes, what let packets through there goes as well.
func TestIncrementalPassLeaveNoOpening(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`, 1, func(t *testing.T, w *world) {
		w.start()
		h := w.hosts[0]
		w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready })
		own := h.agent.Status().Of("").Lease.Subnets[0]
		gateway := netip.PrefixFrom(own.Addr().Next(), own.Bits())
		h.kernel.AddInterface(ip.Interface{Name: "docker0", MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: gateway}}})
		h.kernel.Restore(ip.IPTables, ip.IPv4, "*filter\n:FORWARD DROP\nCOMMIT\n")
		const near = "subnets/10.5.77.0-24"
		openings := func() int { return len(h.owned().Openings) }
		w.within(soon, "openings of the tunnel", func(*node) bool { return openings() > 0 })
		h.hasBaseline(w)
		without := openings()
		w.store.Put(near, flannelLease("172.30.0.77", "02:00:00:00:00:77"), 0)
		w.within(soon, "direct route and its openings", func(*node) bool { return openings() > without })
		h.hasBaseline(w)
		w.store.Delete(near)
		w.within(soon, "openings gone", func(*node) bool { return openings() == without })
	})
}

// What the kernel refuses an incremental pass is tried again at once, by a full one.
func TestIncrementalPassRefusedByTheKernel(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		w.start()
		h := w.hosts[0]
		h.hasBaseline(w)
		refused := 0
		h.kernel.Refuse(func(op ip.Op) error {
			if _, ok := op.New.(ip.Route); ok && refused == 0 {
				refused++
				return errors.New("out of memory")
			}
			return nil
		})
		w.store.Put("subnets/10.5.77.0-24", flannelLease("172.30.0.77", "02:00:00:00:00:77"), 0)
		w.within(time.Second, "route", func(*node) bool { return refused == 1 && len(h.owned().Routes) == 1 })
		h.asAfterAll("after a refusal")
	})
}

// After a full pass that did not come to an end, only another will do.
func TestNoBaselineAfterAFailure(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		h.hasBaseline(w)
		h.kernel.Refuse(func(ip.Op) error { return errors.New("out of memory") })
		h.external(ip.Op{Verb: ip.Delete, Old: h.owned().Routes[0]})
		<-time.After(time.Second)
		if synctest.Wait(); h.agent.hasBaselines() {
			t.Error("an incremental pass would go on from one that failed")
		}
	})
}

// While every change takes a full pass, the status says why and since when.
func TestFullPassesOnly(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		w.start()
		h := w.hosts[0]
		obstacle := func() fabric.FullOnly {
			if o := h.agent.Status().Of("").FullOnly; o != nil {
				return *o
			}
			return fabric.FullOnly{}
		}
		h.hasBaseline(w)
		if o := obstacle(); o != (fabric.FullOnly{}) {
			t.Errorf("%+v although incremental passes may do", o)
		}
		route := ip.Route{Dst: netip.MustParsePrefix("10.5.30.0/24"), Via: netip.MustParseAddr("172.30.0.20"), Link: "eth0", Protocol: 4}
		h.external(ip.Op{Verb: ip.Add, New: route})
		w.within(soon, "named", func(*node) bool { return obstacle().Code == fabric.ForeignRoute })
		first := obstacle()
		if !strings.Contains(first.Text, "10.5.30.0/24 via 172.30.0.20") {
			t.Errorf("it says %q", first.Text)
		}
		before := h.agent.Status().Work
		w.store.Put("subnets/10.5.77.0-24", flannelLease("172.30.0.77", "02:00:00:00:00:77"), 0)
		w.within(soon, "a full pass", func(h *node) bool { return h.agent.Status().Of("").PeerCount == 1 })
		if now := h.agent.Status().Work; now.Incremental != before.Incremental || obstacle() != first {
			t.Errorf("%d incremental passes, and then %+v instead of %+v", now.Incremental-before.Incremental, obstacle(), first)
		}
		h.external(ip.Op{Verb: ip.Delete, Old: route})
		w.within(soon, "gone", func(*node) bool { return obstacle() == fabric.FullOnly{} })
	})
}
