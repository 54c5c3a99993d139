package kernel

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// Where bpf(2) hangs programs on a link, beside the places of tc(8) (linux/bpf.h, enum bpf_attach_type).
const (
	tcxIngress = 46
	tcxEgress  = 47

	mostTCX = 64 // programs at one place (linux/bpf_mprog.h, BPF_MPROG_MAX)
)

// UseBPF tells that bpf(2) may be called, and which programs in the kernel are Tulle's, by their numbers. Otherwise it is not called under a filter of system
// calls, as that of a service of systemd, which might kill the process. It is for before the kernel is used.
func (k *Kernel) UseBPF(own func() map[uint32]bool) { k.programs = own }

// ownPrograms are Tulle's; false if the kernel must not be asked for programs.
func (k *Kernel) ownPrograms() (own map[uint32]bool, ok bool) {
	if k.programs != nil {
		return k.programs(), true
	}
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return nil, err == nil && mode == 0
}

// readTCX finds out whether programs hang on a link by bpf(2), which no netlink message tells. A kernel that does not know this, or keeps it from us,
// has nothing to say. The calling thread must be in the namespace.
func (rd *reading) readTCX(link uint32, name string, own map[uint32]bool) error {
	var programs [mostTCX]uint32
	var pinned runtime.Pinner
	pinned.Pin(&programs)
	defer pinned.Unpin()
	for at, place := range map[string]uint32{"ingress": tcxIngress, "egress": tcxEgress} {
		// What union bpf_attr is with BPF_PROG_QUERY, as far as it is needed.
		query := struct {
			link, place, queryFlags, attachFlags uint32
			programs                             uint64
			count, _                             uint32
			_, _, _, revision                    uint64
		}{link: link, place: place, programs: uint64(uintptr(unsafe.Pointer(&programs))), count: mostTCX}
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), unsafe.Sizeof(query))
		switch {
		case errno == 0 && hasOther(programs[:min(query.count, mostTCX)], own):
			rd.addDeviceFilter(name, "a bpf program (tcx) at "+at, "bpftool net show dev "+ip.ShellWord(name))
		case errno != 0 && !errors.Is(errno, unix.ENOENT) && !errors.Is(errno, unix.ENODEV) && !errors.Is(errno, unix.EPERM) &&
			!errors.Is(errno, unix.EINVAL) && !errors.Is(errno, unix.ENOSYS) && !errors.Is(errno, unix.EOPNOTSUPP):
			return fmt.Errorf("bpf: %w", errno)
		}
	}
	return nil
}

func hasOther(programs []uint32, own map[uint32]bool) bool {
	return slices.ContainsFunc(programs, func(id uint32) bool { return !own[id] })
}
