package agent

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/fabric"
	"tulle/ip"
)

// A lease that is deleted under a live host comes back at once, and nobody stops sending to the host. One that stays away is believed to be gone
// soon, and one whose subnet another host has at once.
func TestLeaseThatComesBackIsNotMissed(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		const key = "subnets/10.5.9.0-24"
		h := w.hosts[0]
		peer, another := flannelLease("172.30.0.7", "02:00:00:00:00:07"), flannelLease("172.30.0.8", "02:00:00:00:00:08")
		w.store.Put(key, peer, 0)
		h.start()
		peers := func(n int) func(*node) bool {
			return func(*node) bool { st := h.agent.Status(); return st.Ready && len(st.Of("").Peers) == n }
		}
		w.within(soon, "peer", peers(1))
		before := h.agent.work.Changes
		for _, away := range []time.Duration{0, time.Millisecond, fabric.LeaseGrace / 2, fabric.LeaseGrace - time.Millisecond} {
			w.store.Delete(key)
			<-time.After(away)
			w.store.Put(key, peer, 0)
			<-time.After(2 * fabric.LeaseGrace)
		}
		synctest.Wait()
		if n := h.agent.work.Changes - before; n > 0 {
			t.Errorf("a lease that comes back has changed the kernel %d times", n)
		}

		w.store.Put(key, another, 0)
		w.within(fabric.LeaseGrace/2, "moved", func(*node) bool {
			peers := h.agent.Status().Of("").Peers
			return len(peers) == 1 && peers[0].Public[0].String() == "172.30.0.8"
		})
		w.store.Delete(key)
		deleted := time.Now()
		w.within(time.Second, "gone", peers(0))
		if waited := time.Since(deleted); waited < fabric.LeaseGrace {
			t.Errorf("it is gone after %v", waited)
		}
		if routes := h.owned().Routes; slices.ContainsFunc(routes, func(r ip.Route) bool { return r.Dst.String() == "10.5.9.0/24" }) {
			t.Errorf("it is routed to: %v", routes)
		}
	})
}
