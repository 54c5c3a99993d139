package fastpath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"tulle/internal/netns"
)

// homePin is a map that has a link of the namespace, for as long as there is one: by it others see that what is pinned beside it is of use to nobody any more.
const homePin = "home"

// bpfMagic is the type of a bpffs (linux/magic.h, BPF_FS_MAGIC).
const bpfMagic = 0xcafe4a11

// pinDir makes the directory for what is pinned for a namespace, and takes away those of namespaces that are gone.
func pinDir(base string, ns *netns.Namespace) (string, error) {
	if base == "" {
		return "", errors.New("no directory for pins is set")
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", fmt.Errorf("make %s: %w: mount a bpffs there: mount -t bpf bpf /sys/fs/bpf", base, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(base, &st); err != nil {
		return "", fmt.Errorf("look at %s: %w", base, err)
	}
	if st.Type != bpfMagic {
		_ = os.Remove(base) // if it has just been made
		return "", fmt.Errorf("%s is not on a bpffs: mount one: mount -t bpf bpf /sys/fs/bpf", base)
	}
	dir, err := dirOf(base, ns)
	if err != nil {
		return "", err
	}
	sweep(base)
	if err := makeDir(dir); err != nil {
		return "", err
	}
	return dir, nil
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory for pins: %w", err)
	}
	return nil
}

// dirOf is named for the namespace's inode: two that live have different ones.
func dirOf(base string, ns *netns.Namespace) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(ns.FD(), &st); err != nil {
		return "", fmt.Errorf("identify network namespace: %w", err)
	}
	return filepath.Join(base, strconv.FormatUint(st.Ino, 10)), nil
}

// kept are the maps that are pinned, by name.
func (o *programsObjects) kept() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		"settings": o.Settings, "epoch": o.Epoch, "places": o.Places, "peers": o.Peers, "flows": o.Flows, "counters": o.Counters, "stations": o.Stations,
	}
}

// keepPins pins what somebody has unpinned. The calling thread is in the namespace.
func (f *FastPath) keepPins() error {
	if f.dir == "" {
		return nil
	}
	if err := makeDir(f.dir); err != nil {
		return err
	}
	var errs []error
	for name, m := range f.objects.kept() {
		if path := filepath.Join(f.dir, mapPrefix+name); !exists(path) {
			errs = append(errs, pinAgain(m, path))
		}
	}
	if path := filepath.Join(f.dir, homePin); !exists(path) {
		errs = append(errs, pinHome(path))
	}
	return errors.Join(errs...)
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// pinAgain pins a map by another descriptor: of one that has been pinned the library believes that it still is.
func pinAgain(m *ebpf.Map, path string) error {
	again, err := m.Clone()
	if err != nil {
		return err
	}
	defer again.Close()
	if err := again.Pin(path); err != nil {
		return fmt.Errorf("pin map again: %w", err)
	}
	return nil
}

// pinHome pins a map with the loopback link of the calling thread's namespace. The kernel takes a link out of such a map when it goes (kernel/bpf/devmap.c), as all do
// with their namespace, and nobody can delete this one before.
func pinHome(path string) error {
	home, err := ebpf.NewMap(&ebpf.MapSpec{Name: homePin, Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make map of links: %w", short(err))
	}
	defer home.Close()
	if err := home.Put(uint32(0), uint32(loopback)); err != nil {
		return fmt.Errorf("write map of links: %w", err)
	}
	if err := home.Pin(path); err != nil {
		return fmt.Errorf("pin map of links: %w", err)
	}
	return nil
}

// sweep takes away the pins of namespaces that are gone, whose numbers others may have by now.
func sweep(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return // what stays takes memory and does nothing
	}
	for _, e := range entries {
		dir := filepath.Join(base, e.Name())
		if _, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && isAbandoned(dir) {
			_ = os.RemoveAll(dir)
		}
	}
}

// isAbandoned reports whether the namespace is gone that something is pinned for.
func isAbandoned(dir string) bool {
	home, err := ebpf.LoadPinnedMap(filepath.Join(dir, homePin), nil)
	if err != nil {
		return isSevered(dir)
	}
	defer home.Close()
	var index uint32
	return errors.Is(home.Lookup(uint32(0), &index), ebpf.ErrKeyNotExist)
}

// isSevered reports whether links are pinned there, and none of them hangs anywhere: all that earlier versions can be told by.
func isSevered(dir string) bool {
	pins, err := filepath.Glob(filepath.Join(dir, linkPrefix+"*"))
	if err != nil || len(pins) == 0 {
		return false
	}
	for _, pin := range pins {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			return false
		}
		info, err := l.Info()
		l.Close()
		if err != nil || info.TCX() == nil || info.TCX().Ifindex != 0 {
			return false
		}
	}
	return true
}

// forgetPins takes away what is pinned in a directory and is neither a link that stays nor a map that is used.
func forgetPins(dir string, kept func(hook) bool) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		h, ok := parsePin(e.Name())
		if ok && kept(h) || e.Name() == homePin || strings.HasPrefix(e.Name(), mapPrefix) {
			continue
		}
		errs = append(errs, remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
