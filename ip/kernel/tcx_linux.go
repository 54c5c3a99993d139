package kernel

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// Where bpf(2) hangs programs on a link, beside the places of tc(8) (linux/bpf.h, enum bpf_attach_type).
const (
	tcxIngress = 46
	tcxEgress  = 47
)

// readTCX finds out whether programs hang on a link by bpf(2), which no netlink message tells. A kernel that does not know this, or keeps it from us,
// has nothing to say. Under a filter of system calls it is not asked: that of a service of systemd would kill the process. The calling thread must be in
// the namespace.
func (rd *reading) readTCX(link uint32, name string) error {
	if mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil || mode != 0 {
		return nil
	}
	for at, place := range map[string]uint32{"ingress": tcxIngress, "egress": tcxEgress} {
		// What union bpf_attr is with BPF_PROG_QUERY, as far as it is needed.
		query := struct {
			link, place, queryFlags, attachFlags uint32
			programs                             uint64 // none is to be listed
			count, _                             uint32
			_, _, _, revision                    uint64
		}{link: link, place: place}
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), unsafe.Sizeof(query))
		switch {
		case errno == 0 && query.count > 0:
			rd.addDeviceFilter(name, "a bpf program (tcx) at "+at, "bpftool net show dev "+ip.ShellWord(name))
		case errno != 0 && !errors.Is(errno, unix.ENOENT) && !errors.Is(errno, unix.ENODEV) && !errors.Is(errno, unix.EPERM) &&
			!errors.Is(errno, unix.EINVAL) && !errors.Is(errno, unix.ENOSYS) && !errors.Is(errno, unix.EOPNOTSUPP):
			return fmt.Errorf("bpf: %w", errno)
		}
	}
	return nil
}
