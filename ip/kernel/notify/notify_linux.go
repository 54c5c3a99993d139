package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// longest is the longest datagram, in bytes.
	longest = 64 << 10

	// bufferSize is asked for: what finds no room in it is lost. In bytes.
	bufferSize = 4 << 20
)

// Socket is a subscription to notifications (netlink(7)).
type Socket struct {
	fd    int
	ready *os.File // an epoll(7) that tells once that there are some, and then no more until it is armed again
}

// Listen joins multicast groups of a netlink protocol in the network namespace of the calling thread.
func Listen(protocol int, groups ...int) (_ *Socket, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	s := &Socket{fd: fd}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize) != nil { // without CAP_NET_ADMIN over the host
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferSize) // less is granted, which also works
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, g := range groups {
		err = errors.Join(err, s.Join(g))
	}
	if err != nil {
		return nil, fmt.Errorf("join netlink groups: %w", err)
	}
	ready, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wait for netlink socket: %w", err)
	}
	err = unix.SetNonblock(ready, true) // so that waiting for it takes no thread
	s.ready = os.NewFile(uintptr(ready), "epoll")
	if err == nil {
		err = s.arm(unix.EPOLL_CTL_ADD)
	}
	if err != nil {
		return nil, fmt.Errorf("wait for netlink socket: %w", err)
	}
	return s, nil
}

// Join joins another group.
func (s *Socket) Join(group int) error {
	return unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
}

// Close ends the subscription.
func (s *Socket) Close() {
	_ = unix.Close(s.fd)
	if s.ready != nil {
		_ = s.ready.Close()
	}
}

// Run calls each with every datagram, and with nil where the kernel has dropped some, and done after all that there were. What comes after silence is read at
// once, what comes after that together, once in a pause: others may cause thousands per second, and waking up costs more than looking at one does. Pauses end at
// the same moments for all sockets, so that one wake-up serves several; the first may be shorter. The error is ctx's own if that ended, or what each returned.
func (s *Socket) Run(ctx context.Context, pause time.Duration, each func(datagram []byte) error, done func()) error {
	defer context.AfterFunc(ctx, func() { _ = s.ready.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, longest)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		err := s.wait()
		if err == nil {
			err = s.receive(ctx, buf, each)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return err
		}
		done()
		timer.Reset(untilNext(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.arm(unix.EPOLL_CTL_MOD); err != nil {
			return err
		}
	}
}

// untilNext is for how long it is until the next multiple of a pause.
func untilNext(pause time.Duration) time.Duration {
	if pause <= 0 {
		return 0
	}
	return pause - time.Duration(time.Now().UnixNano())%pause
}

// arm has ready tell of the next notification, or of one that is there.
func (s *Socket) arm(op int) error {
	raw, err := s.ready.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(ready uintptr) {
		err = unix.EpollCtl(int(ready), op, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(s.fd)})
	})
	return errors.Join(controlErr, err)
}

// wait returns when there are notifications.
func (s *Socket) wait() error {
	raw, err := s.ready.SyscallConn()
	if err != nil {
		return err
	}
	readErr := raw.Read(func(ready uintptr) bool {
		var n int
		n, err = unix.EpollWait(int(ready), make([]unix.EpollEvent, 1), 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	return errors.Join(readErr, err)
}

// receive takes all notifications that there are.
func (s *Socket) receive(ctx context.Context, buf []byte, each func([]byte) error) error {
	for ctx.Err() == nil {
		n, err := unix.Read(s.fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ENOBUFS):
			err = each(nil)
		case errors.Is(err, unix.EINTR):
			err = nil
		case err == nil:
			err = each(buf[:n])
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
