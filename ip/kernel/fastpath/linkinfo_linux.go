package fastpath

import (
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// linkInfo is what the kernel says of a link by tcx (linux/bpf.h, struct bpf_link_info). All links are looked at each second: the library would allocate, and ask
// twice.
type linkInfo struct {
	kind, id, program, _ uint32
	link, place          uint32
	_                    [40]byte
}

func readLinkInfo(fd int) (info linkInfo, err error) {
	var pinned runtime.Pinner
	pinned.Pin(&info)
	defer pinned.Unpin()
	// What union bpf_attr is with BPF_OBJ_GET_INFO_BY_FD.
	request := struct {
		fd, length uint32
		info       uint64
	}{uint32(fd), uint32(unsafe.Sizeof(info)), uint64(uintptr(unsafe.Pointer(&info)))}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, uintptr(unsafe.Pointer(&request)), unsafe.Sizeof(request)); errno != 0 {
		return info, errno
	}
	return info, nil
}

// hangs reports whether the link is there, on that hook; its index is 0 once that is gone, or somebody has severed it.
func (i linkInfo) hangs(h hook) bool {
	return i.kind == unix.BPF_LINK_TYPE_TCX && i.link == h.link && ebpf.AttachType(i.place) == place(h)
}
