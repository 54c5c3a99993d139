//go:build linux

package lab_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/lab"
	"tulle/ip"
	"tulle/subnet"
)

// Etcd is away for longer than leases last: hosts say that they cannot hold
// them, and go on.
func TestEtcdAwayPastTheLease(t *testing.T) {
	l := upLab(t, lab.Config{
		Hosts: 3, Containers: 1,
		DaemonArgs: func(*lab.Host) []string { return []string{"--lease-ttl", "5s"} },
	})
	ctx := t.Context()
	before := leaseNodes(t, l)
	streams := append(ring(t, l, ip.IPv4, 1000), ring(t, l, ip.IPv6, 1000)...)
	if err := l.Etcd.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, host := range l.Hosts {
		wantHeld(t, host, false)
		if ready, answer := host.Ready(ctx); !ready || !strings.Contains(answer, "degraded") {
			t.Errorf("%s says %q, want it ready and degraded", host, answer)
		}
	}
	<-time.After(outageTime)
	if err := l.Etcd.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, host := range l.Hosts {
		wantHeld(t, host, true)
	}
	wantLeases(t, l, before)
	stopAll(t, streams)
	requireMatrix(t, l)
}

// tulled of h1 is stopped (SIGSTOP) until its lease has run out. When it goes on it does not say that it holds the lease,
// before it has heard from etcd; what it forwards stays.
func TestStoppedPastTheLease(t *testing.T) {
	for name, test := range map[string]struct {
		meanwhile, then func(t *testing.T, l *lab.Lab, key string) error
	}{
		"etcd is away": {
			meanwhile: func(_ *testing.T, l *lab.Lab, _ string) error { return l.Etcd.Stop() },
			then:      func(t *testing.T, l *lab.Lab, _ string) error { return l.Etcd.Start(t.Context()) },
		},
		"another host has the subnet": {
			meanwhile: func(t *testing.T, l *lab.Lab, key string) error {
				return l.Etcd.Put(t.Context(), key, `{"PublicIP":"172.30.1.99","Tulle":{"Node":"other"}}`)
			},
			then: func(t *testing.T, l *lab.Lab, key string) error { return l.Etcd.Delete(t.Context(), key) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := upLab(t, lab.Config{
				Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv4},
				DaemonArgs: func(*lab.Host) []string { return []string{"--lease-ttl", "5s"} },
			})
			requireMatrix(t, l) // ready is who holds a lease; its peers follow
			host := l.Hosts[0]
			env, err := host.ReadSubnetFile()
			if err != nil {
				t.Fatal(err)
			}
			before := fingerprint(t, host)
			key := l.Etcd.Key("subnets/" + subnet.KeyOf(env.Subnets))
			if err := host.PauseDaemon(); err != nil {
				t.Fatal(err)
			}
			if !eventually(20*time.Second, func() bool { return len(leaseNodes(t, l)) == 1 }) {
				t.Fatal("the lease does not run out")
			}
			if err := test.meanwhile(t, l, key); err != nil {
				t.Fatal(err)
			}
			if err := host.ResumeDaemon(); err != nil {
				t.Fatal(err)
			}
			var status struct{ Networks networkStatuses }
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
				if err := host.Status(t.Context(), &status); err != nil {
					t.Fatal(err)
				}
				if len(status.Networks) == 0 {
					t.Fatal("the status tells of no network")
				}
				if status.Networks.held() {
					t.Fatal("it says that it holds the lease")
				}
			}
			if diff := cmp.Diff(before, fingerprint(t, host)); diff != "" {
				t.Errorf("the data plane, before (-) and after (+):\n%s", diff)
			}
			if err := test.then(t, l, key); err != nil {
				t.Fatal(err)
			}
			for _, host := range l.Hosts {
				wantHeld(t, host, true)
				if err := host.WaitReady(t.Context()); err != nil {
					t.Error(err)
				}
			}
			requireMatrix(t, l)
		})
	}
}
