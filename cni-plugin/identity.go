//go:build linux

package cniplugin

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"tulle/internal/netns"
	"tulle/internal/regularfile"
)

// bootIDFile tells one boot from another (random(4)).
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// netnsID tells a network namespace from all others, earlier and later ones; empty if there is none at path, such as in the file that a
// namespace was pinned to. The kernel gives the
// inode of a namespace that is gone to another, soon after a reboot above all: it counts only where the kernel, before Linux 5.14, shows
// no cookie.
func netnsID(path string) (string, error) {
	inode := netnsInode(path)
	if inode == "" {
		return "", nil
	}
	boot, err := regularfile.Read(bootIDFile, 64)
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(boot)) + "/"
	ns, err := netns.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, regularfile.ErrUnfit) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer ns.Close()
	switch cookie, err := ns.Cookie(); {
	case err == nil:
		return fmt.Sprintf("%scookie:%d", id, cookie), nil
	case errors.Is(err, unix.ENOPROTOOPT):
		return id + inode, nil
	case errors.Is(err, unix.EINVAL): // setns(2) of another file
		return "", nil
	default:
		return "", err
	}
}

// netnsInode is what earlier versions took for the identity of a namespace.
func netnsInode(path string) string {
	var st unix.Stat_t
	if path == "" || unix.Stat(path, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// isNetns reports whether the namespace at path is that of the ADD; an error says that it cannot be told. Of an attachment that an
// earlier version made, it may be another one with the inode of the first.
func (r record) isNetns(path string) (bool, error) {
	if r.NetnsID == "" {
		return false, nil
	}
	if !strings.Contains(r.NetnsID, "/") {
		return netnsInode(path) == r.NetnsID, nil
	}
	id, err := netnsID(path)
	return id == r.NetnsID, err
}
