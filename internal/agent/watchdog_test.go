package agent

import (
	"maps"
	"strings"
	"testing"
	"time"

	"tulle/backend"
	"tulle/internal/backends"
	"tulle/internal/invariant"
	"tulle/ip"
	"tulle/subnet"
)

// halfPaths is a backend with a fault: it forgets the forwarding entries.
type halfPaths struct{ backend.Backend }

func (b halfPaths) Plan(host backend.Host, self subnet.Lease, peers []*subnet.Lease) (ip.State, []subnet.Problem) {
	s, problems := b.Backend.Plan(host, self, peers)
	s.FDB = nil
	return s, problems
}

// A fault of Tulle itself is in the status, in its count, and in the log, there once.
func TestViolationIsTold(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		h, log := w.hosts[0], &lines{}
		h.log = log.handler()
		h.change = func(cfg *Config) {
			cfg.Backends = maps.Clone(backends.All())
			vxlan := cfg.Backends["vxlan"]
			cfg.Backends["vxlan"] = func(n subnet.Network) (backend.Backend, []string, error) {
				b, doubts, err := vxlan(n)
				return halfPaths{b}, doubts, err
			}
		}
		w.start()
		w.within(soon, "peers", func(h *node) bool { return len(h.agent.Status().Peers) == 1 })
		for range 3 { // passes that decide anew
			h.external(ip.Op{Verb: ip.Delete, Old: h.owned().Routes[0]})
			<-time.After(2 * time.Second)
		}
		if n := h.agent.Status().Violated; n < 1 {
			t.Errorf("%d violations counted", n)
		}
		if n := strings.Count(log.String(), `msg="invariant violated" invariant="`+invariant.WholePaths); n != 1 {
			t.Errorf("%d lines tell of the violation, want 1:\n%s", n, log.String())
		}
		if sound := w.hosts[1].agent.Status(); sound.Violated != 0 {
			t.Errorf("a host without the fault counts %d: %v", sound.Violated, sound.Violations)
		}
		// Nor do passes over a few leases pass over it, or count again what one over everything has counted.
		h.grounded(w)
		before := h.agent.Status()
		w.store.Put("subnets/10.5.200.0-24", flannelLease("172.30.0.200", "02:00:00:00:00:c8"), 0)
		<-time.After(2 * time.Second)
		after := h.agent.Status()
		if after.Violated == before.Violated || after.Work.Few != before.Work.Few {
			t.Errorf("%d violations counted after another lease, %d before; %d passes over a few leases", after.Violated, before.Violated, after.Work.Few)
		}
		w.store.Delete("subnets/10.5.200.0-24")
		<-time.After(2 * time.Second)
		if st := h.agent.Status(); st.Violated > after.Violated+4 {
			t.Errorf("%d violations counted after a lease went, %d before", st.Violated, after.Violated)
		}
	})
}
