//go:build linux

package fastpath_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tulle/internal/netns"
	"tulle/ip"
	"tulle/ip/kernel/fastpath"
)

// thorough are worlds with one engine, which looks at everything each time.
func thorough() []config {
	all := append(one(), config{backend: "vxlan", family: ip.IPv4, hook: "clsact", open: fastpath.OpenFilters})
	return with(all, func(c *config) {
		if c.open == nil {
			c.open = fastpath.Open
		}
		c.engines, c.open = 1, fastpath.Thorough(c.open)
	})
}

// What somebody unpins while the daemon runs is pinned again, so that the next one finds it.
func TestPinsAreKept(t *testing.T) {
	for name, unpin := range map[string]func(dir string) error{
		"maps": func(dir string) error {
			pins, err := filepath.Glob(filepath.Join(dir, "map-*"))
			for _, pin := range pins {
				err = errors.Join(err, os.Remove(pin))
			}
			return err
		},
		"all": os.RemoveAll,
	} {
		t.Run(name, func(t *testing.T) {
			holds(t, thorough(), func(w *world) error {
				a := w.hosts[0]
				dir := a.pins()
				before, flows := pinned(dir), mapAt(w.t, dir, "flows")
				if len(before) < 8 {
					return fmt.Errorf("%s has %q, want maps", dir, before)
				}
				s := startStream(a.containers[0], w.hosts[1].containers[0])
				must(w.t, s.awaitFast())
				must(w.t, unpin(dir))
				if !eventually(healTimeout, func() bool { return slices.Equal(pinned(dir), before) }) {
					return fmt.Errorf("%s has %q, want %q: %s", dir, pinned(dir), before, show(a.engine.State()))
				}
				must(w.t, a.engine.stop())
				a.engine = a.start(w.open)
				a.awaitOn()
				if now := mapAt(w.t, dir, "flows"); now != flows {
					return fmt.Errorf("flows are in map %d, want %d, that of the engine before", now, flows)
				}
				return errors.Join(s.awaitFast(), s.stop().kept())
			})
		})
	}
}

// Pins of a namespace that is gone go with a full look, be its programs by tcx or filters, and so do those that an earlier version or another hook has left.
func TestPinsAreSwept(t *testing.T) {
	holds(t, thorough(), func(w *world) error {
		a := w.hosts[0]
		lives := a.pinElsewhere(fastpath.OpenFilters, false) // first: it would get the number of one that has ended
		var left []string
		for _, open := range []func(fastpath.Config) (*fastpath.FastPath, error){fastpath.Open, fastpath.OpenFilters} {
			left = append(left, a.pinElsewhere(open, true))
		}
		for _, name := range []string{"map-1-flows", "link-4711-from_container"} {
			path := filepath.Join(a.pins(), name)
			m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
			must(w.t, err)
			must(w.t, errors.Join(m.Pin(path), m.Close()))
			left = append(left, path)
		}
		for _, path := range left {
			if !eventually(healTimeout, func() bool { _, err := os.Lstat(path); return err != nil }) {
				return fmt.Errorf("%s is left, with %q: %s", path, pinned(path), show(a.engine.State()))
			}
		}
		if n := len(pinned(lives)); n < 8 {
			return fmt.Errorf("of a namespace that lives %q are left in %s, want all", pinned(lives), lives)
		}
		return nil
	})
}

// A namespace that has the number of one that is gone begins anew: what that has admitted is nothing to it.
func TestNumberIsReused(t *testing.T) {
	holds(t, thorough(), func(w *world) error {
		a := w.hosts[0]
		must(w.t, a.engine.stop())
		must(w.t, a.Do(func() error { return fastpath.Remove(a.dir) }))
		gone := a.pinElsewhere(w.open, true)
		epoch := mapAt(w.t, gone, "epoch")
		must(w.t, os.Rename(gone, a.pins()))
		if !eventually(healTimeout, func() bool { return isEmpty(filepath.Join(a.pins(), "home")) }) {
			return errors.New("the namespace does not end")
		}
		a.accelerate()
		if mapAt(w.t, a.pins(), "epoch") == epoch {
			return errors.New("the map is that of the namespace that is gone")
		}
		return nil
	})
}

// pins is where the host's engine pins.
func (h *host) pins() string { return pinsOf(h.t, h.dir, h.FD()) }

func pinsOf(t testing.TB, base string, namespace int) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(namespace, &st))
	return filepath.Join(base, strconv.FormatUint(st.Ino, 10))
}

// pinElsewhere has an engine leave pins of another namespace beside the host's, and returns where. The namespace may end then.
func (h *host) pinElsewhere(open func(fastpath.Config) (*fastpath.FastPath, error), ends bool) (dir string) {
	h.t.Helper()
	n, err := netns.New()
	must(h.t, err)
	end := sync.OnceFunc(func() { must(h.t, n.Close()) })
	h.t.Cleanup(end)
	dir = pinsOf(h.t, h.dir, n.FD())
	var f *fastpath.FastPath
	must(h.t, n.Do(func() (err error) {
		f, err = open(fastpath.Config{Dir: h.dir, Log: testLog(h.t, h.number)})
		return err
	}))
	f.Want(ip.FastPath{Uplinks: []string{"lo"}})
	ctx, cancel := context.WithCancel(h.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	if !eventually(healTimeout, func() bool { return len(pinned(dir)) >= 8 }) {
		h.t.Errorf("%s has %q, want maps, and one more: %s", dir, pinned(dir), show(f.State()))
	}
	cancel()
	<-ended
	must(h.t, f.Close())
	if ends {
		end()
		// The kernel takes namespaces apart one after the other, when it has time.
		if home := filepath.Join(dir, "home"); !eventually(6*healTimeout, func() bool { return isEmpty(home) || len(pinned(dir)) == 0 }) {
			h.t.Errorf("the namespace of %s does not end", dir)
		}
	}
	return dir
}

// pinned are the names of what is pinned in a directory.
func pinned(dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // somebody has deleted it
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// mapAt is the number of a map that is pinned.
func mapAt(t testing.TB, dir, name string) ebpf.MapID {
	t.Helper()
	pins, err := filepath.Glob(filepath.Join(dir, "map-*-"+name))
	if err != nil || len(pins) != 1 {
		t.Fatalf("in %s is pinned as %s: %q (%v)", dir, name, pins, err)
	}
	m, err := ebpf.LoadPinnedMap(pins[0], nil)
	must(t, err)
	defer m.Close()
	info, err := m.Info()
	must(t, err)
	id, _ := info.ID()
	return id
}

// isEmpty reports whether a pinned map of one element has none.
func isEmpty(path string) bool {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return false
	}
	defer m.Close()
	var value uint32
	return errors.Is(m.Lookup(uint32(0), &value), ebpf.ErrKeyNotExist)
}
