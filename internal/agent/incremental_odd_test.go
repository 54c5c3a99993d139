package agent

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
)

// TestIncrementalPassThatConcernOthers makes one change after another to leases that were plain. Soon after each, without a
// resync, the kernel is as a full pass leaves it.
func TestIncrementalPassThatConcernOthers(t *testing.T) {
	type lease struct{ key, public, mac string }
	gone := func(key string) lease { return lease{key: key} }
	const tunnel, direct = `{"Network":"10.5.0.0/16"}`, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`
	for name, tt := range map[string]struct {
		config string
		steps  [][]lease
	}{
		"host of another":           {tunnel, [][]lease{{{"10.5.30.0-24", "192.0.2.20", "30"}}, {gone("10.5.20.0-24")}, {{"10.5.20.0-24", "192.0.2.20", "20"}}, {gone("10.5.30.0-24")}}},
		"moves to host of another":  {tunnel, [][]lease{{{"10.5.21.0-24", "192.0.2.20", "21"}}, {gone("10.5.20.0-24")}}},
		"MAC of another":            {tunnel, [][]lease{{{"10.5.30.0-24", "192.0.2.30", "20"}}, {gone("10.5.20.0-24")}}},
		"a MAC of its own again":    {tunnel, [][]lease{{{"10.5.21.0-24", "192.0.2.21", "99"}}, {{"10.5.21.0-24", "192.0.2.21", "21"}}}},
		"two change places":         {tunnel, [][]lease{{{"10.5.20.0-24", "192.0.2.21", "21"}, {"10.5.21.0-24", "192.0.2.20", "20"}}}},
		"MACs change places":        {tunnel, [][]lease{{{"10.5.20.0-24", "192.0.2.20", "21"}, {"10.5.21.0-24", "192.0.2.21", "20"}}}},
		"part of another":           {tunnel, [][]lease{{{"10.5.20.128-25", "192.0.2.30", "30"}}, {gone("10.5.20.0-24")}, {{"10.5.20.0-24", "192.0.2.20", "20"}}}},
		"part of none, and a whole": {tunnel, [][]lease{{{"10.5.30.128-25", "192.0.2.30", "30"}}, {{"10.5.30.0-24", "192.0.2.31", "31"}}, {gone("10.5.30.128-25")}}},
		"wider than another":        {tunnel, [][]lease{{{"10.5.20.0-23", "192.0.2.30", "30"}}, {gone("10.5.20.0-23")}}},
		"host in another's subnet":  {tunnel, [][]lease{{{"10.5.30.0-24", "10.5.21.7", "30"}}, {gone("10.5.21.0-24")}, {{"10.5.21.0-24", "192.0.2.21", "21"}}}},
		"host in a subnet to come":  {tunnel, [][]lease{{{"10.5.30.0-24", "10.5.31.7", "30"}}, {{"10.5.31.0-24", "192.0.2.31", "31"}}, {gone("10.5.30.0-24")}}},
		"host in its own subnet":    {tunnel, [][]lease{{{"10.5.30.0-24", "10.5.30.7", "30"}}, {gone("10.5.30.0-24")}}},
		"this host's address":       {tunnel, [][]lease{{{"10.5.30.0-24", "172.30.0.1", "30"}}, {gone("10.5.30.0-24")}}},
		"captures etcd":             {tunnel, [][]lease{{{"10.5.40.0-24", "192.0.2.40", "40"}}, {gone("10.5.40.0-24")}}},
		"reserved for nobody":       {tunnel, [][]lease{{{"10.5.0.0-24", "192.0.2.40", "40"}}, {gone("10.5.0.0-24")}}},
		"without a MAC":             {tunnel, [][]lease{{{"10.5.30.0-24", "192.0.2.30", "x"}}, {{"10.5.30.0-24", "192.0.2.30", "30"}}}},
		"a key that is none":        {tunnel, [][]lease{{{"10.5.30.7-24", "192.0.2.30", "30"}, {"10.5.31.0-24", "192.0.2.31", "31"}}, {gone("10.5.30.7-24")}}},
		"first on the link":         {direct, [][]lease{{{"10.5.30.0-24", "172.30.0.30", "30"}}, {{"10.5.31.0-24", "172.30.0.31", "31"}}, {gone("10.5.30.0-24")}, {gone("10.5.31.0-24")}}},
		"comes to the link":         {direct, [][]lease{{{"10.5.20.0-24", "172.30.0.20", "20"}}, {{"10.5.20.0-24", "192.0.2.20", "20"}}, {{"10.5.20.0-24", "172.30.0.20", "20"}}}},
		"places on the link":        {direct, [][]lease{{{"10.5.20.0-24", "172.30.0.20", "20"}}, {{"10.5.20.0-24", "192.0.2.20", "20"}, {"10.5.21.0-24", "172.30.0.20", "21"}}, {gone("10.5.21.0-24")}}},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, tt.config, 1, func(t *testing.T, w *world) {
				h := w.hosts[0]
				h.change = func(cfg *Config) {
					cfg.Networks[0].Reached = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.5.40.9")} }
				}
				put := func(l lease) {
					key := "subnets/" + l.key
					if l.public == "" {
						w.store.Delete(key)
						return
					}
					w.store.Put(key, flannelLease(l.public, "02:00:00:00:00:"+l.mac), 0)
				}
				for n := 20; n < 23; n++ {
					put(lease{fmt.Sprintf("10.5.%d.0-24", n), fmt.Sprintf("192.0.2.%d", n), fmt.Sprint(n)})
				}
				w.start()
				w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready })
				own := h.agent.Status().Of("").Lease.Subnets[0]
				gateway := netip.PrefixFrom(own.Addr().Next(), own.Bits())
				h.kernel.AddInterface(ip.Interface{Name: "docker0", MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: gateway}}})
				h.kernel.Restore(ip.IPTables, ip.IPv4, "*filter\n:FORWARD DROP\nCOMMIT\n")
				for i, step := range tt.steps {
					<-time.After(time.Second)
					synctest.Wait()
					for _, l := range step {
						put(l)
					}
					<-time.After(time.Second)
					h.asAfterAll(fmt.Sprintf("step %d", i))
				}
			})
		})
	}
}

// A route that a flanneld left goes when the lease of its subnet comes.
func TestIncrementalPassAndAnAbandonedRoute(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.store.Put("subnets/10.5.20.0-24", flannelLease("172.30.0.20", "02:00:00:00:00:20"), 0)
		w.start()
		h.external(ip.Op{Verb: ip.Add, New: ip.Route{
			Dst: netip.MustParsePrefix("10.5.30.0/24"), Via: netip.MustParseAddr("172.30.0.20"), Link: "eth0", Protocol: 3,
		}})
		w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready })
		<-time.After(time.Second)
		w.store.Put("subnets/10.5.30.0-24", flannelLease("172.30.0.30", "02:00:00:00:00:30"), 0)
		<-time.After(time.Second)
		h.asAfterAll("once its lease has come")
	})
}

// A configuration that waits for a restart is told at once.
func TestIncrementalPassAndAnotherConfiguration(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		w.start()
		h := w.hosts[0]
		h.hasBaseline(w)
		w.store.Put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":4789}}`, 0)
		w.within(time.Second, "pending", func(h *node) bool { return h.agent.Status().Troubles.Has(trouble.ConfigPending) })
	})
}

// asAfterAll fails if a full pass still finds something to do, or tells of something else.
func (h *node) asAfterAll(when string) {
	h.t.Helper()
	synctest.Wait()
	before, reported := h.agent.work.Changes, h.agent.Status()
	h.agent.inbox.Hurry()
	<-time.After(time.Second)
	synctest.Wait()
	if after := h.agent.work.Changes; after != before {
		h.t.Errorf("%s: a full pass had %d things to do", when, after-before)
	}
	now := h.agent.Status()
	if fmt.Sprint(now.Of("").Peers, now.Troubles) != fmt.Sprint(reported.Of("").Peers, reported.Troubles) {
		h.t.Errorf("%s: peers and troubles %v %v, were %v %v before a full pass", when, now.Of("").Peers, now.Troubles, reported.Of("").Peers, reported.Troubles)
	}
	if d := h.drift(); len(d) > 0 {
		h.t.Errorf("%s: the kernel lacks %s", when, d[0])
	}
}
