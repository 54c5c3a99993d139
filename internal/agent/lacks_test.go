package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/trouble"
)

// TestKernelLacksModule: a host whose kernel cannot make the backend's links says which module it wants, asks for no lease, and goes on
// once the module is there.
func TestKernelLacksModule(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.kernel.Load("vxlan", false)
		h.start()
		w.within(soon, "says what it lacks", func(h *node) bool {
			return slices.ContainsFunc(h.texts(trouble.LeaseUnpublished), func(text string) bool { return strings.Contains(text, "modprobe vxlan") })
		})
		if st := h.agent.Status(); st.Ready || st.Of("").Lease != nil {
			t.Errorf("ready %t with the lease %v", st.Ready, st.Of("").Lease)
		}
		h.kernel.Load("vxlan", true)
		w.converged(time.Minute)
	})
}
