package agent

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/probe"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/subnettest"
)

// leaseText is that of the key of a host's lease.
func (h *node) leaseText() string { return subnet.KeyOf(subnet.Subnets{V4: h.lease()}) }

// complaints are those in the store, by node.
func (w *world) complaints() map[string]subnet.Complaint {
	w.t.Helper()
	all := map[string]subnet.Complaint{}
	for _, key := range w.store.Keys() {
		node, ok := strings.CutPrefix(key, subnettest.ComplaintOf(""))
		if !ok {
			continue
		}
		value, expires, ok := w.store.Get(key)
		c, err := subnet.ParseComplaint(node, []byte(value))
		if !ok || !expires || err != nil {
			w.t.Errorf("complaint %q of %s, expires: %t: %v", value, node, expires, err)
		}
		all[node] = c
	}
	return all
}

// countWrites returns what tells how often something in the store has changed since it was last asked.
func (w *world) countWrites() func() int {
	var n atomic.Int64
	w.store.Observe(func(subnet.Set) { n.Add(1) })
	return func() int {
		synctest.Wait()
		return int(n.Swap(0))
	}
}

// asking starts the hosts, each with a prober, and waits until all are asked and there is nothing more to do.
func (w *world) asking() []*memoryProber {
	w.t.Helper()
	probers := w.probers()
	w.start()
	w.within(time.Minute, "all asked", func(h *node) bool { return len(probers[h.n-1].wanted().Peers) == len(w.hosts)-1 })
	<-time.After(time.Minute + complaintsLook)
	synctest.Wait()
	return probers
}

// find has a prober find something out about all ways to a peer, now.
func (m *memoryProber) find(peer *node, s probe.State) {
	for _, way := range probe.Ways() {
		m.say(peer.leaseText(), ip.IPv4, way, probe.Verdict{State: s, Size: 1300, Since: time.Now()})
	}
}

// A healthy network writes nothing for its probes.
func TestHealthyNetworkWritesNothing(t *testing.T) {
	simulate(t, v4Config, 20, func(t *testing.T, w *world) {
		w.asking()
		written := w.countWrites()
		<-time.After(time.Hour)
		if n := written(); n != 0 || len(w.complaints()) > 0 {
			t.Errorf("%d writes in an hour, and complaints %v", n, w.complaints())
		}
	})
}

// Hosts that lose one peer write one key each, and remove it when that is over.
func TestManyHostsLoseOnePeer(t *testing.T) {
	const hosts = 101
	simulate(t, v4Config, hosts, func(t *testing.T, w *world) {
		probers := w.asking()
		lost := w.hosts[hosts-1]
		written := w.countWrites()
		for _, m := range probers[:hosts-1] {
			m.find(lost, probe.Unreachable)
		}
		<-time.After(8 * time.Second)
		if n := written(); n != 0 {
			t.Errorf("%d writes before it has lasted", n)
		}
		<-time.After(90 * time.Second)
		all := w.complaints()
		if n := written(); n != hosts-1 || len(all) != hosts-1 {
			t.Errorf("%d writes, %d complaints, want %d of each", n, len(all), hosts-1)
		}
		for who, c := range all {
			if p := c.Peers[0]; who == lost.name || len(c.Peers) != 2 || p.Node != lost.name || p.Lease != lost.leaseText() || p.State != subnet.PeerUnreachable {
				t.Errorf("%s says %+v", who, c)
			}
		}
		for _, m := range probers[:hosts-1] {
			m.find(lost, probe.Well)
		}
		<-time.After(time.Minute + complaintsLook)
		if n := written(); n != hosts-1 || len(w.complaints()) != 0 {
			t.Errorf("%d writes over the end, and %d complaints are left", n, len(w.complaints()))
		}
	})
}

// A blink writes nothing, and a peer that comes and goes costs a write a minute, whatever it does.
func TestFlappingPeer(t *testing.T) {
	for name, tt := range map[string]struct {
		each   time.Duration
		writes int // in some twenty minutes, at most
		least  int
	}{
		"blinks": {9 * time.Second, 0, 0},
		"flaps":  {13 * time.Second, 21, 7},
		"slowly": {90 * time.Second, 14, 14},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, v4Config, 3, func(t *testing.T, w *world) {
				m := w.asking()[0]
				written := w.countWrites()
				total := 0
				for end := time.Now().Add(20 * time.Minute); time.Now().Before(end); {
					for _, s := range []probe.State{probe.Unreachable, probe.Well} {
						m.find(w.hosts[1], s)
						<-time.After(tt.each)
					}
				}
				<-time.After(time.Minute + complaintsLook)
				if total = written(); total > tt.writes || total < tt.least || len(w.complaints()) > 0 {
					t.Errorf("%d writes, want %d to %d; left is %v", total, tt.least, tt.writes, w.complaints())
				}
			})
		})
	}
}

