package agent

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/backend"
	"tulle/internal/backends"
	"tulle/internal/invariant"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// faulty is a backend with a fault in its plans.
type faulty struct {
	backend.Backend
	fault func(*ip.State)
}

func (b faulty) Plan(host backend.Host, self subnet.Lease, peers []*subnet.Lease) (ip.State, []subnet.Problem) {
	s, problems := b.Backend.Plan(host, self, peers)
	b.fault(&s)
	return s, problems
}

func withFault(fault func(*ip.State)) func(*Config) {
	return func(cfg *Config) {
		cfg.Networks[0].Backends = maps.Clone(backends.All())
		vxlan := cfg.Networks[0].Backends["vxlan"]
		cfg.Networks[0].Backends["vxlan"] = func(n subnet.Network) (backend.Backend, []string, error) {
			b, warnings, err := vxlan(n)
			return faulty{b, fault}, warnings, err
		}
	}
}

// A fault of Tulle itself is in the status, in its count, and in the log, there once.
func TestViolationIsReported(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		h, log := w.hosts[0], &lines{}
		h.log = log.handler()
		h.change = withFault(func(s *ip.State) { s.FDB = nil })
		w.start()
		w.within(soon, "peers", func(h *node) bool { return len(h.agent.Status().Of("").Peers) == 1 })
		for range 3 { // passes that decide anew
			h.external(ip.Op{Verb: ip.Delete, Old: h.owned().Routes[0]})
			<-time.After(2 * time.Second)
		}
		if n := h.agent.Status().Violated; n < 1 {
			t.Errorf("%d violations counted", n)
		}
		if n := strings.Count(log.String(), `msg=trouble code=fault text="`+invariant.WholePaths); n != 1 {
			t.Errorf("%d lines tell of the violation, want 1:\n%s", n, log.String())
		}
		if sound := w.hosts[1].agent.Status(); sound.Violated != 0 {
			t.Errorf("a host without the fault counts %d: %v", sound.Violated, h.texts(trouble.Fault))
		}
	})
}

// An incremental pass that would do wrong leaves it to a full one, which tells. None counts again what another has.
func TestViolationInAnIncrementalPass(t *testing.T) {
	peer := ip.MAC{2, 0, 0, 0, 0, 0xc8}
	has := func(s *ip.State) bool {
		return slices.ContainsFunc(s.Neighbors, func(n ip.Neighbor) bool { return n.MAC == peer })
	}
	for name, fault := range map[string]func(*ip.State){
		"no forwarding entry": func(s *ip.State) {
			s.FDB = slices.DeleteFunc(s.FDB, func(f ip.FDB) bool { return f.MAC == peer })
		},
		"a route of others": func(s *ip.State) {
			if has(s) {
				s.Routes = append(s.Routes, ip.Route{
					Dst: netip.MustParsePrefix("198.51.100.0/24"), Via: s.FDB[0].Dst, Link: "eth0", Metric: 1, Protocol: ip.Protocol,
				})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`, 1, func(t *testing.T, w *world) {
				h := w.hosts[0]
				h.change = withFault(fault)
				w.store.Put("subnets/10.5.20.0-24", flannelLease("172.30.0.20", "02:00:00:00:00:20"), 0) // routes lead over eth0
				w.start()
				h.hasBaseline(w)
				<-time.After(time.Second) // its own lease may come by an incremental pass
				before := h.agent.Status().Work.Incremental
				w.store.Put("subnets/10.5.200.0-24", flannelLease("192.0.2.200", peer.String()), 0)
				<-time.After(time.Second)
				reported := h.agent.Status()
				if reported.Violated == 0 || reported.Work.Incremental > before {
					t.Errorf("%d violations, %d incremental passes", reported.Violated, reported.Work.Incremental-before)
				}
				w.store.Delete("subnets/10.5.200.0-24")
				<-time.After(time.Second)
				if st := h.agent.Status(); name == "no forwarding entry" && st.Violated != reported.Violated {
					t.Errorf("%d violations once the lease is gone, %d before", st.Violated, reported.Violated)
				}
			})
		})
	}
}
