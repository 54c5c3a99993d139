//go:build linux

package lab_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bpf calls bpf(2).
func bpf[T any](command uintptr, attr *T) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// openPin opens what is pinned at a path.
func openPin(path string) (int, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return 0, err
	}
	fd, err := bpf(unix.BPF_OBJ_GET, &struct {
		name      uint64
		fd, flags uint32
	}{name: uint64(uintptr(unsafe.Pointer(name)))})
	runtime.KeepAlive(name)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

// sever detaches a program, as `bpftool link detach` does.
func sever(path string) error {
	fd, err := openPin(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := bpf(unix.BPF_LINK_DETACH, &struct{ fd uint32 }{uint32(fd)}); err != nil {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	return nil
}

// empty deletes all that a map has; what cannot be deleted it overwrites with zeros.
func empty(path string) error {
	fd, err := openPin(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var info struct{ kind, id, keySize, valueSize, room uint32 } // linux/bpf.h, struct bpf_map_info
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, &struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(unsafe.Sizeof(info)), uint64(uintptr(unsafe.Pointer(&info)))}); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	key, value := make([]byte, info.keySize), make([]byte, info.valueSize)
	element := struct { // of BPF_MAP_*_ELEM and BPF_MAP_GET_NEXT_KEY, where the value is the next key
		fd, _             uint32
		key, value, flags uint64
	}{fd: uint32(fd), key: uint64(uintptr(unsafe.Pointer(&key[0]))), value: uint64(uintptr(unsafe.Pointer(&value[0])))}
	defer runtime.KeepAlive(key)
	defer runtime.KeepAlive(value)
	if info.kind == unix.BPF_MAP_TYPE_ARRAY {
		const used = 64 // of the first elements at most
		for i := range min(info.room, used) {
			*(*uint32)(unsafe.Pointer(&key[0])) = i
			if _, err := bpf(unix.BPF_MAP_UPDATE_ELEM, &element); err != nil {
				return fmt.Errorf("overwrite %s: %w", path, err)
			}
		}
		return nil
	}
	first, gone := element, element
	first.key, first.value, gone.value = 0, element.key, 0
	for {
		if _, err := bpf(unix.BPF_MAP_GET_NEXT_KEY, &first); errors.Is(err, unix.ENOENT) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if _, err := bpf(unix.BPF_MAP_DELETE_ELEM, &gone); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("empty %s: %w", path, err)
		}
	}
}

// each does something to what is pinned under names that match.
func each(pins, pattern string, do func(path string) error) error {
	paths, err := filepath.Glob(filepath.Join(pins, pattern))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("nothing is pinned as %s", filepath.Join(pins, pattern))
	}
	for _, path := range paths {
		if err := do(path); err != nil {
			return err
		}
	}
	return nil
}

// admissionLife is more packets of a stream than it sends while an admission lives.
const admissionLife = 1200

// passesMore waits until so many more packets of a stream have arrived.
func passesMore(t *testing.T, s runningStream, n int) {
	t.Helper()
	before := s.Received()
	if !eventually(healTimeout, func() bool { return s.Received() >= before+n }) {
		t.Errorf("%s: of %d packets %d arrive", s.name, n, s.Received()-before)
	}
}

// Whatever is done to programs and maps behind tulled's back, packets soon are fast again, and none is lost.
func TestFastPathHeals(t *testing.T) {
	const allAtOnce = "all at once"
	for _, backend := range fastBackends() {
		if backend.segments > 1 {
			continue
		}
		l := backend.up(t, nil, 1)
		host, peer := l.Hosts[0], l.Hosts[1]
		pins := pinsOf(t, l, host)
		for _, fault := range []struct {
			name string
			make func() error
		}{
			{"uplink severed", func() error { return each(pins, "link-*uplink", sever) }},
			{"container severed", func() error { return each(pins, "link-*container", sever) }},
			{"links unpinned", func() error { return each(pins, "link-*", os.Remove) }},
			{"flows emptied", func() error { return each(pins, "map-*-flows", empty) }},
			{"subnets emptied", func() error { return each(pins, "map-*-places", empty) }},
			{"peers zeroed", func() error { return each(pins, "map-*-peers", empty) }},
			{"settings zeroed", func() error { return each(pins, "map-*-settings", empty) }},
			{"epoch zeroed", func() error { return each(pins, "map-*-epoch", empty) }},
			{"maps unpinned", func() error { return each(pins, "map-*", os.Remove) }},
			{allAtOnce, func() error {
				return errors.Join(each(pins, "link-*", sever), each(pins, "map-*", func(path string) error {
					if strings.HasSuffix(path, "-counters") {
						return nil
					}
					return empty(path)
				}))
			}},
		} {
			if backend.name != "vxlan" && fault.name != allAtOnce {
				continue
			}
			t.Run(backend.name+"/"+fault.name, func(t *testing.T) {
				streams := fastStreams(t, l, host, peer)
				requireFastStreams(t, fastTime, host, peer)
				if err := fault.make(); err != nil {
					t.Fatal(err)
				}
				requireFastStreams(t, fastTime, host, peer)
				passesMore(t, streams[0], admissionLife) // each flow has had to be admitted anew
				requireFastStreams(t, fastTime, host, peer)
				requireFast(t, host)
				hangs := func() bool {
					return strings.Count(strings.Join(leftOfFastPath(t, l, host), " "), "1 programs") == 4
				}
				pinned := func() bool {
					paths, err := filepath.Glob(filepath.Join(pins, "link-*"))
					return err == nil && len(paths) == 4
				}
				if !eventually(fastTime, func() bool { return hangs() && pinned() }) {
					t.Errorf("%s has %q, want one program at each place, and pins", host, leftOfFastPath(t, l, host))
				}
				// What was made anew outlives tulled as what was there before.
				host.KillDaemon()
				for _, s := range streams {
					if err := s.AwaitNext(t.Context(), healTimeout); err != nil {
						t.Error(err)
					}
				}
				if !hangs() {
					t.Errorf("without tulled %s has %q, want one program at each place", host, leftOfFastPath(t, l, host))
				}
				startTulled(t, host)
				requireFast(t, host)
				requireFastStreams(t, fastTime, host, peer)
				stopAll(t, streams)
			})
		}
	}
}
