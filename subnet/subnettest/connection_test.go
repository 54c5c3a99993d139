package subnettest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tulle/subnet"
)

// After a restore the store uses revisions again. A host that was away meanwhile must not take another's lease of the same
// revision for its own.
func TestSameRevisionAfterRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		defer s.Close()
		s.Put("config", config4, 0)
		backup := s.Backup()
		first, err := s.Acquire(t.Context(), claimOf(1))
		if err != nil {
			t.Fatal(err)
		}
		s.SetConnection(Connection{Cut: true})
		s.Restore(backup)
		twin := s.Open().(*Store)
		defer twin.Close()
		claim := claimOf(1)
		claim.Attrs.Instance = "the-twin"
		second, err := twin.Acquire(t.Context(), claim)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := first.Lease(), second.Lease(); a.Subnets != b.Subnets || a.Revision != b.Revision {
			t.Fatalf("leases %v at %d and %v at %d, want the same", a.Subnets, a.Revision, b.Subnets, b.Revision)
		}
		s.SetConnection(Connection{})
		select {
		case err := <-first.Lost():
			if !errors.Is(err, subnet.ErrLost) {
				t.Errorf("lost for the reason %v, want %v", err, subnet.ErrLost)
			}
		case err := <-second.Lost():
			t.Errorf("the twin has lost the lease: %v", err)
		case <-time.After(time.Hour):
			t.Error("two hosts hold one lease")
		}
	})
}

// Without a compaction, a watch that goes on has seen every change. (A store on etcd shares its history with the tests beside
// it, which compact it.)
func TestMissedConfigIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		s.Put("config", config4, 0)
		far := s.OpenAfar()
		w := watchBy(t, far.Store)
		before := w.until("a network", func(set subnet.Set) bool { return set.Network != nil })
		far.Cut()
		s.Put("config", configDual, 0)
		s.Put("config", "{", 0)
		far.Mend()
		after := w.until("a problem", func(set subnet.Set) bool { return len(set.Problems) > 0 })
		if after.Network.Revision <= before.Network.Revision || len(after.Network.Families()) != 2 {
			t.Errorf("network = %+v, want the last good one", after.Network)
		}
	})
}
