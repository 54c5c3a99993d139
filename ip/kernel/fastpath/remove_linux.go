package fastpath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"tulle/internal/netns"
)

// Remove takes away what an earlier run has left in the network namespace of the calling thread: programs, and pins below dir. Where there is nothing it does nothing.
func Remove(dir string) error {
	if dir == "" { // nothing is pinned, and the working directory is nobody's to tidy up
		return removeFilters()
	}
	ns, err := netns.Current()
	if err != nil {
		return err
	}
	defer ns.Close()
	own, err := dirOf(dir, ns)
	if err != nil {
		return err
	}
	err = errors.Join(removeFilters(), detachPinned(own), os.RemoveAll(own))
	if entries, readErr := os.ReadDir(dir); readErr == nil && len(entries) == 0 {
		if failed := remove(dir); !errors.Is(failed, unix.EBUSY) { // the bpffs may be mounted there
			err = errors.Join(err, failed)
		}
	}
	return err
}

// detachPinned takes away the programs of links that are pinned below dir. With their pins alone they would go as well, and some time later.
func detachPinned(dir string) error {
	pins, err := filepath.Glob(filepath.Join(dir, linkPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, pin := range pins {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			continue // it is no link, or is gone
		}
		errs = append(errs, detachNow(l), l.Close())
	}
	return errors.Join(errs...)
}

// detachNow takes the program of a link away, if it hangs anywhere.
func detachNow(l link.Link) error {
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detach: %w", err)
	}
	return nil
}

// Left reports whether there is something that Remove would take away.
func Left(dir string) (bool, error) {
	ns, err := netns.Current()
	if err != nil {
		return false, err
	}
	defer ns.Close()
	own, err := dirOf(dir, ns)
	if err != nil {
		return false, err
	}
	if _, err := os.Lstat(own); err == nil {
		return true, nil
	}
	return filtersLeft()
}
