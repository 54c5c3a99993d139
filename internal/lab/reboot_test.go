//go:build linux

package lab_test

import (
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/ip"
)

// startTimeout is how soon a host that boots has the overlay up, etcd or not.
const startTimeout = 10 * time.Second

// A host that boots while etcd is away works from the view that it kept; the
// traffic of the others does not notice, then nor when etcd is back.
//
//	h1 (boots) ─┐
//	h2 ◀═══════▶ h3     etcd: stopped, h1 boots, started
func TestBootsWithoutEtcd(t *testing.T) {
	for _, backend := range bothBackends() {
		t.Run(backend, func(t *testing.T) {
			l := upLab(t, lab.Config{Hosts: 3, Containers: 1, Backend: map[string]any{"Type": backend}})
			ctx := t.Context()
			host := l.Hosts[0]
			requireMatrix(t, l) // by then every host knows the others
			before, err := host.ReadSubnetFile()
			if err != nil {
				t.Fatal(err)
			}
			streams := []runningStream{
				startStream(t, l.Hosts[1], l.Hosts[2], ip.IPv4, 1000),
				startStream(t, l.Hosts[2], l.Hosts[1], ip.IPv6, 1000),
			}
			if err := l.Etcd.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := host.Shutdown(); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := host.StartDaemon(); err != nil {
				t.Fatal(err)
			}
			if err := host.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			requireMatrix(t, l)
			took := time.Since(start)
			t.Logf("up %v after the start of tulled, without etcd", took.Round(time.Millisecond))
			if took > startTimeout {
				t.Errorf("it took %v, want at most %v", took, startTimeout)
			}
			if after, err := host.ReadSubnetFile(); err != nil || after.Subnets != before.Subnets || after.MTU != before.MTU {
				t.Errorf("subnet file %+v, %v, want as before: %+v", after, err, before)
			}
			if _, answer := host.Ready(ctx); !strings.Contains(answer, "degraded: the store has not been reached") {
				t.Errorf("ready says %q, want that the store has not been reached", answer)
			}
			wantHeld(t, host, false)

			if err := l.Etcd.Start(ctx); err != nil {
				t.Fatal(err)
			}
			wantHeld(t, host, true)
			requireMatrix(t, l)
			stopAll(t, streams)
		})
	}
}

// networkStatuses are what a host says of its networks, of which labs have one.
type networkStatuses []struct{ Lease struct{ Held bool } }

func (ns networkStatuses) held() bool { return len(ns) == 1 && ns[0].Lease.Held }

// wantHeld waits until a host says that it holds its lease, or that it does not.
func wantHeld(t *testing.T, host *lab.Host, held bool) {
	t.Helper()
	var status struct {
		Reason   string
		Degraded string
		Networks networkStatuses
	}
	if !eventually(30*time.Second, func() bool {
		return host.Status(t.Context(), &status) == nil && status.Networks.held() == held
	}) {
		t.Errorf("%s: status %+v, want held: %t", host, status, held)
	}
}
