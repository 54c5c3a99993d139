package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/hostfiles"
	"tulle/subnet"
)

const v4Config = `{"Network":"10.5.0.0/16"}`

// key is where the host's lease is.
func (h *node) key() string {
	h.t.Helper()
	st := h.agent.Status()
	if st.Of("").Lease == nil {
		h.t.Fatalf("%s has no lease", h.name)
	}
	return "subnets/" + subnet.KeyOf(subnet.Subnets{V4: st.Of("").Lease.Subnets[0]})
}

// knows reports whether the host has a route and a forwarding entry for another, whatever other peers it has.
func (h *node) knows(o *node) bool {
	st, own := h.agent.Status(), h.owned()
	_, routed := h.routed()[o.agent.Status().Of("").Lease.Subnets[0].String()]
	mac := o.link("flannel.1").MAC
	for _, f := range own.FDB {
		if f.MAC == mac && f.Dst == netip.MustParseAddr(fmt.Sprintf("172.30.0.%d", o.n)) {
			return routed && slices.ContainsFunc(st.Of("").Peers, func(p fabric.PeerStatus) bool { return p.Node == o.name })
		}
	}
	return false
}

// all reports whether every host knows every other.
func (w *world) all() bool {
	for _, h := range w.hosts {
		for _, o := range w.hosts {
			if h != o && !h.knows(o) {
				return false
			}
		}
	}
	return true
}

// inside returns an address in a host's subnet.
func (h *node) inside() string {
	return h.agent.Status().Of("").Lease.Subnets[0].Addr().Next().Next().String()
}

// A copy of a host's node id and instance takes no peer away from anybody, and nothing from the host.
func TestLeaseThatCopiesThisHost(t *testing.T) {
	simulate(t, v4Config, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		w.store.Put("subnets/10.5.250.0-24", fmt.Sprintf(`{"PublicIP":%q,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":%q},"Tulle":{"Node":"h1","Instance":"run-of-h1"}}`,
			w.hosts[1].inside(), w.hosts[2].link("flannel.1").MAC), 0)
		<-time.After(time.Minute)
		w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready })
		if !w.all() {
			t.Error("a host has lost a peer")
		}
	})
}

// What lies in wait in the store gains nothing when the lease that it imitates is written anew: peers remember whose was first,
// and the host itself makes way where it can, for newcomers do not.
func TestDormantForgery(t *testing.T) {
	const key = "subnets/10.5.250.0-24"
	for name, tt := range map[string]struct {
		forge func(victim *node) string // the value of a lease
		ready bool                      // the victim can make way
	}{
		"MAC":     {func(h *node) string { return flannelLease("172.30.0.66", h.link("flannel.1").MAC.String()) }, true},
		"address": {func(h *node) string { return flannelLease(h.inside(), "02:00:00:00:00:66") }, false},
	} {
		for event, happen := range map[string]func(*world, string){
			"deletion": func(w *world, _ string) { w.store.Delete(w.hosts[1].key()) },
			"wipe": func(w *world, value string) {
				for owners, again := w.hosts[1].key(), true; again; _, _, again = w.store.Get(owners) { // the owner may have been quicker
					for _, k := range w.store.Keys() {
						w.store.Delete(k)
					}
					w.store.Put("config", v4Config, 0)
					w.store.Put(key, value, 0)
				}
			},
			"restart of the observer": func(w *world, _ string) {
				<-time.After(2 * hostfiles.ViewEvery)
				w.hosts[0].stop()
				w.store.Delete(w.hosts[1].key())
				<-time.After(time.Second)
				w.hosts[0].start()
			},
		} {
			t.Run(name+", "+event, func(t *testing.T) {
				simulate(t, v4Config, 3, func(t *testing.T, w *world) {
					w.start()
					w.converged(soon)
					value := tt.forge(w.hosts[1])
					w.store.Put(key, value, 0)
					w.within(soon, "told", func(h *node) bool { return len(h.leftOut()) > 0 })
					happen(w, value)
					<-time.After(time.Minute)
					synctest.Wait()
					if !w.all() {
						t.Error("a host is left out")
					}
					st := w.hosts[1].agent.Status()
					if st.Ready != tt.ready {
						t.Errorf("ready %t, %q, want %t", st.Ready, st.Reason, tt.ready)
					}
					if !tt.ready && (!strings.Contains(st.Reason, key) || !strings.Contains(st.Reason, "tulle leases release")) {
						t.Errorf("reason %q, want the key and the remedy", st.Reason)
					}
					for _, o := range []*node{w.hosts[0], w.hosts[2]} {
						if st := o.agent.Status(); !st.Ready && event != "wipe" {
							t.Errorf("%s is not ready: %s", o.name, st.Reason)
						}
					}
					w.store.Delete(key)
					w.converged(soon)
				})
			})
		}
	}
}
