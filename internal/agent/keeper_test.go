package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tulle/subnet"
)

// spoiled is a store whose leases do not work as they should.
type spoiled struct {
	subnet.Store
	acquired atomic.Int32
	lose     bool        // every lease at once
	refuse   atomic.Bool // every update
}

type spoiledLease struct {
	subnet.Held
	store *spoiled
}

func (s *spoiled) Acquire(ctx context.Context, claim subnet.Claim) (subnet.Held, error) {
	s.acquired.Add(1)
	held, err := s.Store.Acquire(ctx, claim)
	return spoiledLease{held, s}, err
}

func (l spoiledLease) Lost() <-chan error {
	if !l.store.lose {
		return l.Held.Lost()
	}
	lost := make(chan error, 1)
	lost <- subnet.ErrLost
	return lost
}

func (l spoiledLease) Update(ctx context.Context, attrs subnet.Attrs) error {
	if l.store.refuse.Load() {
		return errors.New("etcd is full")
	}
	return l.Held.Update(ctx, attrs)
}

func TestLeaseThatDoesNotLastIsAcquiredPatiently(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		store := &spoiled{Store: w.store, lose: true}
		h := w.hosts[0]
		h.change = func(c *Config) { c.Store, c.Log = store, slog.New(slog.DiscardHandler) }
		h.start()
		<-time.After(time.Hour)
		synctest.Wait()
		if n := store.acquired.Load(); n < 200 || n > 600 {
			t.Errorf("acquired %d times in an hour, want about every %v", n, retryMost)
		}
	})
}

func TestPublishingThatFailsIsTold(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		store := &spoiled{Store: w.store}
		h := w.hosts[0]
		h.change = func(c *Config) { c.Store = store }
		w.start()
		w.converged(soon)
		store.refuse.Store(true)
		h.move(201)
		w.within(soon, "told", func(o *node) bool {
			st := h.agent.Status()
			return !st.Ready && strings.Contains(st.Reason, "publish lease: etcd is full") && len(st.Peers) == 1
		})
		h.move(h.n)
		w.converged(soon)
		h.move(201)
		w.within(soon, "told again", func(*node) bool { return !h.agent.Status().Ready })
		store.refuse.Store(false)
		w.converged(time.Minute)
	})
}

// A host that gets another node id, as with a changed --node-id, is another host at the same address.
func TestNodeIDChanges(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h, peer := w.hosts[0], w.hosts[1]
		was, mac := h.agent.Status().Lease.Subnets, h.link("flannel.1").MAC
		h.stop()
		h.change = func(c *Config) { c.Node = "renamed" }
		h.start()
		w.within(soon, "leased", func(*node) bool { return h.agent.Status().Ready && len(h.drift()) == 0 })
		st := h.agent.Status()
		if slices.Equal(st.Lease.Subnets, was) {
			t.Errorf("took the subnets %v, which are leased to another node id", was)
		}
		if len(st.Problems) == 0 || !strings.Contains(st.Problems[0].Reason, "this host's own") {
			t.Errorf("problems %v, want one about the lease under the earlier node id", st.Problems)
		}
		if got := h.link("flannel.1").MAC; got != mac {
			t.Errorf("MAC %s, was %s", got, mac)
		}
		w.within(soon, "the peer follows", func(*node) bool {
			return slices.ContainsFunc(peer.agent.Status().Peers, func(p PeerStatus) bool {
				return p.Node == "renamed" && slices.Equal(p.Subnets, st.Lease.Subnets)
			})
		})
	})
}
