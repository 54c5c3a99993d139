//go:build linux

package netnstest

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// errNoMountPoint says what is missing in a plain chroot.
var errNoMountPoint = errors.New("/ is no mount point, as in a plain chroot, so that what is mounted for a test would show on the machine too: " +
	"bind-mount the new root on itself before (mount --bind DIR DIR && chroot DIR)")

// RequireOwnMounts ends the test unless processes can have mounts of their own, which takes a root that is a mount point. It skips the test, unless
// the environment variable CI is set.
func RequireOwnMounts(t testing.TB) {
	t.Helper()
	var root unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, 0, &root); err != nil {
		t.Fatalf("look at /: %v", err)
	}
	switch {
	case root.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 || root.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0:
	case os.Getenv("CI") != "":
		t.Fatal(errNoMountPoint)
	default:
		t.Skip(errNoMountPoint)
	}
}
