package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/fabric"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// silent is a store that never answers.
type silent struct{}

func (silent) Acquire(ctx context.Context, _ subnet.Claim) (subnet.Held, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (silent) Watch(ctx context.Context, _ func(subnet.Set)) error {
	<-ctx.Done()
	return ctx.Err()
}

// Without a cached view there is nothing to work from.
func TestNoStoreNoChange(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		was := h.owned()
		h.stop()
		if err := os.Remove(filepath.Join(h.dir, "state", "view.json.gz")); err != nil {
			t.Fatal(err)
		}
		reason := errors.New("etcd at http://127.0.0.1:2379 does not answer: connection refused")
		h.change = func(c *Config) {
			c.Networks[0].Store = silent{}
			c.Networks[0].Trouble = func() error { return reason }
		}
		h.start()
		<-time.After(time.Hour)
		synctest.Wait()
		if diff := cmp.Diff(was.String(), h.owned().String()); diff != "" {
			t.Errorf("the kernel changed without a view of the store:\n%s", diff)
		}
		if st := h.agent.Status(); st.Ready || st.Reason != reason.Error() {
			t.Errorf("status %+v, want not ready because of %v", st, reason)
		}
	})
}

func TestTroubleIsReportedBetweenPasses(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		var away atomic.Bool
		h := w.hosts[0]
		h.change = func(c *Config) {
			c.Networks[0].Trouble = func() error {
				if away.Load() {
					return errors.New("etcd is away")
				}
				return nil
			}
		}
		w.start()
		w.converged(soon)
		for _, reason := range []string{"", "etcd is away", ""} {
			away.Store(reason != "")
			said := strings.Join(h.texts(trouble.StoreUnreachable), "")
			if st := h.agent.Status(); said != reason || !st.Ready {
				t.Errorf("status says store %q, ready %t; want %q, true", said, st.Ready, reason)
			}
		}
	})
}

func TestBadKeysCostOnlyThemselves(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		var was []string
		for _, h := range w.hosts {
			was = append(was, h.owned().String())
		}
		w.store.Put("subnets/README", "x", 0)
		w.store.Put("subnets-x", "x", 0)
		w.store.Put("subnets/10.6.0.0-24", flannelLease("172.30.0.66", "02:00:00:00:00:66"), 0)
		w.store.Put("subnets/0.0.0.0-0", flannelLease("172.30.0.67", "02:00:00:00:00:67"), 0)
		w.store.Put("subnets/172.30.0.0-24", flannelLease("172.30.0.68", "02:00:00:00:00:68"), 0)
		w.within(soon, "reported", func(h *node) bool { return len(h.leftOut()) >= 5 })
		w.converged(soon)
		for i, h := range w.hosts {
			if diff := cmp.Diff(was[i], h.owned().String()); diff != "" {
				t.Errorf("%s changed:\n%s", h.name, diff)
			}
		}
	})
}

func TestLostLeaseIsHeld(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		was := h.owned().String()
		var self subnet.Subnets
		for _, p := range h.agent.Status().Of("").Lease.Subnets {
			self.Set(ip.FamilyOf(p.Addr()), p)
		}
		w.store.Put("subnets/"+subnet.KeyOf(self), `{"PublicIP":"172.30.0.99","PublicIPv6":"fd30::99","BackendType":"vxlan","Tulle":{"Node":"thief","Instance":"x"}}`, 0)
		w.within(soon, "noticed", func(o *node) bool {
			return o != h || !o.agent.Status().Ready && strings.Contains(o.agent.Status().Reason, "thief")
		})
		<-time.After(time.Hour)
		synctest.Wait()
		if st := h.agent.Status(); st.Ready || !strings.Contains(st.Reason, "thief") {
			t.Errorf("an hour later: %+v, want it to name the thief", st)
		}
		if diff := cmp.Diff(was, h.owned().String()); diff != "" {
			t.Errorf("the data plane changed:\n%s", diff)
		}

		if got := h.texts(trouble.LeaseLost); len(got) != 1 || !strings.Contains(got[0], "thief at 172.30.0.99") {
			t.Errorf("loss %q, want the thief", got)
		}
		w.store.Delete("subnets/" + subnet.KeyOf(self))
		w.converged(time.Minute)
		if got := h.texts(trouble.LeaseLost, trouble.LeaseRenumbered); len(got) > 0 {
			t.Errorf("loss %q, want none once the subnet is back", got)
		}
	})
}

