//go:build linux

// Package netns creates, enters and pins Linux network namespaces.
package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"tulle/internal/regularfile"
)

// Namespace is a network namespace kept alive by an open file descriptor.
// Its methods may be called from any goroutine until Close.
type Namespace struct {
	file *os.File
}

// New creates an unnamed namespace with its loopback device up. It ceases to
// exist after Close, once no process, socket or pin refers to it. Without
// CAP_SYS_ADMIN the error satisfies errors.Is(err, fs.ErrPermission).
func New() (*Namespace, error) {
	var ns *Namespace
	err := onDisposableThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create network namespace: %w", err)
		}
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
		var err error
		ns, err = Open(threadNamespace)
		return err
	})
	return ns, err
}

// threadNamespace names the namespace of the calling thread; /proc/self would
// name the one of the process's first thread.
const threadNamespace = "/proc/thread-self/ns/net"

// Open returns the namespace at path: a pin, or /proc/PID/ns/net.
func Open(path string) (*Namespace, error) {
	file, err := regularfile.OpenTarget(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &Namespace{file: file}, nil
}

// Current returns the namespace of the calling thread.
func Current() (*Namespace, error) { return Open(threadNamespace) }

// FD is the descriptor of the namespace, valid until Close.
func (ns *Namespace) FD() int { return int(ns.file.Fd()) }

// Cookie returns a number that no other namespace gets until the next boot, unlike that of its inode (SO_NETNS_COOKIE). Before
// Linux 5.14 the error is ENOPROTOOPT.
func (ns *Namespace) Cookie() (cookie uint64, err error) {
	err = ns.Do(func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		if cookie, err = unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
			return fmt.Errorf("read cookie of network namespace: %w", err)
		}
		return nil
	})
	return cookie, err
}

// Close drops the reference that keeps an unpinned, unused namespace alive.
func (ns *Namespace) Close() error { return ns.file.Close() }

// Do runs fn inside the namespace: on the calling thread if that is in it, else on an OS thread of its own, which takes
// CAP_SYS_ADMIN. It returns fn's error. Sockets and processes made by fn stay in the namespace; goroutines started by fn
// do not run in it.
func (ns *Namespace) Do(fn func() error) error {
	if done, err := ns.here(fn); done {
		return err
	}
	return onDisposableThread(func() error {
		if err := unix.Setns(ns.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// here runs fn if the calling thread is in the namespace.
func (ns *Namespace) here(fn func() error) (done bool, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	current, err := os.Stat(threadNamespace)
	if err != nil {
		return false, nil
	}
	wanted, err := ns.file.Stat()
	if err != nil || !os.SameFile(current, wanted) {
		return false, nil
	}
	return true, fn()
}

// onDisposableThread runs fn on a locked thread, then puts that thread back
// into the namespace where it was. A thread that cannot be put back stays
// locked, and the runtime destroys it together with its goroutine.
func onDisposableThread(fn func() error) error {
	// Buffered and sent by defer: an fn that ends with runtime.Goexit, as
	// testing's FailNow does, must not block the caller for ever.
	result := make(chan error, 1)
	go func() {
		err := fmt.Errorf("leave network namespace: goroutine ended early")
		defer func() { result <- err }()

		runtime.LockOSThread()
		origin, openErr := os.Open(threadNamespace)
		if openErr != nil {
			err = fmt.Errorf("open network namespace: %w", openErr)
			return
		}
		defer origin.Close()
		defer func() {
			if unix.Setns(int(origin.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = fn()
	}()
	return <-result
}

// loopbackUp sets IFF_UP on lo in the namespace of the calling thread.
func loopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}
