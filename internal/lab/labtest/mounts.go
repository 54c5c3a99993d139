//go:build linux

package labtest

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// mountsEnv marks a process that has mounts of its own.
const mountsEnv = "TULLE_TEST_MOUNTS"

// ownMounts begins the program anew with mounts of its own, so that those of labs go with it however it ends. It returns where it may not.
func ownMounts() {
	if os.Getenv(mountsEnv) != "" {
		return
	}
	refused := make(chan struct{})
	go func() {
		defer close(refused)
		runtime.LockOSThread() // what has other mounts by then ends with this goroutine
		if unix.Unshare(unix.CLONE_NEWNS) == nil && unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") == nil {
			_ = unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), mountsEnv+"=1"))
		}
	}()
	<-refused
}
