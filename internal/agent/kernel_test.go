package agent

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
)

func TestTamperingHeals(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		dev := h.link("flannel.1")
		down, otherMAC := dev, dev
		down.Up = false
		otherMAC.MAC[5]++
		was := h.owned()
		for name, op := range map[string]ip.Op{
			"route deleted":     {Verb: ip.Delete, Old: was.Routes[0]},
			"neighbour deleted": {Verb: ip.Delete, Old: was.Neighbors[0]},
			"entry deleted":     {Verb: ip.Delete, Old: was.FDB[0]},
			"address deleted":   {Verb: ip.Delete, Old: was.Addrs[0]},
			"table deleted":     {Verb: ip.Delete, Old: was.Tables[0]},
			"link down":         {Verb: ip.Replace, Old: dev, New: down},
			"link deleted":      {Verb: ip.Delete, Old: dev},
			"MAC changed":       {Verb: ip.Replace, Old: dev, New: otherMAC},
		} {
			t.Log(name)
			h.external(op)
			w.converged(2 * time.Second)
			if diff := cmp.Diff(was.String(), h.owned().String()); diff != "" {
				t.Errorf("%s: healed to another state:\n%s", name, diff)
			}
		}
	})
}

func TestSysctlHealsByResync(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		off := ip.Sysctl{Key: "net/ipv4/ip_forward", Value: "0"}
		h.external(ip.Op{Verb: ip.Replace, New: off, Old: off})
		w.converged(resyncEvery + soon)
	})
}

func TestRefusedOperationCostsOnlyItself(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		h := w.hosts[0]
		var bad netip.Prefix
		h.kernel.Refuse(func(op ip.Op) error {
			r, ok := op.New.(ip.Route)
			if ok && !bad.IsValid() {
				bad = r.Dst
			}
			if ok && r.Dst == bad {
				return errors.New("no buffer space available")
			}
			return nil
		})
		w.start()
		w.within(time.Minute, "the others converge", func(o *node) bool {
			st := o.agent.Status()
			return len(st.Peers) == 2 && (st.Ready || o == h && len(h.drift()) == 1)
		})
		if st := h.agent.Status(); !strings.Contains(st.Reason, bad.String()) || !strings.Contains(st.Reason, "no buffer space") {
			t.Errorf("reason %q, want the route and the error", st.Reason)
		}
		if _, err := os.Stat(filepath.Join(h.dir, "subnet.env")); err != nil {
			t.Error(err)
		}
		h.kernel.Refuse(nil)
		w.converged(time.Minute)
	})
}
