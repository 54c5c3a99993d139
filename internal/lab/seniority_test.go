//go:build linux

package lab_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/ip"
)

// What lies in wait in the store gains nothing when the lease that it imitates is deleted and made anew: its address takes no
// packet from the victim, which says that newcomers would leave it out; its MAC makes the victim take another.
//
//	h1, h3 (have seen h2 first)      h2 (its lease is made anew)      a forged lease in etcd
func TestDormantForgery(t *testing.T) {
	ctx := t.Context()
	l := upLab(t, lab.Config{Hosts: 3, Containers: 1, Families: []ip.Family{ip.IPv4}})
	victim := l.Hosts[1]
	file, err := victim.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	own := file.Subnets.V4
	key := l.Etcd.Key("subnets/" + strings.Replace(own.String(), "/", "-", 1))
	mac := func() string {
		t.Helper()
		found, err := l.Etcd.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		var value struct{ BackendData struct{ VtepMAC string } }
		if text := found[key]; text != "" {
			if err := json.Unmarshal([]byte(text), &value); err != nil {
				t.Fatal(err)
			}
		}
		return value.BackendData.VtepMAC
	}
	forge := func(public netip.Addr, mac string) string {
		t.Helper()
		forged := forgedKey(t, l, own)
		value := fmt.Sprintf(`{"PublicIP":"%s","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"%s"}}`, public, mac)
		if err := l.Etcd.Put(ctx, forged, value); err != nil {
			t.Fatal(err)
		}
		for _, host := range []*lab.Host{l.Hosts[0], l.Hosts[2]} {
			awaitProblems(t, host, []string{forged})
		}
		return forged
	}
	remove := func(key string) {
		t.Helper()
		if err := l.Etcd.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
	}

	forged := forge(own.Addr().Next().Next(), "02:00:00:00:00:66")
	streams := ring(t, l, ip.IPv4, 500)
	remove(key)
	var ready bool
	var reason string
	if !eventually(20*time.Second, func() bool {
		ready, reason = victim.Ready(ctx)
		return !ready && strings.Contains(reason, path.Base(forged)) && strings.Contains(reason, "tulle leases release")
	}) {
		t.Errorf("the victim is ready: %t, %q, want it to name %s and the remedy", ready, reason, forged)
	}
	<-time.After(outageTime)
	stopAll(t, streams)
	remove(forged)
	awaitReady(t, victim)

	was := mac()
	forge(netip.MustParseAddr("172.30.1.200"), was)
	remove(key)
	if !eventually(20*time.Second, func() bool { now := mac(); return now != "" && now != was }) {
		t.Errorf("the victim announces %s still", was)
	}
	awaitReady(t, victim)
	requireMatrix(t, l)
}

// forgedKey is a key beside that of a subnet, and of the same length, which no host has.
func forgedKey(t *testing.T, l *lab.Lab, own netip.Prefix) string {
	t.Helper()
	taken := leaseNodes(t, l)
	addr := own.Addr().As4()
	for range 256 {
		addr[2]++
		name := strings.Replace(netip.PrefixFrom(netip.AddrFrom4(addr), own.Bits()).String(), "/", "-", 1)
		if _, ok := taken[name]; !ok && addr[2] != 0 {
			return l.Etcd.Key("subnets/" + name)
		}
	}
	t.Fatal("no subnet is free")
	return ""
}

func awaitReady(t *testing.T, host *lab.Host) {
	t.Helper()
	var reason string
	if !eventually(20*time.Second, func() (ready bool) { ready, reason = host.Ready(t.Context()); return ready }) {
		t.Errorf("%s is not ready: %s", host, reason)
	}
}
