package agent

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/subnet"
	"tulle/subnet/subnettest"
)

// A host that the store does not hear any more says that it holds its lease only for as long as the store keeps it.
func TestBeliefEndsWithTheLease(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		mute := w.store.Open().(*subnettest.Store)
		h.change = func(c *Config) { c.Store, c.TTL = mute, time.Minute }
		w.start()
		w.converged(soon)
		was := h.owned().String()
		st := h.agent.Status()
		key := "subnets/" + subnet.KeyOf(subnet.Subnets{V4: st.Lease.Subnets[0], V6: st.Lease.Subnets[1]})
		if err := mute.Close(); err != nil {
			t.Fatal(err)
		}
		for ended := time.Duration(0); ended < time.Minute; ended += 100 * time.Millisecond {
			synctest.Wait()
			_, _, there := w.store.Get(key)
			if held := h.agent.Status().Lease.Held; held && !there {
				t.Fatal("the lease has run out, and the host says that it holds it")
			} else if !held && ended == 0 {
				t.Fatal("the lease is not held any more at once")
			}
			<-time.After(100 * time.Millisecond)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if st := h.agent.Status(); st.Lease.Held || st.Degraded != errRanOut.Error() || !st.Ready {
			t.Errorf("status %+v, want it degraded", st)
		}
		if _, err := subnet.ReadEnv(filepath.Join(h.dir, "subnet.env")); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(was, h.owned().String()); diff != "" {
			t.Errorf("the data plane changed:\n%s", diff)
		}
	})
}

// Before the first pass after a long stop, and before the store has said anything, the status is right.
func TestStatusIsRightAtOnce(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		w.converged(soon)
		was := h.agent.keeper.held
		h.agent.keeper.mu.Lock()
		h.agent.keeper.held = ranOut{was}
		h.agent.keeper.mu.Unlock()
		if st := h.agent.Status(); st.Lease.Held || st.Degraded != errRanOut.Error() {
			t.Errorf("status %+v, lease %+v, want it not held", st, st.Lease)
		}
		if !h.agent.status.get().Lease.Held {
			t.Error("a pass has run, and the test shows nothing")
		}
		w.within(2*beatEvery, "told by a pass", func(*node) bool { return !h.agent.status.get().Lease.Held })
		h.agent.keeper.mu.Lock()
		h.agent.keeper.held = was
		h.agent.keeper.mu.Unlock()
		w.within(2*beatEvery, "held again", func(*node) bool { return h.agent.status.get().Lease.Held })
	})
}

type ranOut struct{ subnet.Held }

func (ranOut) Remaining() time.Duration { return 0 }
