package fastpath

import (
	"errors"
	"runtime"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// chain is what hangs at one place of a link by tcx, in order, as far as there is room for it here.
type chain struct {
	programs, links [chainRoom]uint32
	length          int
}

// chainRoom is for more programs than anybody has at one place.
const chainRoom = 8

// readChain lists them. All places are looked at each second: the library would allocate, and ask twice.
func readChain(h hook) (c chain, err error) {
	var pinned runtime.Pinner
	pinned.Pin(&c)
	defer pinned.Unpin()
	// What union bpf_attr is with BPF_PROG_QUERY.
	request := struct {
		link, place, flags, attachFlags uint32
		programs                        uint64
		count, _                        uint32
		programFlags, links, linkFlags  uint64
		revision                        uint64
	}{
		link: h.link, place: uint32(place(h)), count: chainRoom,
		programs: uint64(uintptr(unsafe.Pointer(&c.programs))), links: uint64(uintptr(unsafe.Pointer(&c.links))),
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&request)), unsafe.Sizeof(request))
	runtime.KeepAlive(&request)
	if c.length = int(request.count); errno != 0 && !errors.Is(errno, unix.ENOSPC) { // with which it has told of the first
		return c, errno
	}
	return c, nil
}

// has reports whether a link hangs there, with a program.
func (c *chain) has(id link.ID, p program) bool {
	for i := range min(c.length, chainRoom) {
		if c.links[i] == uint32(id) {
			return c.programs[i] == uint32(p.id)
		}
	}
	return false
}

// strange reports whether something hangs there that is none of some links.
func (c *chain) strange(own map[link.ID]bool) bool {
	return c.length > chainRoom || slices.ContainsFunc(c.links[:c.length], func(id uint32) bool { return !own[link.ID(id)] })
}
