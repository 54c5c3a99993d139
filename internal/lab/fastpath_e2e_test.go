//go:build linux

package lab_test

import (
	"testing"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

// fastBackend is a network whose hosts have the fast path.
type fastBackend struct {
	name     string
	config   map[string]any
	hosts    int
	segments int
}

// fastBackends are all; one of them where time is short, as under the race detector.
func fastBackends() []fastBackend {
	all := []fastBackend{
		{"vxlan", map[string]any{"Type": "vxlan"}, 2, 1},
		{"vxlan-direct", map[string]any{"Type": "vxlan", "DirectRouting": true}, 3, 2}, // the third host is behind a router
		{"host-gw", map[string]any{"Type": "host-gw"}, 2, 1},
	}
	if testing.Short() {
		return all[:1]
	}
	return all
}

func (b fastBackend) up(t *testing.T, families []ip.Family, containers int) *lab.Lab {
	t.Helper()
	return upFastLab(t, lab.Config{Hosts: b.hosts, Segments: b.segments, Containers: containers, Families: families, Backend: b.config})
}

// Over every backend, in every family, all containers reach each other, and large transfers are fast at both ends, in both directions.
func TestFastPathBackends(t *testing.T) {
	both := ip.Families()
	for name, families := range map[string][]ip.Family{"ipv4": both[:1], "ipv6": both[1:], "dual": both[:]} {
		if testing.Short() && name != "dual" {
			continue
		}
		for _, backend := range fastBackends() {
			t.Run(backend.name+"/"+name, func(t *testing.T) {
				l := backend.up(t, families, 2)
				requireMatrix(t, l)
				one, length := l.Hosts[0].Containers[0], transferLarge
				if testing.Short() {
					length = transferMedium
				}
				for _, peer := range l.Hosts[1:] {
					for _, f := range families {
						requireFastTransfer(t, one, peer.Containers[1], f, length)
						requireFastTransfer(t, peer.Containers[0], one, f, length)
					}
				}
			})
		}
	}
}

// Packets go on, and fast, while tulled is killed and started again and again.
func TestFastPathOutlivesTulled(t *testing.T) {
	const times = 5
	for _, backend := range fastBackends() {
		t.Run(backend.name, func(t *testing.T) {
			l := backend.up(t, nil, 1)
			host := l.Hosts[0]
			var streams []runningStream
			for _, peer := range l.Hosts[1:] {
				streams = append(streams, fastStreams(t, l, host, peer)...)
			}
			requireFastStreams(t, fastTime, l.Hosts...)
			for range times {
				was := labtest.FastPath(t, host)
				host.KillDaemon()
				before := labtest.FastPath(t, l.Hosts[1])
				for _, s := range streams {
					if err := s.AwaitNext(t.Context(), healTimeout); err != nil {
						t.Error(err)
					}
				}
				startTulled(t, host)
				is, now := labtest.FastPath(t, host), labtest.FastPath(t, l.Hosts[1])
				if is.Out.FastPackets <= was.Out.FastPackets || now.In.FastPackets <= before.In.FastPackets {
					t.Errorf("no packet was fast without tulled: %+v, was %+v", is, was)
				}
				requireFast(t, host)
			}
			requireFastStreams(t, fastTime, l.Hosts...)
			stopAll(t, streams)
		})
	}
}

// A host that has it and one that has not exchange packets as ever.
func TestFastPathOfOneHost(t *testing.T) {
	for _, backend := range fastBackends() {
		t.Run(backend.name, func(t *testing.T) {
			plain := "h2"
			l := upLab(t, lab.Config{
				Hosts: backend.hosts, Segments: backend.segments, Containers: 1, Backend: backend.config, FastPath: "on",
				DaemonArgs: func(h *lab.Host) []string {
					if h.Name == plain {
						return []string{"--fast-path=off"}
					}
					return nil
				},
			})
			needsFastPath(t, l.Hosts[0])
			requireMatrix(t, l)
			one := l.Hosts[0].Containers[0]
			for _, peer := range l.Hosts[1:] {
				for _, f := range l.Config.Families {
					requireFastTransfer(t, one, peer.Containers[0], f, transferMedium)
					requireFastTransfer(t, peer.Containers[0], one, f, transferMedium)
				}
			}
			requireNothingLeft(t, l, l.Host(plain))
		})
	}
}
