//go:build linux

package lab_test

import (
	"testing"

	"tulle/internal/lab"
	"tulle/ip"
)

// Every backend, in every family, connects every container with every other.
func TestBackends(t *testing.T) {
	both := ip.Families()
	for _, families := range []struct {
		name string
		list []ip.Family
	}{
		{"ipv4", both[:1]},
		{"ipv6", both[1:]},
		{"dual", both[:]},
	} {
		for _, backend := range []struct {
			name     string
			config   map[string]any
			segments int
			// near and far are the paths within a segment and across.
			near, far lab.Path
		}{
			{"vxlan", map[string]any{"Type": "vxlan"}, 2, lab.PathVXLAN, lab.PathVXLAN},
			{"vxlan-direct", map[string]any{"Type": "vxlan", "DirectRouting": true}, 2, lab.PathDirect, lab.PathVXLAN},
			{"host-gw", map[string]any{"Type": "host-gw"}, 1, lab.PathDirect, lab.PathNone},
		} {
			t.Run(backend.name+"/"+families.name, func(t *testing.T) {
				l := upLab(t, lab.Config{
					Hosts:      3,
					Segments:   backend.segments,
					Containers: 2,
					Families:   families.list,
					Backend:    backend.config,
				})
				matrix := requireMatrix(t, l)
				if got, want := len(matrix.Pairs), 6*5*len(families.list); got != want {
					t.Errorf("matrix has %d pairs, want %d", got, want)
				}
				segments := segmentOf(l)
				for _, pair := range matrix.Pairs {
					from, to := segments[pair.From], segments[pair.To]
					want := backend.far
					switch {
					case from.host == to.host:
						want = lab.PathLocal
					case from.segment == to.segment:
						want = backend.near
					}
					if pair.Path != want {
						t.Errorf("%s path from %s to %s = %s, want %s", pair.Family, pair.From, pair.To, pair.Path, want)
					}
				}
			})
		}
	}
}

type location struct {
	host    string
	segment int
}

func segmentOf(l *lab.Lab) map[string]location {
	locations := make(map[string]location)
	for _, container := range l.Containers() {
		locations[container.Name] = location{container.Host.Name, container.Host.Segment}
	}
	return locations
}
