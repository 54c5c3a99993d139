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

	"tulle/internal/fabric"
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
		h.change = func(c *Config) { c.Networks[0].Store, c.Log = store, slog.New(slog.DiscardHandler) }
		h.start()
		<-time.After(time.Hour)
		synctest.Wait()
		if n := store.acquired.Load(); n < 200 || n > 600 {
			t.Errorf("acquired %d times in an hour, want about every %v", n, fabric.RetryMost)
		}
	})
}

func TestPublishingThatFailsIsReported(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		store := &spoiled{Store: w.store}
		h := w.hosts[0]
		h.change = func(c *Config) { c.Networks[0].Store = store }
		w.start()
		w.converged(soon)
		store.refuse.Store(true)
		h.move(201)
		w.within(soon, "told", func(o *node) bool {
			st := h.agent.Status()
			return !st.Ready && strings.Contains(st.Reason, "publish lease: etcd is full") && len(st.Of("").Peers) == 1
		})
		h.move(h.n)
		w.converged(soon)
		h.move(201)
		w.within(soon, "told again", func(*node) bool { return !h.agent.Status().Ready })
		store.refuse.Store(false)
		w.converged(time.Minute)
	})
}

// A host that gets another node id, as with a changed --node-id, goes on with the lease of its earlier run. Another machine at
// its address is another host.
func TestNodeIDChanges(t *testing.T) {
	for name, machine := range map[string][]string{"on the same machine": {"h1"}, "on another": {"another"}, "on an unknown one": nil} {
		t.Run(name, func(t *testing.T) { nodeIDChanges(t, machine) })
	}
}

func nodeIDChanges(t *testing.T, machine []string) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h, peer := w.hosts[0], w.hosts[1]
		was, mac := h.agent.Status().Of("").Lease.Subnets, h.link("flannel.1").MAC
		h.stop()
		h.change = func(c *Config) { c.Host.Node, c.Host.Hardware = "renamed", machine }
		h.start()
		w.within(soon, "leased", func(*node) bool { return h.agent.Status().Ready && len(h.drift()) == 0 })
		st := h.agent.Status()
		same := slices.Equal(machine, []string{"h1"})
		if got := slices.Equal(st.Of("").Lease.Subnets, was); got != same {
			t.Errorf("subnets %v, were %v", st.Of("").Lease.Subnets, was)
		}
		if !same && (len(h.leftOut()) == 0 || !strings.Contains(h.leftOut()[0].Text, "this host's own")) {
			t.Errorf("problems %v, want one about the lease under the earlier node id", h.leftOut())
		}
		if got := h.link("flannel.1").MAC; got != mac {
			t.Errorf("MAC %s, was %s", got, mac)
		}
		w.within(soon, "the peer follows", func(*node) bool {
			return slices.ContainsFunc(peer.agent.Status().Of("").Peers, func(p fabric.PeerStatus) bool {
				return p.Node == "renamed" && slices.Equal(p.Subnets, st.Of("").Lease.Subnets)
			})
		})
	})
}
