//go:build linux

package lab_test

import (
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/ip"
)

// outageTime is long enough for what depends on the other side to notice.
const outageTime = time.Second

// Traffic goes on through every end and restart of a daemon, and of etcd.
func TestOutagesLoseNoPacket(t *testing.T) {
	for _, backend := range bothBackends() {
		t.Run(backend, func(t *testing.T) {
			l := upLab(t, lab.Config{Hosts: 2, Containers: 1, Backend: map[string]any{"Type": backend}})
			ctx := t.Context()
			host, peer := l.Hosts[0], l.Hosts[1]
			for _, outage := range []struct {
				name string
				end  func() error
				back func() error
			}{
				{"tulled stopped", host.StopDaemon, func() error { return host.StartDaemon() }},
				{"tulled killed", func() error { host.KillDaemon(); return nil }, func() error { return host.StartDaemon() }},
				{"etcd stopped", l.Etcd.Stop, func() error { return l.Etcd.Start(ctx) }},
				{"etcd killed", func() error { l.Etcd.Kill(); return nil }, func() error { return l.Etcd.Start(ctx) }},
				{"etcd killed, tulled restarted", func() error { l.Etcd.Kill(); return host.StopDaemon() }, func() error {
					if err := host.StartDaemon(); err != nil {
						return err
					}
					return l.Etcd.Start(ctx)
				}},
			} {
				t.Run(outage.name, func(t *testing.T) {
					streams := []runningStream{
						startStream(t, host, peer, ip.IPv4, 1000),
						startStream(t, peer, host, ip.IPv6, 1000),
					}
					if err := outage.end(); err != nil {
						t.Error(err)
					}
					<-time.After(outageTime)
					if err := outage.back(); err != nil {
						t.Fatal(err)
					}
					for _, host := range l.Hosts {
						if err := host.WaitReady(ctx); err != nil {
							t.Error(err)
						}
					}
					stopAll(t, streams)
				})
			}
			requireMatrix(t, l)
		})
	}
}
