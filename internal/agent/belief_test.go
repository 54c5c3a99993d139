package agent

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/fabric"
	"tulle/subnet"
	"tulle/subnet/flannel"
	"tulle/subnet/subnettest"
)

// A host that the store does not hear any more says that it holds its lease only for as long as the store keeps it.
func TestBeliefEndsWithTheLease(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		mute := w.store.Open().(*subnettest.Store)
		h.change = func(c *Config) { c.Networks[0].Store, c.Networks[0].Lease.TTL = mute, time.Minute }
		w.start()
		w.converged(soon)
		was := h.owned().String()
		st := h.agent.Status()
		key := "subnets/" + subnet.KeyOf(subnet.Subnets{V4: st.Of("").Lease.Subnets[0], V6: st.Of("").Lease.Subnets[1]})
		if err := mute.Close(); err != nil {
			t.Fatal(err)
		}
		for ended := time.Duration(0); ended < time.Minute; ended += 100 * time.Millisecond {
			synctest.Wait()
			_, _, there := w.store.Get(key)
			if held := h.agent.Status().Of("").Lease.Held; held && !there {
				t.Fatal("the lease has run out, and the host says that it holds it")
			} else if !held && ended == 0 {
				t.Fatal("the lease is not held any more at once")
			}
			<-time.After(100 * time.Millisecond)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if st := h.agent.Status(); st.Of("").Lease.Held || st.Degraded != fabric.ErrUnconfirmed.Error() || !st.Ready {
			t.Errorf("status %+v, want it degraded", st)
		}
		if _, err := flannel.ReadEnv(filepath.Join(h.dir, "subnet.env")); err != nil {
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
		store := &warned{Store: w.store}
		h.change = func(c *Config) { c.Networks[0].Store = store }
		w.start()
		w.converged(soon)
		store.ranOut.Store(true)
		if st := h.agent.Status(); st.Of("").Lease.Held || st.Degraded != fabric.ErrUnconfirmed.Error() {
			t.Errorf("status %+v, lease %+v, want it not held", st, st.Of("").Lease)
		}
		if !h.agent.status.get().Of("").Lease.Held {
			t.Error("a pass has run, and the test shows nothing")
		}
		w.within(2*beatEvery, "told by a pass", func(*node) bool { return !h.agent.status.get().Of("").Lease.Held })
		store.ranOut.Store(false)
		w.within(2*beatEvery, "held again", func(*node) bool { return h.agent.status.get().Of("").Lease.Held })
	})
}

// warned is a store that may not confirm leases for as long as they last.
type warned struct {
	subnet.Store
	ranOut atomic.Bool
}

func (d *warned) Acquire(ctx context.Context, claim subnet.Claim) (subnet.Held, error) {
	held, err := d.Store.Acquire(ctx, claim)
	return doubtfulLease{held, d}, err
}

type doubtfulLease struct {
	subnet.Held
	store *warned
}

func (l doubtfulLease) Remaining() time.Duration {
	if l.store.ranOut.Load() {
		return 0
	}
	return l.Held.Remaining()
}
