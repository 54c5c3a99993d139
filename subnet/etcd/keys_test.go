//go:build linux

package etcd_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/subnet"
	"tulle/subnet/etcd"
	"tulle/subnet/flannel"
)

const dualConfig = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan"}}`

// TestOnlyLeasesBelowSubnets replays all that a life of hosts and operators wrote: one other key with flannel's prefix
// makes every flanneld drop its peers.
func TestOnlyLeasesBelowSubnets(t *testing.T) {
	member := etcdmembertest.Start(t)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net", AnswerTimeout: 300 * time.Millisecond})
	h.Put("config", networkConfig, 0)
	s := h.opened()
	ctx := t.Context()
	held := h.acquire(s, claimOf(1))
	evil := claimOf(2)
	evil.Attrs.Node = "../../subnets/x"
	if _, err := s.Acquire(ctx, evil); err == nil || !strings.Contains(err.Error(), "node id") {
		t.Errorf("Acquire with the node id %s = %v, want it refused", evil.Attrs.Node, err)
	}
	second := claimOf(2)
	other := h.acquire(s, second)
	clone := second
	clone.Attrs.Instance = "another"
	if _, err := s.Acquire(ctx, clone); err == nil {
		t.Error("Acquire with the node id of a live host = nil, want a conflict")
	}
	if _, err := s.Reserve(ctx, subnet.Subnets{V4: netip.MustParsePrefix("10.5.200.0/24")}, claimOf(3).Attrs); err != nil {
		t.Error(err)
	}
	if err := other.Release(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	h.Put("config", dualConfig, 0)
	grown := h.acquire(h.opened(), claimOf(1))
	if grown.Lease().Subnets.V4 != held.Lease().Subnets.V4 {
		t.Errorf("subnets = %v, want %v kept", grown.Lease().Subnets, held.Lease().Subnets)
	}

	last, err := h.raw.Get(h.ctx(), "/net")
	if err != nil {
		t.Fatal(err)
	}
	leases, others := 0, 0
	for r := range h.raw.Watch(h.ctx(), "/", clientv3.WithPrefix(), clientv3.WithRev(1)) {
		for _, e := range r.Events {
			key := string(e.Kv.Key)
			if !strings.HasPrefix(key, "/net/") {
				t.Errorf("key %s was written outside the prefix", key)
			}
			if e.Type != clientv3.EventTypePut || !strings.HasPrefix(key, "/net/subnets") {
				others++
				continue
			}
			leases++
			if _, err := flannel.DecodeLease(strings.TrimPrefix(key, "/net/subnets/"), e.Kv.Value); err != nil {
				t.Errorf("key %s with value %s was written, which is no lease", key, e.Kv.Value)
			}
		}
		if r.Header.Revision >= last.Header.Revision {
			break
		}
	}
	if leases < 4 || others < 8 {
		t.Errorf("saw %d lease writes and %d other events, want them all", leases, others)
	}
}

func TestRestartsLeakNoEtcdLeases(t *testing.T) {
	member := etcdmembertest.Start(t)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net", AnswerTimeout: 50 * time.Millisecond})
	h.Put("config", networkConfig, 0)
	for i := range 6 {
		claim := claimOf(1)
		switch i {
		case 2, 3:
			claim.TTL = time.Hour
		case 4:
			claim.Attrs.Instance = "successor"
		}
		s := h.open()
		h.acquire(s, claim)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		r, err := h.raw.Leases(h.ctx())
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Leases) != 1 {
			t.Errorf("etcd has %d leases after start %d, want 1", len(r.Leases), i+1)
		}
	}
}

// TestOwnerKeysOfNothing leaves owner keys behind, as a deletion by hand does.
func TestOwnerKeysOfNothing(t *testing.T) {
	member := etcdmembertest.Start(t)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net"})
	h.Put("config", dualConfig, 0)
	claim := claimOf(1)
	claim.Previous = subnet.Subnets{V4: netip.MustParsePrefix("10.5.7.0/24"), V6: netip.MustParsePrefix("fc00:5:0:7::/64")}
	h.Put("claims/owner/10.5.7.0-24", "10.5.7.0-24&fc00:5:0:9::-64", 0) // no such lease
	h.Put("claims/owner/fc00:5:0:7::-64", "nonsense", 0)
	s := h.opened()
	held := h.acquire(s, claim)
	if got := held.Lease().Subnets; got != claim.Previous {
		t.Errorf("subnets = %v, want %v, which nobody holds", got, claim.Previous)
	}
	// An owner key whose lease is there does count, even if the view of the asker lacks that lease.
	second := claimOf(2)
	second.Previous = subnet.Subnets{V4: netip.MustParsePrefix("10.5.8.0/24"), V6: claim.Previous.V6}
	got := h.acquire(s, second).Lease().Subnets
	if got.V4 != second.Previous.V4 || got.V6 == claim.Previous.V6 {
		t.Errorf("subnets = %v, want %v and another IPv6 one", got, second.Previous.V4)
	}
}

