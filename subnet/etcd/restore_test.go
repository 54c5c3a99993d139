//go:build linux

package etcd_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tulle/internal/etcdmember"
	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/subnet"
	"tulle/subnet/etcd"
)

// After a restore etcd gives revisions out again. A host that was away must take another's lease of the same revision neither for
// its own nor for one that it may write.
func TestRevisionIsUsedAgain(t *testing.T) {
	t.Run("at once", func(t *testing.T) { testRevisionIsUsedAgain(t, false) })
	t.Run("at rest", func(t *testing.T) { testRevisionIsUsedAgain(t, true) })
}

func testRevisionIsUsedAgain(t *testing.T, rests bool) {
	config := etcdmember.Config{DataDir: etcdmembertest.ScratchDir(t)}
	backup := filepath.Join(etcdmembertest.ScratchDir(t), "backup")
	member := etcdmembertest.Restart(t, config)
	config.ListenClientURLs = member.Endpoints()
	member.Close()
	if err := os.CopyFS(backup, os.DirFS(config.DataDir)); err != nil {
		t.Fatal(err)
	}

	member = etcdmembertest.Restart(t, config)
	wire := newLink(t, member.Endpoints()[0], nil)
	claim := subnet.Claim{Attrs: subnet.Attrs{Node: "n1", Instance: "original", BackendType: "vxlan"}}
	before := newHarness(t, etcd.Config{Endpoints: []string{"http://" + wire.address()}, Prefix: "/net", RequestTimeout: time.Second})
	before.Put("config", networkConfig, 0)
	store := before.opened()
	asked := before.requests()["Txn"]
	original := before.acquire(store, claim)
	ctx := before.ctx()
	for rests && before.requests()["Txn"] < asked+2 { // the lease, and a look at it
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("nobody looks at the lease")
		}
	}
	before.raw.Close()
	wire.cut()
	member.Close()

	if err := errors.Join(os.RemoveAll(config.DataDir), os.CopyFS(config.DataDir, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	member = etcdmembertest.Restart(t, config)
	t.Cleanup(member.Close)
	after := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net"})
	after.Put("config", networkConfig, 0)
	claim.Attrs.Instance = "twin"
	twin := after.acquire(after.opened(), claim)
	if a, b := original.Lease(), twin.Lease(); a.Subnets != b.Subnets || a.Revision != b.Revision {
		t.Fatalf("leases %v at %d and %v at %d, want the same", a.Subnets, a.Revision, b.Subnets, b.Revision)
	}

	wire.mend()
	changed := original.Lease().Attrs
	changed.BackendType = "host-gw"
	if err := original.Update(t.Context(), changed); err == nil {
		t.Error("the original has written the twin's lease")
	}
	select {
	case err := <-original.Lost():
		if !errors.Is(err, subnet.ErrLost) {
			t.Errorf("lost for the reason %v, want %v", err, subnet.ErrLost)
		}
	case <-time.After(20 * time.Second):
		t.Error("two hosts hold one lease")
	}
	select {
	case err := <-twin.Lost():
		t.Errorf("the twin has lost the lease: %v", err)
	default:
	}
	if value, _, _ := after.Get("subnets/" + subnet.KeyOf(twin.Lease().Subnets)); !strings.Contains(value, `"twin"`) || !strings.Contains(value, `"vxlan"`) {
		t.Errorf("the twin's lease is now %s", value)
	}
}
