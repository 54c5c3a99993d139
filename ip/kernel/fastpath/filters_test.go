//go:build linux

package fastpath_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/fastpath"
)

// filters are worlds of a kernel without tcx.
func filters(kinds []config) []config {
	return with(kinds, func(c *config) { c.open = fastpath.OpenFilters })
}

func TestFiltersFlowsBecomeFast(t *testing.T) {
	holds(t, filters(kinds()), bulk)
}

// Filters go on without the process, and another one exchanges them in one step.
func TestFiltersOutliveTheProcess(t *testing.T) {
	holds(t, filters(kinds()), func(w *world) error {
		a := w.hosts[0]
		streams := bothWays(w)
		must(w.t, a.engine.stop())
		before := a.filters()
		if len(before) == 0 {
			return errors.New("no filter is left of an engine that has been stopped")
		}
		for range 3 {
			p := a.startProcess(filtersEnv)
			for _, s := range streams {
				s.awaitSent(500)
			}
			p.kill()
			for _, s := range streams {
				must(w.t, s.awaitMore(500))
			}
		}
		if after := a.filters(); !slices.Equal(places(before), places(after)) {
			return fmt.Errorf("filters are %v, and were %v", places(after), places(before))
		}
		a.accelerate()
		return stopFast(streams)
	})
}

