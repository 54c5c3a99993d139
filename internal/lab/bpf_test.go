//go:build linux

package lab_test

import (
	"errors"
	"net"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"tulle/internal/lab"
)

// Where a program may hang on a link (linux/bpf.h, enum bpf_attach_type).
const (
	onXDP        = 37
	onTCXIngress = 46
	onTCXEgress  = 47
)

// hangOn hangs a program that passes everything on a link of a host, until it is taken away.
func hangOn(t *testing.T, host *lab.Host, link string, place uint32) (takeAway func()) {
	t.Helper()
	programType, verdict, flags := uint32(unix.BPF_PROG_TYPE_SCHED_CLS), uint64(0), uint32(0) // TC_ACT_OK
	if place == onXDP {
		programType, verdict, flags = unix.BPF_PROG_TYPE_XDP, 2, unix.XDP_FLAGS_SKB_MODE // XDP_PASS
	}
	program := [2]uint64{0xb7 | verdict<<32, 0x95} // return verdict
	license := [4]byte{'G', 'P', 'L'}
	load := struct {
		programType, instructions uint32
		program, license          uintptr
	}{programType, uint32(len(program)), uintptr(unsafe.Pointer(&program)), uintptr(unsafe.Pointer(&license))}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	runtime.KeepAlive(&program)
	runtime.KeepAlive(&license)
	if errno != 0 {
		t.Fatalf("load a program: %v", errno)
	}
	defer unix.Close(int(fd))
	var hung uintptr
	if err := host.Do(func() error {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		create := struct{ program, link, place, flags uint32 }{uint32(fd), uint32(i.Index), place, flags}
		if hung, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_CREATE, uintptr(unsafe.Pointer(&create)), unsafe.Sizeof(create)); errno != 0 {
			return errno
		}
		return nil
	}); err != nil {
		t.Fatalf("hang a program on %s: %v", link, err)
	}
	return func() {
		if err := unix.Close(int(hung)); err != nil && !errors.Is(err, unix.EBADF) {
			t.Error(err)
		}
	}
}
