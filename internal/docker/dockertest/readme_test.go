//go:build linux

package dockertest_test

import (
	"net/netip"
	"strings"
	"testing"

	"tulle/internal/docker/dockertest"
	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/lab/machinetest"
)

// TestReadme pastes the README's commands on three hosts.
func TestReadme(t *testing.T) {
	const section, exampleHost, exampleContainer = "## Docker on three hosts", "192.0.2.10", "10.5.34.2"
	for _, e := range engines(t) {
		t.Run(e.name, func(t *testing.T) {
			blocks := machinetest.ReadmeCommands(t, section)
			if len(blocks) != 3 {
				t.Fatalf("%s has %d blocks of commands, want three", section, len(blocks))
			}
			if count := strings.Count(strings.Join(blocks, ""), "\n"); count >= 10 {
				t.Errorf("%s has %d commands, want fewer than ten", section, count)
			}
			l := labtest.New(t, lab.Config{Hosts: 3})
			machines := newMachines(t, l, e)
			first := l.Hosts[0].Addr.V4.String()
			for _, m := range machines {
				m.WithSystemctl(t)
			}
			machines[0].Paste(t, strings.ReplaceAll(blocks[0], exampleHost, first))
			addr := map[*dockertest.Machine]netip.Addr{}
			for _, m := range machines {
				m.Paste(t, strings.ReplaceAll(blocks[1], exampleHost, first))
				requireSays(t, m.Run(t, "cat", dropIn), "After=tulled.service")
				addr[m] = machinetest.AddrIn(t, m.Run(t, "docker", "exec", "one", "ip", "addr", "show", "eth0"))
			}
			for _, from := range machines {
				for _, to := range machines {
					if from != to {
						from.Paste(t, strings.ReplaceAll(blocks[2], exampleContainer, addr[to].String()))
					}
				}
			}
		})
	}
}
