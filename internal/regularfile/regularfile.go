// Package regularfile reads files in directories that others may write to. A named pipe, a device or a file of gigabytes
// in the place of a file costs its reader an error: opening never waits, and reading ends.
package regularfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrUnfit is wrapped by errors that say that what is at a path can be no file of the kind that belongs there: it is not a
// regular file, or it is too large.
var ErrUnfit = errors.New("remove it, or put a regular file of the right content there")

// Open opens the regular file at path, which must not be a symbolic link, for reading. The directory may be reached through links.
func Open(path string) (*os.File, error) { return open(path, os.Lstat, os.O_RDONLY|noFollow, 0) }

// OpenTarget is Open for a path that an operator or another program chose: symbolic links are followed, since the file may be
// kept elsewhere.
func OpenTarget(path string) (*os.File, error) { return open(path, os.Stat, os.O_RDONLY, 0) }

// Make is Open, and makes an empty file with the mode if there is none.
func Make(path string, mode fs.FileMode) (*os.File, error) {
	return open(path, os.Lstat, os.O_RDONLY|os.O_CREATE|noFollow, mode)
}

// MakeTarget is OpenTarget, and makes an empty file with the mode if there is none.
func MakeTarget(path string, mode fs.FileMode) (*os.File, error) {
	return open(path, os.Stat, os.O_RDONLY|os.O_CREATE, mode)
}

// Create makes a file to write to, where nothing is: what lies there is neither opened nor followed, and the error wraps fs.ErrExist (O_EXCL, open(2)).
func Create(path string, mode fs.FileMode) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

// Read returns the content of the regular file at path, which must not be a symbolic link. More than most bytes are an error.
func Read(path string, most int64) ([]byte, error) { return read(Open, path, most) }

// ReadTarget is Read for a path that an operator or another program chose: symbolic links are followed.
func ReadTarget(path string, most int64) ([]byte, error) { return read(OpenTarget, path, most) }

func open(path string, stat func(string) (fs.FileInfo, error), flags int, mode fs.FileMode) (*os.File, error) {
	// To open a device may set it going, so it is looked at first. Without O_NONBLOCK, a named pipe that comes in between would
	// make open(2) wait for a writer; that it came is seen in the open file.
	if info, err := stat(path); err == nil {
		if err := check(path, info); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(path, flags|nonBlock, mode)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = check(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func check(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("%s is a %s and no regular file: %w", path, kind(info.Mode()), ErrUnfit)
}

func kind(mode fs.FileMode) string {
	switch mode.Type() {
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symbolic link"
	case fs.ModeNamedPipe:
		return "named pipe"
	case fs.ModeSocket:
		return "socket"
	}
	return "device"
}

func read(open func(string) (*os.File, error), path string, most int64) (content []byte, err error) {
	file, err := open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	// Files of procfs have no size, and others may grow.
	if info.Size() <= most {
		content, err = io.ReadAll(io.LimitReader(file, most+1))
	}
	switch {
	case err != nil:
		return nil, err
	case max(info.Size(), int64(len(content))) > most:
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that it may have: %w", path, max(info.Size(), int64(len(content))), most, ErrUnfit)
	}
	return content, nil
}