func TestLostLeaseIsReplaced(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.change = func(c *Config) { c.Networks[0].Lease.Renumber = true }
		w.start()
		w.converged(soon)
		was := h.agent.Status().Of("").Lease.Subnets
		bridge := ip.Interface{Name: "cni0", MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.PrefixFrom(was[0].Addr().Next(), was[0].Bits())}}}
		h.kernel.AddInterface(bridge)
		key := subnet.KeyOf(subnet.Subnets{V4: was[0], V6: was[1]})
		w.store.Put("subnets/"+key, `{"PublicIP":"172.30.0.99","PublicIPv6":"fd30::99","BackendType":"vxlan","Tulle":{"Node":"thief","Instance":"x"}}`, 0)
		w.within(soon, "renumbered", func(*node) bool {
			st := h.agent.Status()
			return st.Ready && st.Of("").Lease.Held && st.Of("").Lease.Subnets[0] != was[0] && len(h.drift()) == 0
		})
		st := h.agent.Status()
		loss, stale := strings.Join(h.texts(trouble.LeaseRenumbered), ""), h.texts(trouble.BridgeStale)
		if !strings.Contains(loss, "thief") || len(stale) != 1 || !strings.Contains(stale[0], "cni0 holds") {
			t.Errorf("loss %q, stale %q, want the thief and the bridge", loss, stale)
		}
		if env, err := flannel.ReadEnv(filepath.Join(h.dir, "subnet.env")); err != nil || env.Subnets.V4 != st.Of("").Lease.Subnets[0] {
			t.Errorf("subnet file %+v, %v, want %v", env, err, st.Of("").Lease.Subnets)
		}
		w.within(soon, "followed", func(o *node) bool {
			return o == h || slices.ContainsFunc(o.agent.Status().Of("").Peers, func(p fabric.PeerStatus) bool {
				return p.Node == h.name && p.Subnets[0] == st.Of("").Lease.Subnets[0]
			})
		})
	})
}

// All keys deleted at once: every host asserts its lease, and no kernel is touched.
func TestWipeChangesNothing(t *testing.T) {
	simulate(t, dualConfig, 4, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		for _, h := range w.hosts {
			h.kernel.Refuse(func(op ip.Op) error {
				t.Errorf("%s: the kernel is changed: %s", h.name, op)
				return nil
			})
		}
		w.store.Wipe()
		<-time.After(2 * subnet.HoldbackTime)
		w.within(soon, "told", func(h *node) bool {
			st := h.agent.Status()
			return st.Ready && st.Of("").Lease.Held && len(st.Of("").Peers) == 3 && len(h.leftOut()) == 1 && h.leftOut()[0].Subject == "config"
		})
		keys := w.store.Keys()
		isLease := func(key string) bool { return strings.HasPrefix(key, "subnets/") }
		if leases := len(keys) - len(slices.DeleteFunc(slices.Clone(keys), isLease)); leases != 4 || slices.Contains(keys, "config") {
			t.Errorf("keys %q, want the four leases and no configuration", keys)
		}
	})
}

// An old backup comes back while all daemons are down, and one of them starts first. Seed 1168 of internal/sim.
func TestRestoreWhileDownChangesNothing(t *testing.T) {
	simulate(t, dualConfig, 4, func(t *testing.T, w *world) {
		old := w.store.Backup()
		w.start()
		w.converged(soon)
		for _, h := range w.hosts {
			h.stop()
			h.kernel.Refuse(func(op ip.Op) error {
				t.Errorf("%s: the kernel is changed: %s", h.name, op)
				return nil
			})
		}
		w.store.Restore(old)
		for _, h := range w.hosts {
			h.start()
			<-time.After(2 * time.Second)
		}
		w.converged(2 * subnet.HoldbackTime)
	})
}