func TestOperatorsFunctions(t *testing.T) {
	member := etcdmembertest.Start(t)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net"})
	s := h.opened()
	ctx := t.Context()
	if data, revision, err := s.Config(ctx); data != nil || revision != 0 || err != nil {
		t.Errorf("Config = %s, %d, %v, want nothing", data, revision, err)
	}
	if _, err := s.SetConfig(ctx, []byte(`{"Network":"10.5.0.0/33"}`), -1); err == nil {
		t.Error("SetConfig of an invalid one = nil, want an error")
	}
	first, err := s.SetConfig(ctx, []byte(networkConfig), 0)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.SetConfig(ctx, []byte(networkConfig), first); err != nil || again != first {
		t.Errorf("SetConfig of the same = %d, %v, want no write", again, err)
	}
	if _, err := s.SetConfig(ctx, []byte(dualConfig), first-1); err == nil {
		t.Error("SetConfig over a later revision = nil, want an error")
	}

	held := h.acquire(s, claimOf(1))
	leased := held.Lease().Subnets
	reserved := subnet.Subnets{V4: netip.MustParsePrefix("10.5.200.0/24")}
	if _, err := s.Reserve(ctx, leased, claimOf(2).Attrs); err == nil || !contains(err.Error(), "node-1") {
		t.Errorf("Reserve of another's subnet = %v, want its owner", err)
	}
	if _, err := s.Reserve(ctx, reserved, subnet.Attrs{}); err == nil {
		t.Error("Reserve for nobody = nil, want an error")
	}
	attrs := subnet.Attrs{Public: claimOf(2).Attrs.Public}
	for range 2 {
		lease, err := s.Reserve(ctx, reserved, attrs)
		if err != nil || !lease.Reserved || lease.Subnets != reserved {
			t.Errorf("Reserve = %+v, %v, want the reservation", lease, err)
		}
	}
	if got := h.acquire(s, claimOf(2)).Lease(); got.Subnets != reserved || !got.Reserved {
		t.Errorf("lease = %+v, want the reservation", got)
	}
	if lease, err := s.Reserve(ctx, leased, subnet.Attrs{}); err != nil || !lease.Reserved || lease.Attrs.Node != "node-1" {
		t.Errorf("Reserve of a present lease = %+v, %v, want it pinned", lease, err)
	}
	set, err := s.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range set.Leases {
		if !l.Reserved {
			t.Errorf("lease %+v is no reservation", l)
		}
	}

	free := subnet.Subnets{V4: netip.MustParsePrefix("10.5.201.0/24")}
	if _, err := s.Reserve(ctx, free, subnet.Attrs{Public: claimOf(3).Attrs.Public}); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(ctx, free); err != nil {
		t.Error(err)
	}
	if err := s.Release(ctx, free); err == nil {
		t.Error("second Release = nil, want an error that there is no such lease")
	}
	for _, key := range h.Keys() {
		if strings.Contains(key, "10.5.201.0") && key != "claims/past/10.5.201.0-24" {
			t.Errorf("key %s is left after the release", key)
		}
	}
}

// A host that lives on is not taken for one whose lease is long gone.
func TestOwnerIsNotedAgain(t *testing.T) {
	member := etcdmembertest.Start(t)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net", ProbeInterval: 20 * time.Millisecond, OwnerInterval: 50 * time.Millisecond})
	h.Put("config", networkConfig, 0)
	held := h.acquire(h.opened(), claimOf(1))
	key := "/net/claims/past/" + strings.Replace(held.Lease().Subnets.V4.String(), "/", "-", 1)
	notes := 0
	for r := range h.raw.Watch(h.ctx(), key, clientv3.WithRev(1)) {
		for _, e := range r.Events {
			if want := `{"Node":"node-1"}`; string(e.Kv.Value) != want {
				t.Errorf("noted %s, want %s", e.Kv.Value, want)
			}
			notes++
		}
		if notes >= 3 {
			return
		}
	}
	t.Errorf("noted %d times, want it again and again", notes)
}

func TestAddressesAreThoseOfEtcd(t *testing.T) {
	member := etcdmembertest.Start(t)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net"})
	s := h.opened()
	if _, err := s.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.Addresses(); len(got) != 1 || !got[0].IsLoopback() {
		t.Errorf("addresses = %v, want the one of %v", got, member.Endpoints())
	}
}
