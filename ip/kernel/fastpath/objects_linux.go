package fastpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
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
	for name, m := range o.kept() {
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

// remove deletes a file, if it is there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
