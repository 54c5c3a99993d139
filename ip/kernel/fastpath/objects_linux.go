package fastpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tulle/internal/netns"
)

// layout is another number whenever what maps hold means something else, so that no program reads what an earlier version wrote.
const layout = "2"

const (
	mapPrefix = "map-" + layout + "-"
	flowRoom  = 65536 // FLOWS in maps.h
)

// loader reads the programs.
type loader func() (*ebpf.CollectionSpec, error)

// loadObjects loads programs and maps. Maps that an earlier run has pinned below dir are used again, so that what it has written stays in force.
func loadObjects(load loader, dir string) (*programsObjects, error) {
	spec, err := load()
	if err != nil {
		return nil, err
	}
	var o programsObjects
	options := &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{}}
	defer func() {
		for _, m := range options.MapReplacements {
			m.Close()
		}
	}()
	for name, m := range spec.Maps {
		if dir == "" {
			break
		}
		pinned, err := ebpf.LoadPinnedMap(filepath.Join(dir, mapPrefix+name), nil)
		if err == nil && m.Compatible(pinned) == nil {
			options.MapReplacements[name] = pinned
		} else if err == nil {
			pinned.Close()
		}
	}
	if err := spec.LoadAndAssign(&o, options); err != nil {
		return nil, explain(err)
	}
	if dir == "" {
		return &o, nil
	}
	for name, m := range map[string]*ebpf.Map{
		"settings": o.Settings, "epoch": o.Epoch, "places": o.Places, "peers": o.Peers, "flows": o.Flows, "counters": o.Counters, "stations": o.Stations,
	} {
		if options.MapReplacements[name] != nil {
			continue
		}
		path := filepath.Join(dir, mapPrefix+name)
		if err := errors.Join(remove(path), m.Pin(path)); err != nil {
			o.Close()
			return nil, fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	return &o, nil
}

// explain says of an error of bpf(2) what an operator can do about it.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM): // the library's text guesses at a limit that has not been one since Linux 5.11
		return fmt.Errorf("the kernel does not let tulled load bpf programs: give it CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: %w", unix.EPERM)
	case errors.Is(err, unix.EACCES): // by the verifier
		return fmt.Errorf("the kernel refuses the programs as unsafe: give tulled CAP_PERFMON, without which it refuses more: %w", short(err))
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("this kernel has no bpf: %w", short(err))
	case errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("this kernel lacks what it needs (Linux 5.13 has it): %w", short(err))
	}
	return short(err)
}

// short is an error without the log of the verifier, which may be long.
func short(err error) error {
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		last := ""
		for _, line := range refused.Log {
			if !strings.HasPrefix(line, "processed ") && strings.TrimSpace(line) != "" {
				last = line
			}
		}
		return fmt.Errorf("%w: %s", refused.Cause, last)
	}
	return err
}

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
	sweep(base, dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make directory for pins: %w", err)
	}
	return dir, nil
}

// dirOf is named for the namespace's inode: two that live have different ones.
func dirOf(base string, ns *netns.Namespace) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(ns.FD(), &st); err != nil {
		return "", fmt.Errorf("identify network namespace: %w", err)
	}
	return filepath.Join(base, strconv.FormatUint(st.Ino, 10)), nil
}

// remove deletes a file, if it is there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
