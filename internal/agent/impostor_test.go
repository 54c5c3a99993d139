package agent

import (
	"fmt"
	"strings"
	"testing"

	"tulle/subnet"
)

// A lease that names this host's node id and is not the one that it holds takes no peer away from it, whatever address it gives,
// and is reported.
func TestLeaseThatNamesThisHost(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h1, h2 := w.hosts[0], w.hosts[1]
		theirs := h2.agent.Status().Of("").Lease.Subnets[0]
		const key = "subnets/10.5.99.0-24"
		w.store.Put(key, fmt.Sprintf(`{"PublicIP":"%s","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:66"},"Tulle":{"Node":"h1"}}`,
			theirs.Addr().Next()), 0)
		reported := func(h *node) (reason string) {
			for _, p := range h.leftOut() {
				if p.Subject == key {
					reason = p.Text
				}
			}
			return reason
		}
		w.within(soon, "reported", func(h *node) bool { return h.agent.Status().Ready && reported(h) != "" })
		if reason := reported(h1); !strings.Contains(reason, "names this host's node id") || !strings.Contains(reason, "tulle leases release") {
			t.Errorf("h1 says %q of it", reason)
		}
		for _, h := range w.hosts {
			if peers := h.agent.Status().Of("").Peers; len(peers) != 1 || len(h.drift()) > 0 {
				t.Errorf("%s has the peers %v, want the other host", h.name, peers)
			}
		}
		if route := h1.routed()[theirs.String()]; route == "" {
			t.Errorf("h1 has no route to %s", theirs)
		}
		w.store.Delete(key)
		w.within(soon, "reported no longer", func(h *node) bool { return reported(h) == "" })
	})
}

// What a host announces next does not come from a lease that only names it.
func TestLeaseThatNamesAHostThatStarts(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		w.converged(soon)
		before := h.agent.Status().Of("").Lease.Subnets[0]
		h.stop()
		w.store.Put("subnets/10.5.99.0-24", `{"PublicIP":"192.0.2.66","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:66"},`+
			`"Tulle":{"Node":"h1","Instance":"another","Hardware":["another"]}}`, 0)
		h.start()
		w.converged(soon)
		if now := h.agent.Status().Of("").Lease.Subnets[0]; now != before {
			t.Errorf("subnet %s, want %s as before", now, before)
		}
		value, _, _ := w.store.Get("subnets/" + subnet.KeyOf(subnet.Subnets{V4: before}))
		if !strings.Contains(value, `"Node":"h1"`) || strings.Contains(value, "02:00:00:00:00:66") {
			t.Errorf("the host announces %s", value)
		}
	})
}
