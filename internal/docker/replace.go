package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// draft is a file that is to become another one at once.
type draft struct {
	name, path, instead string
	dir                 *os.File // open from the beginning: once the file is placed, only the disk can fail
}

// replace makes the file at path hold content, and be owned, permitted and labelled as the one at like is. instead is what an
// operator can do where that is refused, beside mending it; it may be empty. placed tells whether the file has the content,
// which it may have on an error too.
func replace(path, like, instead string, content []byte) (placed bool, err error) {
	d, err := newDraft(path, like, instead, content)
	if err != nil {
		return false, err
	}
	defer d.discard()
	if err := d.rename(); err != nil {
		return false, err
	}
	return true, d.commit()
}

// newDraft writes content beside path. The draft is like the file at like in all but content; if there is none, root's and
// for everybody to read.
func newDraft(path, like, instead string, content []byte) (d draft, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return d, fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(dir, draftPrefix(path)+"*")
	if err != nil {
		return d, refusedWrite(path, instead, err)
	}
	d = draft{name: f.Name(), path: path, instead: instead}
	if err = d.alone(); err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = liken(f, like)
	}
	if err == nil {
		d.dir, err = os.Open(dir)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		d.discard()
		return d, fmt.Errorf("write %s: %w", path, err)
	}
	return d, nil
}

// alone returns an error if the file that is to be replaced has other names: they would keep what it had before.
func (d draft) alone() error {
	info, err := os.Lstat(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Nlink < 2 {
		return nil
	}
	own := ip.ShellWord(d.path + ".own")
	path := ip.ShellWord(d.path)
	return fmt.Errorf("it has %d names (hard links), of which only this one would change: remove the others (see: find / -samefile %s), or make it a file of its own: cp -a %s %s && mv %s %s%s",
		stat.Nlink, path, path, own, own, path, otherwise(d.instead))
}

// otherwise continues a remedy with another one, if there is one.
func otherwise(instead string) string {
	if instead == "" {
		return ""
	}
	return ", or " + instead
}

// rename puts the draft where it belongs.
func (d draft) rename() error {
	if err := os.Rename(d.name, d.path); err != nil {
		return refusedWrite(d.path, d.instead, err)
	}
	return nil
}

// commit makes a placed draft survive a power cut.
func (d draft) commit() error {
	if err := d.dir.Sync(); err != nil {
		return fmt.Errorf("write %s: it has its new content, which a power cut may undo, for the disk fails (see: dmesg): %w", d.path, err)
	}
	return nil
}

// discard removes what has not been placed.
func (d draft) discard() {
	_ = os.Remove(d.name)
	_ = d.dir.Close()
}

// discardDrafts removes drafts for path of runs that were killed. One process at a time may write a path.
func discardDrafts(path string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find drafts of %s: %w", path, err)
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), draftPrefix(path))
		if !ok || number == "" || strings.Trim(number, "0123456789") != "" || !e.Type().IsRegular() {
			continue
		}
		if err := remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("discard draft of %s: %w", path, err)
		}
	}
	return nil
}

// draftPrefix is what a draft's name has before its number (os.CreateTemp).
func draftPrefix(path string) string { return "." + filepath.Base(path) + ".tulle-" }

// liken gives f the owner, the mode and the extended attributes of the file at path: the last are access control lists,
// labels of SELinux and whatever else somebody has put there.
func liken(f *os.File, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f.Chmod(0o644)
	}
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := f.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
			return fmt.Errorf("keep the owner: %w", err)
		}
	}
	if err := f.Chmod(info.Mode().Perm()); err != nil {
		return fmt.Errorf("keep the mode: %w", err)
	}
	names, err := attribute(func(b []byte) (int, error) { return unix.Listxattr(path, b) })
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	for name := range strings.SplitSeq(string(names), "\x00") {
		if name == "" {
			continue
		}
		value, err := attribute(func(b []byte) (int, error) { return unix.Getxattr(path, name, b) })
		if err == nil {
			err = unix.Fsetxattr(int(f.Fd()), name, value, 0)
		}
		if err != nil {
			return fmt.Errorf("keep the extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// attribute calls read with enough room, of which it tells when it is given none. A file system without extended
// attributes has nothing to read.
func attribute(read func([]byte) (int, error)) ([]byte, error) {
	size, err := read(nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	size, err = read(b)
	return b[:max(size, 0)], err
}

// refusedWrite says why the kernel will not have a file replaced, and what to do about it, or instead.
func refusedWrite(path, instead string, err error) error {
	instead = otherwise(instead)
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("write %s: a file is mounted there, and cannot be replaced where it is mounted: umount %s%s: %w", path, ip.ShellWord(path), instead, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("write %s: its file system is read-only: change the file where it is made%s: %w", path, instead, err)
	case errors.Is(err, unix.EPERM) && os.Geteuid() == 0:
		return fmt.Errorf("write %s: it or its directory is immutable (see: lsattr -d %s %s): chattr -i%s: %w", path, ip.ShellWord(path), ip.ShellWord(filepath.Dir(path)), instead, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("write %s: run this as root: %w", path, err)
	}
	return fmt.Errorf("write %s: %w", path, err)
}
