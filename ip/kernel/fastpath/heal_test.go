//go:build linux

package fastpath_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"tulle/ip/kernel/fastpath"
)

// healLimit is how long flows may be slow after somebody has meddled with the fast path: two looks.
const healLimit = 2500 * time.Millisecond

// What somebody else severs, replaces or empties is as wanted again soon, and no packet is lost meanwhile.
func TestSeveredLinks(t *testing.T) {
	for name, meddle := range map[string]func(*host){
		"links are detached": func(h *host) {
			h.eachLink(func(l link.Link) { must(h.t, l.Detach()) })
		},
		"programs are replaced": func(h *host) {
			other := h.program(tcNext)
			h.eachLink(func(l link.Link) { must(h.t, l.Update(other)) })
		},
		"maps are emptied": (*host).emptyMaps,
	} {
		t.Run(name, func(t *testing.T) {
			holds(t, withLinks(), func(w *world) error { return heals(w, meddle) })
		})
	}
	t.Run("filters are deleted", func(t *testing.T) {
		holds(t, some(kinds(), func(c config) bool { return c.hook == "clsact" }), func(w *world) error {
			return heals(w, func(h *host) {
				for _, name := range h.links() {
					h.eachFilter(name, func(f netlink.Filter) { must(h.t, h.netlink.FilterDel(f)) })
				}
			})
		})
	})
}

// withLinks are the kinds in which programs hang by links of bpf(2).
func withLinks() []config { return some(kinds(), func(c config) bool { return c.hook == "" }) }

func heals(w *world, meddle func(*host)) error {
	a, b := w.hosts[0], w.hosts[1]
	there, back := startStream(a.containers[0], b.containers[0]), startStream(b.containers[0], a.containers[0])
	for _, s := range []*stream{there, back} {
		must(w.t, s.awaitFast())
	}
	meddle(a)
	begin := time.Now()
	for _, s := range []*stream{there, back} {
		if err := s.awaitFastBy(healTimeout); err != nil {
			return err
		}
	}
	// That packets are fast is seen when one more is.
	if d := time.Since(begin); d > healLimit {
		return fmt.Errorf("flows are fast again after %v, want %v", d, healLimit)
	}
	return errors.Join(there.stop().kept(), back.stop().kept())
}

// hooksOf lists what hangs on a link by tcx.
func (h *host) hooksOf(name string) (all []link.AttachedProgram) {
	h.t.Helper()
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		must(h.t, h.Do(func() error {
			result, err := link.QueryPrograms(link.QueryOptions{Target: h.link(name).Attrs().Index, Attach: at})
			if err == nil {
				all = append(all, result.Programs...)
			}
			return err
		}))
	}
	return all
}

// observeAtDevice hangs the program of the uplink's egress on the tunnel's device as well.
func (h *host) observeAtDevice() {
	h.t.Helper()
	for _, attached := range h.hooksOf(uplink) {
		p, err := ebpf.NewProgramFromID(attached.ID)
		must(h.t, err)
		info, err := p.Info()
		must(h.t, err)
		if info.Name != "to_uplink" {
			must(h.t, p.Close())
			continue
		}
		h.t.Cleanup(func() { p.Close() })
		must(h.t, h.Do(func() error {
			l, err := link.AttachTCX(link.TCXOptions{Interface: h.link(h.want.Links[0].Name).Attrs().Index, Program: p, Attach: ebpf.AttachTCXEgress})
			if err == nil {
				h.t.Cleanup(func() { l.Close() })
			}
			return err
		}))
		return
	}
	h.t.Fatal("no program hangs on the egress of the uplink")
}

// links are those that the engine works on.
func (h *host) links() []string {
	names := []string{uplink}
	for _, c := range h.containers {
		names = append(names, c.port)
	}
	return names
}

func (h *host) eachLink(do func(link.Link)) {
	h.t.Helper()
	for _, name := range h.links() {
		for _, p := range h.hooksOf(name) {
			id, ok := p.LinkID()
			if !ok {
				h.t.Fatalf("a program on %s hangs by no link", name)
			}
			l, err := link.NewFromID(id)
			must(h.t, err)
			do(l)
			must(h.t, l.Close())
		}
	}
}

// emptyMaps clears all that the programs have.
func (h *host) emptyMaps() {
	h.t.Helper()
	seen := map[ebpf.MapID]bool{}
	for _, name := range h.links() {
		for _, attached := range h.hooksOf(name) {
			p, err := ebpf.NewProgramFromID(attached.ID)
			must(h.t, err)
			info, err := p.Info()
			must(h.t, err)
			ids, _ := info.MapIDs()
			for _, id := range ids {
				if !seen[id] {
					seen[id] = true
					h.emptyMap(id)
				}
			}
			must(h.t, p.Close())
		}
	}
	if len(seen) == 0 {
		h.t.Fatal("the programs have no maps")
	}
}

