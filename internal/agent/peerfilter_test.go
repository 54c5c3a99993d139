package agent

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
)

// heard lists the addresses that the host's guards let in, by family.
func (h *node) heard() map[string][]string {
	all := map[string][]string{}
	for _, g := range h.owned().Guards {
		for _, p := range g.Peers {
			all[g.Family.String()] = append(all[g.Family.String()], p.String())
		}
	}
	return all
}

func (w *world) hears(h *node, what string, v4, v6 string) {
	w.t.Helper()
	want := map[string][]string{"ipv4": strings.Fields(v4), "ipv6": strings.Fields(v6)}
	w.within(soon, what+" is heard of", func(*node) bool { return cmp.Equal(want, h.heard()) })
}

func TestGuardFollowsPeers(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		w.hears(h, "who is there", "172.30.0.2 172.30.0.3", "fd30::2 fd30::3")
		var rewritten bool
		h.kernel.Refuse(func(op ip.Op) error {
			_, isGuard := op.New.(ip.Guard)
			rewritten = rewritten || isGuard
			return nil
		})
		w.store.Put("subnets/10.5.30.0-24", flannelLease("172.30.0.30", "02:00:00:00:00:30"), 0)
		w.hears(h, "a flanneld", "172.30.0.2 172.30.0.3 172.30.0.30", "fd30::2 fd30::3")
		w.hosts[1].move(202)
		w.hears(h, "a peer that moves", "172.30.0.3 172.30.0.30 172.30.0.202", "fd30::3 fd30::ca")
		w.store.Delete("subnets/10.5.30.0-24")
		w.hears(h, "a flanneld that is gone", "172.30.0.3 172.30.0.202", "fd30::3 fd30::ca")
		if rewritten {
			t.Error("the guard was made anew for a change of peers")
		}
	})
}

func TestStrangersAreCounted(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		var log lines
		h := w.hosts[0]
		h.log = log.handler()
		w.start()
		w.converged(soon)
		for _, from := range []string{"172.30.0.66", "fd30::66", "172.30.0.2", "fd30::2"} {
			h.kernel.Knock(netip.MustParseAddr(from), 8472, 1)
		}
		<-time.After(resyncEvery + soon)
		synctest.Wait()
		if got := h.agent.Status().Strangers; got != 2 {
			t.Errorf("status tells of %d packets from strangers, want 2", got)
		}
		if n := strings.Count(log.String(), "strangers"); n != 1 {
			t.Errorf("logged %d times, want once:\n%s", n, log.String())
		}
	})
}

// The guard goes with what calls for it: the option, at a restart, or the backend.
func TestNoGuardWhereNoneIsWanted(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		h.stop()
		h.change = func(c *Config) { c.PeerFilter = false }
		h.start()
		w.converged(soon)
		if guards := h.owned().Guards; len(guards) > 0 {
			t.Errorf("switched off, there are %v", guards)
		}
	})
	simulate(t, strings.Replace(dualConfig, "vxlan", "host-gw", 1), 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		if guards := w.hosts[0].owned().Guards; len(guards) > 0 {
			t.Errorf("without VXLAN, there are %v", guards)
		}
	})
}

// Behind NAT, a peer is heard at the address that it announces: its packets have that when they arrive.
func TestPeerBehindNATIsHeardAtItsPublicAddress(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.hosts[1].change = func(c *Config) { c.Uplink.Public.V4 = netip.MustParseAddr("203.0.113.2") }
		w.start()
		w.converged(soon)
		if got := w.hosts[0].heard()["ipv4"]; !cmp.Equal(got, []string{"203.0.113.2"}) {
			t.Errorf("heard are %v, want the public address", got)
		}
	})
}
