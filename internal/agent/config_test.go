package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/trouble"
)

func TestConfigurationChanges(t *testing.T) {
	simulate(t, "", 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		reason := func(want string) {
			t.Helper()
			w.within(time.Minute, want, func(h *node) bool { return strings.Contains(h.agent.Status().Reason, want) })
		}
		reason("tulle config set")
		w.store.Put("config", `{"Network":"10.5.0.0/16","SubnetLen":12}`, 0)
		reason("SubnetLen")
		w.store.Put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlam"}}`, 0)
		reason(`"vxlam": choose one of alloc, host-gw, ipip, vxlan`)
		w.store.Put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRoutng":true}}`, 0)
		w.converged(time.Minute)
		if odd := h.texts(trouble.ConfigWarning); len(odd) != 1 || !strings.Contains(odd[0], "DirectRouting") {
			t.Errorf("problems %v, want one that names DirectRouting", odd)
		}
		was := h.owned().String()

		w.store.Put("config", `not JSON`, 0)
		w.within(soon, "invalid reported", func(h *node) bool { return h.agent.Status().Ready && len(h.leftOut()) > 1 })
		w.store.Put("config", `{"Network":"10.7.0.0/16","Backend":{"Type":"host-gw"}}`, 0)
		w.within(soon, "pending", func(h *node) bool {
			st := h.agent.Status()
			return st.Ready && strings.Contains(strings.Join(h.texts(trouble.ConfigPending), ""), "restart") && st.Of("").Network.Backend == "vxlan"
		})
		if diff := cmp.Diff(was, h.owned().String()); diff != "" {
			t.Errorf("half applied:\n%s", diff)
		}

		h.stop()
		h.start()
		w.converged(soon)
		st := h.agent.Status()
		if st.Of("").Network.Backend != "host-gw" || len(h.texts(trouble.ConfigPending)) > 0 || !netip.MustParsePrefix("10.7.0.0/16").Overlaps(st.Of("").Lease.Subnets[0]) {
			t.Errorf("after the restart: %+v, lease %+v", st.Of("").Network, st.Of("").Lease)
		}
		if left := h.owned(); len(left.Links) > 0 {
			t.Errorf("left over from before: %v", left.Links)
		}
	})
}

// A field of the configuration that nobody knows is named in the status, as tulle config check names it, from the first pass on.
func TestUnknownFieldsAreNamed(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16","SubnetLenn":25}`, 1, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		if odd := w.hosts[0].texts(trouble.ConfigWarning); len(odd) != 1 || !strings.Contains(odd[0], "SubnetLenn") {
			t.Errorf("problems %v, want one that names SubnetLenn", odd)
		}
	})
}
