package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/fabric"
	"tulle/internal/trouble"
	"tulle/subnet/subnettest"
)

// routed lists where the host routes into its networks, as destination and device.
func (h *node) routed() map[string]string {
	routes := map[string]string{}
	for _, r := range h.owned().Routes {
		routes[r.Dst.String()] = r.Link
	}
	return routes
}

func TestPeersOfOtherFamilies(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		v6 := `"PublicIPv6":"fd30::%x","BackendV6Data":{"VNI":1,"VtepMAC":"02:06:00:00:00:%02x"}`
		v4 := `"PublicIP":"172.30.0.%d","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:04:00:00:00:%02x"}`
		w.store.Put("subnets/10.5.21.0-24", fmt.Sprintf("{"+v4+`,"PublicIPv6":null}`, 21, 21), 0)
		w.store.Put("subnets/10.5.22.0-24&fc00:5:0:22::-64", fmt.Sprintf("{"+v4+","+v6+"}", 22, 22, 22, 22), 0)
		// A host that leases both, and has only an IPv4 underlay.
		w.store.Put("subnets/10.5.23.0-24&fc00:5:0:23::-64", fmt.Sprintf("{"+v4+`,"PublicIPv6":null}`, 23, 23), 0)
		// Two leases of one host: one from before it was renumbered.
		w.store.Put("subnets/10.5.24.0-24", fmt.Sprintf("{"+v4+"}", 24, 24), 0)
		w.store.Put("subnets/10.5.25.0-24", fmt.Sprintf("{"+v4+"}", 24, 24), 0)
		w.within(soon, "routed", func(*node) bool { return h.agent.Status().Ready && len(h.agent.Status().Of("").Peers) == 5 })
		if diff := cmp.Diff(map[string]string{
			"10.5.21.0/24":     "flannel.1",
			"10.5.22.0/24":     "flannel.1",
			"fc00:5:0:22::/64": "flannel-v6.1",
			"10.5.23.0/24":     "flannel.1",
			"10.5.24.0/24":     "flannel.1",
			"10.5.25.0/24":     "flannel.1",
		}, h.routed()); diff != "" {
			t.Errorf("routes (-want +got):\n%s", diff)
		}
		problems := h.leftOut()
		if len(problems) != 1 || !strings.Contains(problems[0].Text, "no public ipv6 address") {
			t.Errorf("problems %v, want one about the IPv6 part of 10.5.23.0", problems)
		}
	})
}

// Whoever announces the MAC of another host must not take over its traffic, wherever its subnet stands in the list.
func TestStolenMACHarmsTheThief(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.start()
		const mac = "02:00:00:00:00:77"
		w.store.Put("subnets/10.5.200.0-24", flannelLease("172.30.0.77", mac), 0)
		w.store.Put("subnets/10.5.1.0-24", flannelLease("172.30.0.66", mac), 0)
		w.within(soon, "told", func(*node) bool {
			st := h.agent.Status()
			return st.Ready && len(h.leftOut()) == 1 && h.leftOut()[0].Subject == "subnets/10.5.1.0-24"
		})
		if fdb := h.owned().FDB; len(fdb) != 1 || fdb[0].Dst != netip.MustParseAddr("172.30.0.77") {
			t.Errorf("forwarding entries %v, want that of the older lease", fdb)
		}
	})
}

func TestAllocOnlyLeases(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"alloc"}}`, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		got := h.owned()
		if n := len(got.Links) + len(got.Addrs) + len(got.FDB) + len(got.Neighbors) + len(got.Routes); n > 0 {
			t.Errorf("the kernel has %s", got)
		}
		if st := h.agent.Status(); st.Of("").MTU != 1500 || st.Of("").Peers[0].Via != "none" {
			t.Errorf("status %+v", st)
		}
	})
}

// Leases with which something is the matter are counted, whatever kind of pass saw them come and go.
func TestLeasesAreCounted(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0"}`, 1, func(t *testing.T, w *world) {
		good := func(n int) string { return fmt.Sprintf("subnets/10.5.%d.0-24", n) }
		for n := 20; n < 30; n++ {
			w.putPeer(good(n), fmt.Sprintf("172.30.0.%d", n), fmt.Sprintf("02:00:00:00:00:%d", n), "vxlan")
		}
		w.putPeer("subnets/10.9.1.0-24", "172.30.0.40", "02:00:00:00:00:40", "vxlan")   // outside of the network
		w.putPeer("subnets/10.5.41.0-24", "172.30.0.41", "02:00:00:00:00:41", "udp")    // of another backend
		w.putPeer("subnets/10.5.120.0-24", "172.30.0.42", "02:00:00:00:00:42", "vxlan") // beyond SubnetMax
		w.start()
		counted := func(want fabric.LeaseCounts) {
			t.Helper()
			w.within(time.Minute, fmt.Sprintf("counted %+v", want), func(h *node) bool { return h.agent.Status().Of("").Leases == want })
		}
		counted(fabric.LeaseCounts{Refused: 1, Unserved: 1, Odd: 3})
		store := w.hosts[0].store.(*subnettest.Store)
		store.SetConnection(subnettest.Connection{NoEvents: true}) // so that all go at once
		for n := 20; n < 30; n++ {
			w.store.Delete(good(n))
		}
		store.SetConnection(subnettest.Connection{})
		counted(fabric.LeaseCounts{Refused: 1, Unserved: 1, Odd: 3, HeldBack: 10})
		w.putPeer(good(25), "172.30.0.25", "02:00:00:00:00:25", "vxlan")
		counted(fabric.LeaseCounts{Refused: 1, Unserved: 1, Odd: 3, HeldBack: 9})
		counted(fabric.LeaseCounts{Refused: 1, Unserved: 1, Odd: 3})
	})
}

func TestManyProblemsAreLoggedInPart(t *testing.T) {
	simulate(t, dualConfig, 1, func(t *testing.T, w *world) {
		var log lines
		h := w.hosts[0]
		h.log = log.handler()
		h.start()
		w.converged(soon)
		before := log.count()
		for n := range 500 {
			w.store.Put(fmt.Sprintf("subnets/10.9.%d.0-24", n), flannelLease("172.30.0.66", "02:00:00:00:00:66"), 0)
		}
		w.within(soon, "told", func(*node) bool {
			count := h.agent.Status().Troubles.Count
			return count[trouble.PeerRefused]+count[trouble.KeyUnreadable] == 500
		})
		if n := len(h.agent.Status().Of("").Troubles.All); n > 40 {
			t.Errorf("%d troubles are kept after a pass", n)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if n := log.count() - before; n > 3*mostLines {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
	})
}

func TestConfigurationDeleted(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		was := h.owned().String()
		w.store.Delete("config")
		w.within(soon, "told", func(o *node) bool {
			st := o.agent.Status()
			return st.Ready && len(o.leftOut()) == 1 && o.leftOut()[0].Subject == "config"
		})
		h.stop()
		h.start()
		w.within(soon, "told after a restart", func(o *node) bool {
			return o != h || strings.Contains(h.agent.Status().Degraded, "tulle config set")
		})
		if diff := cmp.Diff(was, h.owned().String()); diff != "" {
			t.Errorf("the data plane changed:\n%s", diff)
		}
		w.store.Put("config", dualConfig, 0)
		w.converged(time.Minute)
	})
}
