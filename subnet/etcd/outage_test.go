//go:build linux

package etcd_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdmember"
	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/subnet"
	"tulle/subnet/etcd"
)

const (
	networkConfig = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	flanneldValue = `{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"}}`
)

// follow returns what a store's Watch delivers. It ends with the test.
func follow(t *testing.T, s *etcd.Store) <-chan subnet.Set {
	t.Helper()
	sets := make(chan subnet.Set, 10_000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, func(set subnet.Set) { sets <- set }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch = %v", err)
		}
	})
	return sets
}

func until(t *testing.T, sets <-chan subnet.Set, what string, ok func(subnet.Set) bool) subnet.Set {
	t.Helper()
	var last subnet.Set
	deadline := time.After(30 * time.Second)
	for {
		select {
		case last = <-sets:
			if ok(last) {
				return last
			}
		case <-deadline:
			t.Fatalf("no set with %s; the last one was %+v", what, last)
		}
	}
}

func leases(n int) func(subnet.Set) bool {
	return func(set subnet.Set) bool { return len(set.Leases) == n }
}

// opened returns a store that is closed at the end of the test.
func (h *harness) opened() *etcd.Store {
	s := h.open()
	h.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return s
}

func (h *harness) acquire(s *etcd.Store, claim subnet.Claim) subnet.Held {
	h.t.Helper()
	held, err := s.Acquire(h.t.Context(), claim)
	if err != nil {
		h.t.Fatal(err)
	}
	return held
}

func TestListingInPages(t *testing.T) {
	member := etcdmembertest.Start(t)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net", PageSize: 3})
	h.Put("config", networkConfig, 0)
	for i := range 20 {
		h.Put(fmt.Sprintf("subnets/10.5.%d.0-24", i), flanneldValue, 0)
	}
	set, err := h.opened().Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Leases) != 20 || set.Network == nil {
		t.Errorf("snapshot has %d leases, network %v, want 20 and one", len(set.Leases), set.Network)
	}
}

// TestEtcdRestart takes etcd away under a watch and a held lease, and gives it back first as it was, then empty.
func TestEtcdRestart(t *testing.T) {
	config := etcdmember.Config{DataDir: etcdmembertest.ScratchDir(t)}
	member := etcdmembertest.Restart(t, config)
	t.Cleanup(func() { member.Close() })
	config.ListenClientURLs = member.Endpoints()
	wire := newLink(t, member.Endpoints()[0], nil)
	h := newHarness(t, etcd.Config{
		Endpoints: member.Endpoints(), Prefix: "/net",
		RequestTimeout: time.Second, ProbeInterval: 200 * time.Millisecond,
	})
	h.Put("config", networkConfig, 0)
	for i := range 30 { // so that the revisions after the loss of all data stay below those before it
		h.Put("config", fmt.Sprintf(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":%d}}`, i+1), 0)
	}
	h.config.Endpoints = []string{"http://" + wire.address()}
	s := h.opened()
	sets := follow(t, s)
	held := h.acquire(s, claimOf(1))
	key := subnet.KeyOf(held.Lease().Subnets)
	until(t, sets, "the lease", leases(1))

	restart := func(config etcdmember.Config) {
		wire.cut()
		h.raw.Close()
		member.Close()
		member = etcdmembertest.Restart(t, config)
		h.raw = newHarness(t, etcd.Config{Endpoints: config.ListenClientURLs}).raw
		wire.mend()
	}
	restart(config)
	h.Put("subnets/10.5.1.0-24", flanneldValue, time.Hour)
	until(t, sets, "a lease made after the restart", leases(2))
	if _, _, ok := h.Get("subnets/" + key); !ok {
		t.Error("the held lease is gone after a restart")
	}

	config.DataDir = etcdmembertest.ScratchDir(t)
	restart(config)
	set := until(t, sets, "the lease made anew", func(set subnet.Set) bool {
		return len(set.Leases) == 1 && set.Leases[0].Attrs.Node == "node-1"
	})
	if set.Network == nil || len(set.Problems) == 0 {
		t.Errorf("set = %+v, want the last good network and a problem with the configuration", set)
	}
	if got := subnet.KeyOf(set.Leases[0].Subnets); got != key {
		t.Errorf("lease = %s, want %s", got, key)
	}
	select {
	case err := <-held.Lost():
		t.Errorf("Lost = %v, want the lease kept", err)
	default:
	}
}

func TestRevokedEtcdLeaseIsReplaced(t *testing.T) {
	member := etcdmembertest.Start(t)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net"})
	h.Put("config", networkConfig, 0)
	s := h.opened()
	held := h.acquire(s, claimOf(1))
	sets := follow(t, s)
	before := until(t, sets, "the lease", leases(1)).Leases[0]
	key := h.key("subnets/" + subnet.KeyOf(before.Subnets))
	r, err := h.raw.Get(h.ctx(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.raw.Revoke(h.ctx(), clientv3.LeaseID(r.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	until(t, sets, "the lease made anew", func(set subnet.Set) bool {
		return len(set.Leases) == 1 && set.Leases[0].Created > before.Created && !set.Leases[0].Reserved
	})
	if got := held.Lease().Subnets; got != before.Subnets {
		t.Errorf("subnets = %v, want %v", got, before.Subnets)
	}
}

func TestOpenWithoutEtcd(t *testing.T) {
	h := newHarness(t, etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}, Prefix: "/net", RequestTimeout: 300 * time.Millisecond})
	start := time.Now()
	s := h.opened()
	if took := time.Since(start); took > 100*time.Millisecond {
		t.Errorf("Open took %v without etcd", took)
	}
	_, err := s.Acquire(t.Context(), claimOf(1))
	for _, got := range []error{err, s.Trouble()} {
		if got == nil || !contains(got.Error(), "http://127.0.0.1:1", "--etcd-endpoints", "connection refused") {
			t.Errorf("error = %v, want the endpoint, the reason and the remedy", got)
		}
	}
}

// TestTroubleIsKnownSoon has a probe every 20 s, which alone would tell too late.
func TestTroubleIsKnownSoon(t *testing.T) {
	member := etcdmembertest.Start(t)
	wire := newLink(t, member.Endpoints()[0], nil)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net", RequestTimeout: time.Second})
	h.Put("config", networkConfig, 0)
	h.config.Endpoints = []string{"http://" + wire.address()}
	s := h.opened()
	until(t, follow(t, s), "the configuration", func(set subnet.Set) bool { return set.Network != nil })
	known := func(trouble bool) {
		t.Helper()
		const soon = 8 * time.Second // a reconnection waits up to 5
		for deadline := time.After(soon); (s.Trouble() != nil) != trouble; {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-deadline:
				t.Fatalf("trouble %v later: %v, want trouble: %t", soon, s.Trouble(), trouble)
			}
		}
	}
	known(false)
	wire.cut()
	known(true)
	wire.mend()
	known(false)
}
