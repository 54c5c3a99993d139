package agent

import (
	"strings"
	"testing"
	"testing/synctest"

	"tulle/internal/trouble"
)

// After a change of the VNI, the hosts that have been restarted and those that have not name each other.
func TestAnotherVNI(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		w.store.Put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7}}`, 0)
		h, others := w.hosts[0], &world{t: t, hosts: w.hosts[1:]}
		w.within(soon, "told to restart", func(n *node) bool {
			return strings.Contains(strings.Join(n.texts(trouble.ConfigPending), ""), "on every host")
		})
		h.stop()
		h.start()
		w.within(soon, "named", func(n *node) bool {
			refused := n.texts(trouble.PeerRefused)
			if n == h {
				return len(refused) == 2 && strings.Contains(refused[0], "VNI 1, and this host with 7")
			}
			return len(refused) == 1 && strings.Contains(refused[0], "VNI 7, and this host with 1")
		})
		for _, n := range others.hosts {
			n.stop()
			n.start()
		}
		w.within(soon, "as before", func(n *node) bool {
			return n.agent.Status().Ready && len(n.texts(trouble.PeerRefused, trouble.ConfigPending)) == 0
		})
		synctest.Wait()
	})
}
