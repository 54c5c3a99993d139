package agent

import (
	"context"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/hostfiles"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

const redConfig6 = `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:6::/48","Backend":{"Type":"vxlan","VNI":6}}`

// moveIPv6 moves the host's IPv6 from eth0 to eth1, which gets more addresses beside it.
func (h *node) moveIPv6(more ...netip.Prefix) {
	first, second := eth0(h.n), eth0(h.n)
	first.Addrs, second.Addrs, second.Name = first.Addrs[:1], second.Addrs[1:], "eth1"
	for _, p := range more {
		second.Addrs = append(second.Addrs, ip.InterfaceAddr{Prefix: p})
	}
	h.kernel.SetInterface(first)
	h.kernel.AddInterface(second)
	route := ip.Route{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd30::fe"), Link: "eth0"}
	moved := route
	moved.Link = "eth1"
	h.external(ip.Op{Verb: ip.Delete, Old: route}, ip.Op{Verb: ip.Add, New: moved})
}

// Each network chooses its uplink for itself: whatever becomes of another does not move it.
func TestNetworksChooseTheirOwnUplinks(t *testing.T) {
	for name, more := range map[string][]netip.Prefix{
		"one for each family":  nil,
		"one that has both":    {netip.MustParsePrefix("172.31.0.1/24")},
		"another IPv6 address": {netip.MustParsePrefix("fd30::aaaa/64")},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
				w.second().Put("config", redConfig6, 0)
				h := w.hosts[0]
				h.moveIPv6(more...)
				w.start()
				w.within(soon, "ready", bothReady(0))
				was := h.all("", "red")
				if own := was.Links[1].Kind.Source(); len(was.Links) != 2 || own != netip.MustParseAddr("172.30.0.1") {
					t.Fatalf("flannel.1 sends from %s", own)
				}
				unchanged := func(what string) {
					t.Helper()
					<-time.After(time.Minute)
					synctest.Wait()
					if diff := cmp.Diff(was.String(), h.all("", "red").String()); diff != "" || !h.agent.Status().Of("").Ready {
						t.Errorf("%s, first %q:\n%s", what, h.agent.Status().Of("").Reason, diff)
					}
				}
				h.again(func(c *Config) { c.Networks[1].SubnetFile = h.dir })
				unchanged("a file of red cannot be written")
				remove(t, filepath.Join(h.dir, "state", "networks", "red", "view.json.gz"))
				h.again(func(c *Config) { c.Networks[1].Store = silent{} })
				unchanged("the store of red is silent")
			})
		})
	}
}

// slow is a store that answers later.
type slow struct {
	subnet.Store
	by time.Duration
}

func (s slow) Watch(ctx context.Context, deliver func(subnet.Set)) error {
	select {
	case <-time.After(s.by):
		return s.Store.Watch(ctx, deliver)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A network that is refused takes nothing of the one before it while that waits for its store.
func TestRefusedNetworkTakesNothing(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.second().Put("config", `{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}`, 0)
		w.start()
		right := func(h *node) bool {
			st := h.agent.Status()
			return st.Of("").Ready && len(st.Of("").Peers) == 1 && !st.Of("red").Ready
		}
		w.within(soon, "the first is ready", right)
		<-time.After(2 * hostfiles.ViewEvery)
		h := w.hosts[0]
		was := h.all("", "red")
		h.again(func(c *Config) { c.Networks[0].Store = slow{c.Networks[0].Store, time.Second} })
		for range 60 {
			<-time.After(50 * time.Millisecond)
			synctest.Wait()
			if diff := cmp.Diff(was.String(), h.all("", "red").String()); diff != "" {
				t.Fatalf("the data plane changed:\n%s", diff)
			}
		}
		w.within(soon, "the first is ready again", right)
	})
}

// What is wrong with the host is told once, and no network is ready.
func TestHostOfTwoNetworksFails(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		w.second()
		w.start()
		w.within(soon, "ready", bothReady(0))
		h := w.hosts[0]
		table := h.all("", "red").Tables[0]
		h.kernel.Refuse(func(op ip.Op) error { return context.DeadlineExceeded })
		h.external(ip.Op{Verb: ip.Delete, Old: table})
		w.within(time.Minute, "told", func(*node) bool { return !h.agent.Status().Ready })
		st := h.agent.Status()
		if refused := st.Troubles.Of(trouble.KernelRefused); len(refused) != 1 || st.Of("").Ready || st.Of("red").Ready || st.Of("red").Reason != "" {
			t.Errorf("reason %q, troubles %+v", st.Reason, st.Troubles.All)
		}
	})
}

// A counter whose table is made anew begins anew.
func TestTablesThatAreMadeAnew(t *testing.T) {
	all := tally{}
	strangers := func(n uint64) map[string]ip.Dual[ip.Drops] {
		return map[string]ip.Dual[ip.Drops]{"": {V4: ip.Drops{Strangers: n}}}
	}
	all.add(strangers(100))
	all.add(nil)
	if n := all.add(strangers(150)).Strangers; n != 250 {
		t.Errorf("%d packets, want 250", n)
	}
}