func (h *host) emptyMap(id ebpf.MapID) {
	h.t.Helper()
	m, err := ebpf.NewMapFromID(id)
	must(h.t, err)
	defer m.Close()
	var keys [][]byte
	var key []byte
	for {
		var next []byte
		if err := m.NextKey(nextOf(key), &next); err != nil {
			break
		}
		keys, key = append(keys, slices.Clone(next)), next
	}
	for _, key := range keys {
		switch m.Type() {
		case ebpf.Array:
			_ = m.Put(key, make([]byte, m.ValueSize())) // one that is read-only keeps what it has
		case ebpf.PerCPUArray:
		default:
			if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				h.t.Fatal(err)
			}
		}
	}
}

func nextOf(key []byte) any {
	if key == nil {
		return nil
	}
	return key
}

// The daemon ends and begins again under streams, and loses no packet. What is pinned, or hangs by clsact, goes on meanwhile.
func TestRestart(t *testing.T) {
	holds(t, kinds(), func(w *world) error {
		a := w.hosts[0]
		return w.underTraffic(func(going func(slow int) error) error {
			for range 3 {
				must(w.t, a.engine.stop())
				if err := going(50); err != nil {
					return fmt.Errorf("stopped: %w", err)
				}
				a.engine = a.start(w.open)
				a.awaitOn()
				if err := going(50); err != nil {
					return fmt.Errorf("started again: %w", err)
				}
			}
			return nil
		})
	})
}

// The daemon is killed and begins again.
func TestKilled(t *testing.T) {
	holds(t, withLinks(), func(w *world) error {
		a := w.hosts[0]
		return w.underTraffic(func(going func(slow int) error) error {
			must(w.t, a.engine.stop())
			for range 3 {
				p := a.startProcess()
				if err := going(50); err != nil {
					return fmt.Errorf("in a process of its own: %w", err)
				}
				p.kill()
				if err := going(50); err != nil {
					return fmt.Errorf("killed: %w", err)
				}
			}
			a.engine = a.start(w.open)
			a.awaitOn()
			return going(50)
		})
	})
}

// Without the daemon, rules still bite with the end of an admission.
func TestRulesBiteWithoutDaemon(t *testing.T) {
	holds(t, kinds(), func(w *world) error {
		s := startStream(w.hosts[0].containers[0], w.hosts[1].containers[0])
		must(w.t, s.awaitFast())
		for _, h := range w.hosts {
			must(w.t, h.engine.stop())
		}
		w.hosts[0].dropIn("type filter hook forward priority 0; FAMILY saddr " + s.from.Addr().String() + " drop")
		done := time.Now()
		last, err := s.awaitSilence(silence, healTimeout)
		if late := last.Sub(done); err == nil && late > changeLimit {
			err = fmt.Errorf("packets still arrive after %v, want %v", late, changeLimit)
		}
		return err
	})
}

// underTraffic does something while packets go both ways, of which none may be lost. going checks that a thousand more go, at most so many of them slow.
func (w *world) underTraffic(do func(going func(slow int) error) error) error {
	a, b := w.hosts[0], w.hosts[1]
	witness := a.witness(udpOfLength(streamLength))
	there, back := startStream(a.containers[0], b.containers[0]), startStream(b.containers[0], a.containers[0])
	for _, s := range []*stream{there, back} {
		must(w.t, s.awaitFast())
	}
	conn, err := connect(a.containers[1], b.containers[1], 0, netip.AddrPort{}, 0)
	must(w.t, err)
	trips := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		_, _, err := conn.roundTripsUntil(ended)
		trips <- err
	}()
	err = do(func(slow int) error {
		before := witness.count(w.family)
		there.awaitSent(1000)
		if err := errors.Join(there.awaitMore(1), back.awaitMore(1)); err != nil {
			return err
		}
		if n := witness.count(w.family) - before; n > slow {
			return fmt.Errorf("%d of 2000 packets and more are slow, want at most %d", n, slow)
		}
		return nil
	})
	close(ended)
	return errors.Join(err, <-trips, there.stop().kept(), back.stop().kept())
}

