//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tulle/internal/netns"
)

// Remove ends the detached lab with the given name: its processes, links,
// namespaces and files. It works from what is there, not from what was planned,
// so it finishes what a crash or an earlier Remove left. It reports whether
// there was anything to remove.
func Remove(name string) (bool, error) {
	dir := Dir(name)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var errs []error
	pins, err := filepath.Glob(filepath.Join(dir, "ns", "*"))
	errs = append(errs, err)
	for _, pin := range pins {
		errs = append(errs, removePin(pin))
	}
	if s, err := loadState(dir); err == nil && s.EtcdDir != "" {
		errs = append(errs, os.RemoveAll(s.EtcdDir))
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	errs = append(errs, unmountBPF(dir))
	if err := errors.Join(errs...); err != nil {
		// The files stay: they are what a second attempt works from.
		return true, fmt.Errorf("remove lab %s: %w", name, err)
	}
	return true, removeDir(dir)
}

// removePin ends every process in the pinned namespace and takes away its link
// and the pin. Membership of the namespace is what makes a process the lab's:
// unlike a recorded process id it cannot come to mean another process.
func removePin(pin string) error {
	var pinned, own unix.Stat_t
	var fsinfo unix.Statfs_t
	if err := unix.Statfs(pin, &fsinfo); err != nil || fsinfo.Type != unix.NSFS_MAGIC {
		return netns.Unpin(pin)
	}
	if err := errors.Join(unix.Stat(pin, &pinned), unix.Stat("/proc/self/ns/net", &own)); err != nil {
		return fmt.Errorf("inspect namespace %s: %w", pin, err)
	}
	if pinned.Dev == own.Dev && pinned.Ino == own.Ino {
		return fmt.Errorf("%s is the network namespace of this very process", pin)
	}
	if err := killMembers(pinned); err != nil {
		return err
	}
	n, err := openNode(filepath.Base(pin), filepath.Dir(pin))
	if err != nil {
		return err
	}
	if link, err := n.Netlink.LinkByName(uplink); err == nil {
		if err := n.Netlink.LinkDel(link); err != nil {
			return errors.Join(fmt.Errorf("delete link of %s: %w", n, err), n.close())
		}
	}
	return errors.Join(n.close(), netns.Unpin(pin))
}

// killMembers kills every process whose network namespace is ns, and waits for
// their end.
func killMembers(ns unix.Stat_t) error {
	deadline := time.Now().Add(stopTimeout)
	for {
		members, err := openMembers(ns)
		if err != nil || len(members) == 0 {
			return err
		}
		for _, pidfd := range members {
			unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		}
		for _, pidfd := range members {
			wait := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
			unix.Poll(wait, int(max(0, time.Until(deadline).Milliseconds())))
			unix.Close(pidfd)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill processes of the lab: some are still there after %v", stopTimeout)
		}
	}
}

// openMembers returns process descriptors, which the caller closes. They are
// opened before the membership is checked, so that they cannot come to refer to
// another process that was given the same number.
func openMembers(ns unix.Stat_t) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var members []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		var of unix.Stat_t
		// A zombie has no namespace any more, which counts as gone.
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &of) == nil && of.Dev == ns.Dev && of.Ino == ns.Ino {
			members = append(members, pidfd)
		} else {
			unix.Close(pidfd)
		}
	}
	return members, nil
}
