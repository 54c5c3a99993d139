//go:build linux

package lab_test

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/internal/lab"
	"tulle/ip"
	"tulle/subnet"
)

// pastHoldback is when a sudden loss would have been believed.
const pastHoldback = subnet.HoldbackTime + 5*time.Second

// leaseNodes returns the node id of each lease in etcd by its subnet.
func leaseNodes(t *testing.T, l *lab.Lab) map[string]string {
	t.Helper()
	found, err := l.Etcd.Get(t.Context(), l.Etcd.Key("subnets/"))
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]string{}
	for key, value := range found {
		_, node, _ := strings.Cut(value, `"Tulle":{"Node":"`)
		node, _, _ = strings.Cut(node, `"`)
		nodes[filepath.Base(key)] = node
	}
	return nodes
}

// wantLeases waits until etcd has exactly these leases.
func wantLeases(t *testing.T, l *lab.Lab, want map[string]string) {
	t.Helper()
	var got map[string]string
	if !eventually(40*time.Second, func() bool {
		got = leaseNodes(t, l)
		return maps.Equal(got, want)
	}) {
		t.Errorf("etcd has the leases %v, want %v", got, want)
	}
}

// All keys are deleted at once, as by etcdctl del --prefix. Every host asserts
// its lease again, and no packet is lost. The configuration is not theirs.
func TestWipeLosesNoPacket(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 3, Containers: 1})
	ctx := t.Context()
	before := leaseNodes(t, l)
	config, err := l.Etcd.Get(ctx, l.Etcd.Key("config"))
	if err != nil {
		t.Fatal(err)
	}
	streams := append(ring(t, l, ip.IPv4, 1000), ring(t, l, ip.IPv6, 1000)...)
	if err := l.Etcd.Wipe(ctx); err != nil {
		t.Fatal(err)
	}
	wantLeases(t, l, before)
	<-time.After(pastHoldback)
	for _, host := range l.Hosts {
		wantHeld(t, host, true)
		awaitProblems(t, host, []string{"config"})
		if ready, reason := host.Ready(ctx); !ready {
			t.Errorf("%s is not ready: %s", host, reason)
		}
	}
	stopAll(t, streams)
	if now, err := l.Etcd.Get(ctx, l.Etcd.Key("config")); err != nil || len(now) > 0 {
		t.Errorf("configuration %v, %v, want it left to the operator", now, err)
	}
	for key, value := range config {
		if err := l.Etcd.Put(ctx, key, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range l.Hosts {
		awaitProblems(t, host, nil)
	}
	requireMatrix(t, l)
}

// Etcd comes back with the data of a time when one of the hosts had no lease.
func TestOldBackupLosesNoPacket(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 3, Containers: 1})
	ctx := t.Context()
	backup := filepath.Join(etcdmembertest.ScratchDir(t), "backup")
	for _, step := range []func() error{
		func() error { return l.Etcd.Start(ctx) },
		func() error { return l.Configure(ctx) },
		func() error { return l.Hosts[0].StartDaemon() },
		func() error { return l.Hosts[1].StartDaemon() },
		func() error { return l.Hosts[0].WaitReady(ctx) },
		func() error { return l.Hosts[1].WaitReady(ctx) },
		func() error { return l.Etcd.Backup(ctx, backup) },
		func() error { return l.Hosts[2].StartDaemon() },
		func() error { return l.Hosts[2].WaitReady(ctx) },
		func() error { return l.StartContainers(ctx) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	requireMatrix(t, l)
	before := leaseNodes(t, l)
	streams := append(ring(t, l, ip.IPv4, 1000), ring(t, l, ip.IPv6, 1000)...)
	if err := l.Etcd.Restore(ctx, backup); err != nil {
		t.Fatal(err)
	}
	if old := leaseNodes(t, l); len(old) == 0 {
		t.Error("the backup has no lease")
	}
	wantLeases(t, l, before)
	<-time.After(pastHoldback)
	for _, host := range l.Hosts {
		wantHeld(t, host, true)
	}
	stopAll(t, streams)
	requireMatrix(t, l)
}

// The backup is of a time when h1 had the subnet that h2 has now. h1 ends the
// lease that it has left, and h2 has its subnet again: one owner in the end.
//
//	backup: h1 has A      then: h2 has A, h1 has B      restored: h1 has A
func TestOldBackupWithAnotherOwner(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv4}})
	ctx := t.Context()
	h1, h2 := l.Hosts[0], l.Hosts[1]
	backup := filepath.Join(etcdmembertest.ScratchDir(t), "backup")
	for _, step := range []func() error{
		func() error { return l.Etcd.Start(ctx) },
		func() error { return l.Configure(ctx) },
		func() error { return h1.StartDaemon() },
		func() error { return h1.WaitReady(ctx) },
		func() error { return l.Etcd.Backup(ctx, backup) },
		h1.StopDaemon,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	taken := slices.Collect(maps.Keys(leaseNodes(t, l)))[0]
	// h1 is drained: its lease is given to h2.
	for _, step := range []func() error{
		func() error { return l.Etcd.Delete(ctx, l.Etcd.Key("subnets/"+taken)) },
		func() error {
			return l.Etcd.Put(ctx, l.Etcd.Key("subnets/"+taken), `{"PublicIP":"`+h2.Addr.V4.String()+`"}`)
		},
		func() error { return h2.StartDaemon() },
		func() error { return h2.WaitReady(ctx) },
		func() error { return h1.StartDaemon() },
		func() error { return h1.WaitReady(ctx) },
		func() error { return l.StartContainers(ctx) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	requireMatrix(t, l)
	before := leaseNodes(t, l)
	if before[taken] != "h2" || len(before) != 2 {
		t.Fatalf("leases %v, want %s to be h2's and another h1's", before, taken)
	}
	if err := l.Etcd.Restore(ctx, backup); err != nil {
		t.Fatal(err)
	}
	if old := leaseNodes(t, l); old[taken] == "h2" {
		t.Errorf("leases after the restore %v, want %s to be h1's", old, taken)
	}
	wantLeases(t, l, before)
	for _, host := range l.Hosts {
		wantHeld(t, host, true)
		if err := host.WaitReady(ctx); err != nil {
			t.Error(err)
		}
	}
	requireMatrix(t, l)
}
