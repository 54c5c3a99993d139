//go:build linux

package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tulle/internal/regularfile"
)

// lockTimeout bounds the wait for another process that works on the attachment: about the longest that the bridge plugin waits for a port.
const (
	lockTimeout = 5 * time.Second
	lockEvery   = 5 * time.Millisecond
)

// lockSuffix ends the name of the file that a process locks while it works on an attachment.
const lockSuffix = ".lock"

func (s states) lockPath(a attachment) string {
	return filepath.Join(s.dir, "."+filepath.Base(s.path(a))+lockSuffix)
}

// lockOf returns the name of the state file whose lock has that name.
func lockOf(name string) (file string, ok bool) {
	rest, hidden := strings.CutPrefix(name, ".")
	file, suffixed := strings.CutSuffix(rest, lockSuffix)
	return file, hidden && suffixed
}

// lock waits until no other process works on an attachment, and keeps them from it until the file is closed; unlock also removes it. Delegates
// inherit it: if the plugin is killed, one that goes on working keeps the lock until it is done. Without a directory for
// states the error wraps fs.ErrNotExist.
func (s states) lock(ctx context.Context, a attachment) (*os.File, error) {
	path := s.lockPath(a)
	for {
		file, err := regularfile.Make(path, 0o600)
		if err != nil {
			return nil, err
		}
		if err := awaitLock(ctx, file); err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
		// Who held the lock has removed the file, and a third may have made another one: that one counts.
		held, err := file.Stat()
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		if now, err := os.Lstat(path); err == nil && os.SameFile(held, now) {
			return file, nil
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
}

// unlock lets others work on an attachment.
func (p *Plugin) unlock(file *os.File) {
	if err := errors.Join(removeFile(file.Name()), file.Close()); err != nil {
		p.remark("unlock: %v", err)
	}
}

func awaitLock(ctx context.Context, file *os.File) error {
	fd := int(file.Fd())
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another command, or a delegate, is still at work on the attachment after %v", lockTimeout)
		case <-time.After(lockEvery):
		}
	}
}

// absent reports whether an error tells that there is no such file; of a name that is too long there can be none.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENAMETOOLONG)
}
