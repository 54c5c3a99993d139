// Package atomicfile replaces files so that readers, and a power cut, see the old content or the new and nothing between.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Write makes the file at path hold content, with the mode. It creates the directory if it is missing. A symbolic link at path
// is replaced, and what it leads to stays as it is; a directory or a device is not. One process at a time may write a path.
func Write(path string, content []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err := replace(dir, path, content, mode)
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Unwritable reports whether err means that there can be no new file at present, for want of permission or room, and not that something is in its
// way.
func Unwritable(err error) bool {
	return slices.ContainsFunc([]error{syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.ENOSPC, syscall.EDQUOT}, func(e error) bool { return errors.Is(err, e) })
}

func replace(dir, path string, content []byte, mode fs.FileMode) (err error) {
	if info, err := os.Lstat(path); err == nil {
		switch {
		case info.IsDir():
			return errors.New("it is a directory: remove it")
		case info.Mode()&fs.ModeDevice != 0:
			// Whoever gave /dev/null would take it from the whole machine.
			return errors.New("it is a device: give the path of a file")
		}
	}
	if err := Discard(path); err != nil {
		return err
	}
	// The name is one that nobody can know before, and the file is made anew: another user of the directory cannot have
	// put a link or a pipe there. The rename replaces whatever is at path, a link as such.
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+unfinished+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// unfinished is between the name of a file that is being written and a number.
const unfinished = ".new"

// Unfinished returns the name of the file that a Write was to make, if name is that of what it left when it did not come to its end.
func Unfinished(name string) (file string, ok bool) {
	rest, hidden := strings.CutPrefix(name, ".")
	i := strings.LastIndex(rest, unfinished)
	if !hidden || i <= 0 || strings.Trim(rest[i+len(unfinished):], "0123456789") != "" {
		return "", false
	}
	return rest[:i], true
}

// Discard removes what writes of path left that did not come to their end.
func Discard(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	errs := []error{err, dir.Close()}
	for _, name := range names {
		if file, ok := Unfinished(name); !ok || file != filepath.Base(path) {
			continue
		}
		// No write leaves a directory.
		leftover := filepath.Join(filepath.Dir(path), name)
		if info, err := os.Lstat(leftover); err != nil || info.IsDir() {
			continue
		}
		if err := os.Remove(leftover); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// syncDir makes the rename itself survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
