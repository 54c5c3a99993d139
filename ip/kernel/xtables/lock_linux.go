package xtables

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"tulle/internal/backoff"
	"tulle/internal/regularfile"
)

// LockFile is what iptables-legacy holds a lock on while it works (flock(2)).
const LockFile = "/run/xtables.lock"

// lockTimeout bounds how long others may hold the lock; iptables holds it for milliseconds.
const lockTimeout = time.Second

// Lock takes the lock of iptables-legacy and returns a function that gives it back.
func Lock(ctx context.Context) (unlock func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	file, err := regularfile.MakeTarget(LockFile, 0o600)
	if err != nil {
		return nil, err
	}
	retry := backoff.Backoff{First: 5 * time.Millisecond, Most: 100 * time.Millisecond}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || retry.Wait(ctx) != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", LockFile, err), file.Close())
		}
	}
}

// Watch calls notify whenever somebody has held the lock: the kernel does not tell of changes of these tables. It returns
// ctx's error when that ends.
func Watch(ctx context.Context, notify func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch %s: %w", LockFile, err)
	}
	file := os.NewFile(uintptr(fd), "inotify")
	defer file.Close()
	// The directory is watched, because the file is made when the lock is first taken.
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(LockFile), unix.IN_CLOSE); err != nil {
		return fmt.Errorf("watch %s: %w", LockFile, err)
	}
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 4096)
	for {
		n, err := file.Read(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", LockFile, err)
		}
		if concerns(buf[:n]) {
			notify()
		}
	}
}

// concerns reports whether one of the events, struct inotify_event, is about the lock, or tells that some were lost.
func concerns(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[4:])
		end := min(len(events), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(events[12:])))
		name := bytes.TrimRight(events[unix.SizeofInotifyEvent:end], "\x00")
		if mask&unix.IN_Q_OVERFLOW != 0 || string(name) == filepath.Base(LockFile) {
			return true
		}
		events = events[end:]
	}
	return false
}
