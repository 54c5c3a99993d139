//go:build linux

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Pin keeps the namespace alive beyond this process by a bind mount on path,
// from which Open returns it. The directory of path is created if absent.
func (ns *Namespace) Pin(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("pin network namespace: %w", err)
	}
	target, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return fmt.Errorf("pin network namespace: %w", err)
	}
	target.Close()
	source := fmt.Sprintf("/proc/self/fd/%d", ns.FD())
	if err := unix.Mount(source, path, "none", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return fmt.Errorf("pin network namespace on %s: %w", path, err)
	}
	return nil
}

// Unpin removes what Pin made at path. It is not an error if nothing is there,
// or a file that a crash left without its mount.
func Unpin(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpin network namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpin network namespace: %w", err)
	}
	return nil
}
