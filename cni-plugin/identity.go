//go:build linux

package cniplugin

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"tulle/internal/netns"
	"tulle/internal/regularfile"
)

// bootIDFile tells one boot from another (random(4)).
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// netnsID tells a network namespace from all others, earlier and later ones; empty if there is none at path. The kernel gives the
// inode of a namespace that is gone to another, soon after a reboot above all: it counts only where the kernel, before Linux 5.14, shows
// no cookie.
func netnsID(path string) string {
	inode := netnsInode(path)
	if inode == "" {
		return ""
	}
	boot, err := regularfile.Read(bootIDFile, 64)
	if err != nil {
		return ""
	}
	id := strings.TrimSpace(string(boot)) + "/"
	ns, err := netns.Open(path)
	if err != nil {
		return ""
	}
	defer ns.Close()
	if cookie, err := ns.Cookie(); err == nil {
		return fmt.Sprintf("%scookie:%d", id, cookie)
	}
	return id + inode
}

// netnsInode is what earlier versions took for the identity of a namespace.
func netnsInode(path string) string {
	var st unix.Stat_t
	if path == "" || unix.Stat(path, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// sameNetns reports whether the namespace of the ADD is still where it was.
func (r record) sameNetns() bool { return r.isNetns(r.Netns) }

// isNetns reports whether the namespace at path is that of the ADD. Of an attachment that an earlier version made, it may be
// another one with the inode of the first.
func (r record) isNetns(path string) bool {
	if r.NetnsID == "" {
		return false
	}
	if !strings.Contains(r.NetnsID, "/") {
		return netnsInode(path) == r.NetnsID
	}
	return netnsID(path) == r.NetnsID
}
