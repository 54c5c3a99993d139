package agent

import (
	"strings"
	"testing"

	"tulle/internal/trouble"
)

// After a change of the VNI or the port, the hosts that go by the new one and those that do not name each other: those that were there before, one that
// has been restarted, and one that comes later.
func TestAnotherTunnel(t *testing.T) {
	const before = `{"Network":"10.5.0.0/16"}`
	for name, tt := range map[string]struct{ first, second, ofNew, ofOld string }{
		"VNI":           {before, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7}}`, "VNI 7, and this host with 1", "VNI 1, and this host with 7"},
		"port":          {before, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":4789}}`, "port 4789, and this host over 8472", "port 8472, and this host over 4789"},
		"usual port":    {`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":4789}}`, before, "port 8472, and this host over 4789", "port 4789, and this host over 8472"},
		"another again": {`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":4789}}`, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":4790}}`, "port 4790, and this host over 4789", "port 4789, and this host over 4790"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, tt.first, 4, func(t *testing.T, w *world) {
				all, restarted, newcomer := w.hosts, w.hosts[0], w.hosts[3]
				w.hosts = all[:3]
				w.start()
				w.converged(soon)
				w.store.Put("config", tt.second, 0)
				w.within(soon, "told to restart", func(n *node) bool {
					return strings.Contains(strings.Join(n.texts(trouble.ConfigPending), ""), "on every host")
				})
				restarted.stop()
				restarted.start()
				named := func(news int) func(*node) bool {
					return func(n *node) bool {
						count, text := news, tt.ofNew
						if n == restarted || n == newcomer {
							count, text = 2, tt.ofOld
						}
						refused := strings.Join(n.texts(trouble.PeerRefused), "\n")
						return len(n.texts(trouble.PeerRefused)) == count && strings.Count(refused, text) == count
					}
				}
				w.within(soon, "named", named(1))
				w.hosts = all
				newcomer.start()
				w.within(soon, "named beside a newcomer", named(2))
				for _, n := range all[1:3] {
					n.stop()
					n.start()
				}
				w.within(soon, "as before", func(n *node) bool {
					return n.agent.Status().Ready && len(n.texts(trouble.PeerRefused, trouble.ConfigPending)) == 0
				})
			})
		})
	}
}