// Filters that somebody deletes or exchanges come back.
func TestFiltersHeal(t *testing.T) {
	for name, meddle := range map[string]func(*host){
		"deleted": func(h *host) {
			for _, f := range h.filters() {
				must(h.t, h.netlink.FilterDel(f))
			}
		},
		"exchanged": func(h *host) {
			for _, f := range h.filters() {
				f.Fd = h.goOn().FD()
				must(h.t, h.netlink.FilterReplace(f))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			holds(t, filters(kinds()), func(w *world) error {
				streams := bothWays(w)
				meddle(w.hosts[0])
				return stopFast(streams)
			})
		})
	}
	// The kernel drops packets while it takes the qdisc away.
	t.Run("with their qdisc", func(t *testing.T) {
		holds(t, filters(kinds()), func(w *world) error {
			streams := bothWays(w)
			h := w.hosts[0]
			for _, q := range h.qdiscs() {
				must(h.t, h.netlink.QdiscDel(q))
			}
			for _, s := range streams {
				if err := s.awaitFast(); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// Filters of other programs stay as they are, wherever they hang, until the fast path is removed and after it.
func TestFiltersOfOthers(t *testing.T) {
	for _, other := range []netlink.FilterAttrs{
		{Priority: 1, Handle: 7, Protocol: unix.ETH_P_ALL}, // where the fast path would have its own
		{Priority: 1, Handle: 1, Protocol: unix.ETH_P_ALL},
		{Priority: 1, Handle: 7, Protocol: unix.ETH_P_ARP},
		{Priority: 2, Handle: 7, Protocol: unix.ETH_P_ALL},
	} {
		t.Run(fmt.Sprintf("priority %d, handle %d, protocol %#x", other.Priority, other.Handle, other.Protocol), func(t *testing.T) {
			w := newWorld(t, config{backend: "vxlan", family: ip.IPv4, engines: -1, open: fastpath.OpenFilters})
			h := w.hosts[0]
			link := h.link(uplink)
			must(t, h.netlink.QdiscAdd(clsactOn(link)))
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				f := &netlink.BpfFilter{FilterAttrs: other, Fd: h.goOn().FD(), Name: "another", DirectAction: true}
				f.LinkIndex, f.Parent = link.Attrs().Index, parent
				must(t, h.netlink.FilterAdd(f))
			}
			theirs := h.filtersNamed("another")
			w.hosts[1].accelerate()
			h.accelerate()
			if state := h.engine.State(); state.Failed != "" || !strings.Contains(state.Partly, "the tc filter bpf of another program") {
				t.Errorf("the fast path stands at %s, want no failure, and a word on the other program", show(state))
			}
			streams := bothWays(w)
			if named := h.deviceFilters(); len(named) != 2 {
				t.Errorf("what other programs have hung on links is %+v, want two filters", named)
			}
			if now := h.filtersNamed("another"); !slices.Equal(programsOf(now), programsOf(theirs)) {
				t.Errorf("the other program's filters are %v, and were %v", programsOf(now), programsOf(theirs))
			}
			must(t, stopFast(streams))
			must(t, h.engine.stop())
			must(t, h.Do(func() error { return fastpath.Remove(h.dir) }))
			if now := h.filtersNamed("another"); !slices.Equal(programsOf(now), programsOf(theirs)) {
				t.Errorf("once the fast path is removed, the other program's filters are %v, and were %v", programsOf(now), programsOf(theirs))
			}
			if left := h.filters(); len(left) > 0 {
				t.Errorf("of the fast path are left %v", places(left))
			}
			if qdiscs := h.qdiscs(); len(qdiscs) != 1 {
				t.Errorf("clsact qdiscs are %v, want that of the other program", qdiscs)
			}
		})
	}
}

// A container's link with the older ingress qdisc stays on the plain path: that takes any filter for one of packets that come in.
func TestFiltersBesideIngress(t *testing.T) {
	w := newWorld(t, config{backend: "vxlan", family: ip.IPv4, engines: -1, open: fastpath.OpenFilters})
	h := w.hosts[0]
	port := h.containers[0].port
	h.ingress(port)
	h.engine = h.start(fastpath.OpenFilters)
	want := port + " stays on the plain path: it has the queueing discipline ingress of another program"
	if !eventually(healTimeout, func() bool { s := h.engine.State(); return s.Ports == 1 && s.Partly == want && s.Failed == "" }) {
		t.Fatalf("the fast path stands at %s, want one port with it, and %q", show(h.engine.State()), want)
	}
	must(t, startStream(w.hosts[1].containers[0], h.containers[0]).stop().kept())
}

// On an uplink it is a failure, told of until it is gone.
func TestFiltersBesideIngressOfUplink(t *testing.T) {
	w := newWorld(t, config{backend: "vxlan", family: ip.IPv4, engines: -1, open: fastpath.OpenFilters})
	h := w.hosts[0]
	qdisc := h.ingress(uplink)
	w.hosts[1].accelerate()
	h.engine = h.start(fastpath.OpenFilters)
	failed := func() bool { return strings.Contains(h.engine.State().Failed, "the queueing discipline ingress") }
	if !eventually(healTimeout, failed) {
		t.Fatalf("the fast path stands at %s, want that it failed", show(h.engine.State()))
	}
	if eventually(3*time.Second, func() bool { return !failed() }) { // it looks each second
		t.Errorf("the fast path stands at %s, want that it failed still", show(h.engine.State()))
	}
	must(t, startStream(w.hosts[1].containers[0], h.containers[0]).stop().kept())
	must(t, h.netlink.QdiscDel(qdisc))
	if !eventually(healTimeout, func() bool { return h.engine.State().Failed == "" }) {
		t.Fatalf("the fast path stands at %s, want no failure any more", show(h.engine.State()))
	}
	must(t, stopFast(bothWays(w))) // not before: the kernel may drop packets while it makes the qdisc
}

// ingress gives a link the older qdisc for filters.
func (n *node) ingress(link string) netlink.Qdisc {
	n.t.Helper()
	q := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: n.link(link).Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
	must(n.t, n.netlink.QdiscAdd(q))
	return q
}

// Nothing is left on any link once the fast path is removed.
func TestFiltersRemoved(t *testing.T) {
	holds(t, filters(kinds()), func(w *world) error {
		h := w.hosts[0]
		there := bothWays(w)
		if n := len(h.qdiscs()); n != 3 {
			return fmt.Errorf("%d clsact qdiscs, want those of the uplink and of two containers", n)
		}
		if named := h.deviceFilters(); len(named) > 0 {
			return fmt.Errorf("what other programs have hung on links is %+v, want nothing", named)
		}
		must(w.t, h.engine.stop())
		must(w.t, h.Do(func() error { return fastpath.Remove(h.dir) }))
		if left := h.qdiscs(); len(left) > 0 {
			return fmt.Errorf("qdiscs are left: %v", left)
		}
		for _, s := range there {
			must(w.t, s.awaitMore(100))
			w.t.Log(s.stop()) // the kernel may drop packets while it takes a qdisc away
		}
		return nil
	})
}

// bothWays starts streams between two hosts' containers, and returns once they are fast.
func bothWays(w *world) []*stream {
	a, b := w.hosts[0].containers[0], w.hosts[1].containers[0]
	streams := []*stream{startStream(a, b), startStream(b, a)}
	for _, s := range streams {
		must(w.t, s.awaitFast())
	}
	return streams
}

// stopFast ends streams once they are fast, of which no packet may be lost.
func stopFast(streams []*stream) error {
	for _, s := range streams {
		if err := s.awaitFast(); err != nil {
			return err
		}
	}
	for _, s := range streams {
		if err := s.stop().kept(); err != nil {
			return err
		}
	}
	return nil
}

// goOn is a program of somebody else, which leaves all packets to those behind it.
func (n *node) goOn() *ebpf.Program {
	n.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "another", Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TC_ACT_UNSPEC
	})
	must(n.t, err)
	n.t.Cleanup(func() { p.Close() })
	return p
}

func clsactOn(link netlink.Link) netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}

// qdiscs are those that filters hang below.
func (n *node) qdiscs() (all []netlink.Qdisc) {
	n.t.Helper()
	qdiscs, err := n.netlink.QdiscList(nil)
	must(n.t, err)
	for _, q := range qdiscs {
		if q.Type() == "clsact" {
			all = append(all, q)
		}
	}
	return all
}

// filters are those of the fast path.
func (n *node) filters() []*netlink.BpfFilter {
	n.t.Helper()
	return n.filtersNamed(ip.FastPathFilter)
}

func (n *node) filtersNamed(prefix string) (all []*netlink.BpfFilter) {
	n.t.Helper()
	for _, q := range n.qdiscs() {
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			link, err := n.netlink.LinkByIndex(q.Attrs().LinkIndex)
			must(n.t, err)
			filters, err := n.netlink.FilterList(link, parent)
			must(n.t, err)
			for _, f := range filters {
				if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, prefix) {
					all = append(all, b)
				}
			}
		}
	}
	return all
}

// deviceFilters are what tulled finds that others have hung on links.
func (h *host) deviceFilters() []ip.DeviceFilter {
	h.t.Helper()
	scope := h.backend.Scope(nil)
	scope.Uplinks = []string{uplink}
	snap, err := h.kernel.Snapshot(h.t.Context(), scope)
	must(h.t, err)
	return snap.DeviceFilters
}

// places are where filters hang.
func places(filters []*netlink.BpfFilter) (all []string) {
	for _, f := range filters {
		all = append(all, fmt.Sprintf("%s on %d at %#x, priority %d, handle %d", f.Name, f.LinkIndex, f.Parent, f.Priority, f.Handle))
	}
	return all
}

func programsOf(filters []*netlink.BpfFilter) (ids []int) {
	for _, f := range filters {
		ids = append(ids, f.Id)
	}
	return ids
}