// A pause keeps all packets on the plain path until it ends, or somebody ends it.
func TestPause(t *testing.T) {
	holds(t, kinds(), func(w *world) error {
		a := w.hosts[0]
		s := startStream(a.containers[0], w.hosts[1].containers[0])
		must(w.t, s.awaitFast())
		paused := func(d time.Duration) error {
			must(w.t, a.engine.Pause(d))
			if !eventually(healTimeout, func() bool {
				before := a.engine.State().Out.FastPackets
				s.awaitSent(200)
				return a.engine.State().Out.FastPackets == before
			}) {
				return errors.New("packets are fast in spite of the pause")
			}
			return nil
		}
		if flows, err := a.engine.Flows(); err != nil || len(flows) == 0 {
			return fmt.Errorf("flows %v, %v, want that of the stream", flows, err)
		}
		if err := paused(time.Hour); err != nil {
			return err
		}
		if flows, err := a.engine.Flows(); err != nil || len(flows) > 0 {
			return fmt.Errorf("flows %v, %v, want none in a pause", flows, err)
		}
		must(w.t, a.engine.CountFlows())
		if st := a.engine.State(); st.Fill == 0 || st.Fill > st.Room {
			return fmt.Errorf("there are %d flows in room for %d", st.Fill, st.Room)
		}
		if left := a.engine.State().Paused; left < 50*time.Minute {
			return fmt.Errorf("the state tells of a pause of %v more, want an hour", left)
		}
		must(w.t, a.engine.Pause(0))
		if err := s.awaitFast(); err != nil {
			return fmt.Errorf("the pause has been ended: %w", err)
		}
		if err := paused(time.Second); err != nil {
			return err
		}
		if err := s.awaitFast(); err != nil {
			return fmt.Errorf("the pause has ended: %w", err)
		}
		return s.stop().kept()
	})
}

// A flush has the next packet of each flow go through the stack.
func TestFlush(t *testing.T) {
	holds(t, one(), func(w *world) error {
		a := w.hosts[0]
		witness := a.witness(udpOfLength(streamLength))
		s := startStream(a.containers[0], w.hosts[1].containers[0])
		must(w.t, s.awaitFast())
		before := witness.count(w.family)
		const number = 50
		for range number {
			must(w.t, a.engine.Flush())
			must(w.t, s.awaitMore(4)) // some may have been on their way
		}
		if n := witness.count(w.family) - before; n < number {
			return fmt.Errorf("%d packets are slow after %d flushes", n, number)
		}
		return s.stop().kept()
	})
}

// A packet that is in the stack while the epoch is raised keeps no flow slow.
func TestFlushKeepsNoFlowSlow(t *testing.T) {
	holds(t, kinds(), func(w *world) error {
		var streams []*stream
		for range 8 {
			streams = append(streams, startStream(w.hosts[0].containers[0], w.hosts[1].containers[0]))
		}
		for _, s := range streams {
			must(w.t, s.awaitFast())
		}
		counted := func() (slow, raised uint64) {
			for _, h := range w.hosts {
				st := h.engine.State()
				slow += st.In.SlowPackets + st.Out.SlowPackets
				for _, n := range st.Raised {
					raised += n
				}
			}
			return slow, raised
		}
		rounds := 8
		if testing.Short() { // as under the race detector, which sees nothing of the programs in the kernel
			rounds = 2
		}
		for range rounds {
			for range 50 { // a flow that is fast has no packet in the stack
				for _, h := range w.hosts {
					must(w.t, h.engine.Flush())
				}
			}
			from := time.Now()
			slow, raised := counted()
			const sent = 400
			for _, s := range streams {
				s.awaitSent(sent)
			}
			nowSlow, nowRaised := counted()
			// Tests beside this one use iptables, which ends admissions here too; each also ends by itself after a second, on both hosts.
			ends := nowRaised - raised + uint64(2*time.Since(from).Seconds())
			if n := nowSlow - slow; n > sent/2+2*ends*uint64(len(streams)) {
				return fmt.Errorf("%d packets of %d flows were slow after a flush, while each sent some %d and admissions ended %d times", n, len(streams), sent, ends)
			}
		}
		return nil
	})
}

// Nothing is left of the fast path once it is removed, and no packet is lost.
func TestRemove(t *testing.T) {
	holds(t, kinds(), func(w *world) error {
		a := w.hosts[0]
		s := startStream(a.containers[0], w.hosts[1].containers[0])
		must(w.t, s.awaitFast())
		must(w.t, a.engine.stop())
		must(w.t, a.Do(func() error { return fastpath.Remove(a.dir) }))
		for _, name := range a.links() {
			if left := len(a.hooksOf(name)); left > 0 { // tulled may look at once
				return fmt.Errorf("%d programs hang on %s", left, name)
			}
			qdiscs, err := a.netlink.QdiscList(a.link(name))
			must(w.t, err)
			for _, q := range qdiscs {
				if q.Type() != "noqueue" {
					return fmt.Errorf("%s has the queueing discipline %s", name, q.Type())
				}
			}
		}
		err := filepath.WalkDir(a.dir, func(path string, _ os.DirEntry, err error) error {
			if err == nil && path != a.dir {
				return fmt.Errorf("%s is left", path)
			}
			return nil
		})
		if err != nil {
			return err
		}
		must(w.t, s.awaitMore(500))
		if r := s.stop(); w.hook != "clsact" { // the kernel loses packets where such a qdisc comes or goes (qdisc_graft deactivates the device)
			return r.kept()
		}
		return nil
	})
}