// A host that nobody answers says nothing of others.
func TestBlockedHostComplainsOfNobody(t *testing.T) {
	simulate(t, v4Config, 3, func(t *testing.T, w *world) {
		m := w.asking()[0]
		written := w.countWrites()
		m.find(w.hosts[1], probe.Unreachable)
		m.find(w.hosts[2], probe.Unreachable)
		m.sayBlocked(errors.New("nobody answers"))
		<-time.After(5 * time.Minute)
		if n := written(); n != 0 {
			t.Errorf("%d writes: %v", n, w.complaints())
		}
		m.sayBlocked(nil)
		<-time.After(time.Minute)
		if c := w.complaints()["h1"]; len(c.Peers) != 4 {
			t.Errorf("said is %+v", c)
		}
	})
}

// After a restart a host corrects what it had said.
func TestRestartCorrectsComplaint(t *testing.T) {
	simulate(t, v4Config, 3, func(t *testing.T, w *world) {
		m := w.asking()[0]
		h := w.hosts[0]
		restart := func() {
			h.stop()
			<-time.After(10 * time.Second)
			m = &memoryProber{}
			h.change = m.give(h)
			h.start()
			w.within(soon, "asked", func(*node) bool { return len(m.wanted().Peers) == 2 })
		}
		said := func(peer string) {
			t.Helper()
			synctest.Wait()
			c, ok := w.complaints()["h1"]
			if ok != (peer != "") || ok && (len(c.Peers) != 2 || c.Peers[0].Node != peer) {
				t.Errorf("said is %+v, %t, want of %q", c, ok, peer)
			}
		}
		m.find(w.hosts[1], probe.Unreachable)
		<-time.After(15 * time.Second)
		said("h2")
		restart()
		said("h2")
		m.find(w.hosts[2], probe.Narrow)
		<-time.After(15 * time.Second)
		said("h3")
		restart()
		<-time.After(time.Minute + complaintsLook)
		said("")
		m.find(w.hosts[1], probe.Unreachable)
		<-time.After(2 * time.Minute)
		h.stop()
		h.change = nil // and no longer asks
		h.start()
		<-time.After(soon)
		said("")
	})
}

// grudging is a store in which complaints fail.
type grudging struct {
	subnet.Store
	refuse atomic.Bool
	tried  atomic.Int32
}

type grudgingLease struct {
	subnet.Held
	store *grudging
}

func (s *grudging) Acquire(ctx context.Context, claim subnet.Claim) (subnet.Held, error) {
	held, err := s.Store.Acquire(ctx, claim)
	if err != nil {
		return nil, err
	}
	return grudgingLease{held, s}, nil
}

func (l grudgingLease) Complain(ctx context.Context, c *subnet.Complaint) error {
	l.store.tried.Add(1)
	if l.store.refuse.Load() {
		return errors.New("etcd is full")
	}
	return l.Held.Complain(ctx, c)
}

// A complaint that fails is no trouble, and is tried again.
func TestComplaintThatFails(t *testing.T) {
	simulate(t, v4Config, 3, func(t *testing.T, w *world) {
		store := &grudging{Store: w.store}
		store.refuse.Store(true)
		w.hosts[0].store = store
		m, st := w.asking()[0], w.hosts[0].agent.Status
		if n := store.tried.Load(); n != 1 {
			t.Errorf("tried %d times in the first minute, with nothing to tell", n)
		}
		m.find(w.hosts[1], probe.Unreachable)
		<-time.After(2 * time.Minute)
		before := store.tried.Load()
		<-time.After(10 * time.Minute)
		if n := store.tried.Load() - before; n < 9 || n > 10 || !st().Ready || len(st().Troubles.All) != 1 {
			t.Errorf("tried %d times in 10 minutes, ready: %t, %+v", n, st().Ready, st().Troubles.All)
		}
		store.refuse.Store(false)
		<-time.After(time.Minute + complaintsLook)
		if c := w.complaints()["h1"]; len(c.Peers) != 2 {
			t.Errorf("said is %+v", c)
		}
	})
}

// What hangs on no lease is written again before it goes.
func TestComplaintOfAReservationLasts(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		probers := w.probers()
		ask := w.hosts[0].change
		w.hosts[0].change = func(cfg *Config) {
			ask(cfg)
			cfg.Networks[0].Lease.TTL = subnet.Forever
		}
		w.start()
		w.within(time.Minute, "asked", func(*node) bool { return len(probers[0].wanted().Peers) == 1 })
		written := w.countWrites()
		probers[0].find(w.hosts[1], probe.Unreachable)
		<-time.After(3 * time.Hour)
		if n := written(); n < 4 || n > 7 || len(w.complaints()) != 1 {
			t.Errorf("%d writes in 3 hours, and the complaints %v", n, w.complaints())
		}
		probers[0].find(w.hosts[1], probe.Well)
		<-time.After(time.Minute + complaintsLook)
		if len(w.complaints()) != 0 {
			t.Errorf("left is %v", w.complaints())
		}
	})
}
