//go:build linux

package traffic

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// openTimeout is how long a connection may take to open. The kernel takes seconds, rounded up to its timers.
	openTimeout = 2 * time.Second
	// hangTimeout is how much longer than it is told traffic may run before it is ended as stuck.
	hangTimeout = 10 * time.Second
	// again is how long a datagram may go without an answer before it is sent again.
	again = 100 * time.Millisecond

	smallSize = 64        // of a datagram of UDPOneWay, bytes
	bulkSize  = 128 << 10 // of what is written at once, bytes
)

// sender is the end that traffic comes from.
type sender struct {
	order   Order
	fds     []int
	sockets sockets
	over    atomic.Bool
}

func open(o Order) (*sender, error) {
	s := &sender{order: o}
	kind := unix.SOCK_STREAM
	switch o.Kind {
	case TCPRoundTrip, TCPConnect:
		s.order.Streams = 1
	case TCPBulk:
		s.order.Streams = max(1, o.Streams)
	case UDPRoundTrip, UDPOneWay:
		s.order.Streams, kind = 1, unix.SOCK_DGRAM
	default:
		return nil, fmt.Errorf("kind of traffic is %q, which this end does not know", o.Kind)
	}
	for range s.order.Streams {
		fd, err := s.connect(kind)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.fds = append(s.fds, fd)
	}
	if o.Kind == TCPConnect { // one was a try: the listener takes the next when it has ended
		if err := exchange(s.fds[0], make([]byte, 1)); err != nil {
			return nil, errors.Join(err, s.close())
		}
		err := s.close()
		s.fds = []int{-1}
		return s, err
	}
	return s, nil
}

func (s *sender) connect(kind int) (int, error) {
	fd, err := newSocket(s.order.Addr, kind)
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(openTimeout.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	if err == nil {
		err = unix.Connect(fd, sockaddr(s.order.Addr))
	}
	if err == nil { // without a limit from here on: it would cost a timer for each call
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{})
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("connect to %s: %w", s.order.Addr, err), unix.Close(fd))
	}
	s.sockets.add(fd)
	return fd, nil
}

func (s *sender) close() error {
	for _, fd := range s.fds {
		if fd >= 0 {
			s.sockets.close(fd)
		}
	}
	s.fds = nil
	return nil
}

// run sends for a while and returns how much.
func (s *sender) run(d time.Duration) (count uint64, took time.Duration, err error) {
	s.over.Store(false)
	began := time.Now()
	defer time.AfterFunc(d, func() { s.over.Store(true) }).Stop()
	defer time.AfterFunc(d+hangTimeout, s.sockets.end).Stop()
	var sum atomic.Uint64
	var threads errgroup.Group
	for _, fd := range s.fds {
		threads.Go(func() error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			n, err := s.send(fd)
			sum.Add(n)
			return err
		})
	}
	err = threads.Wait()
	took = time.Since(began)
	if s.sockets.ended() {
		err = fmt.Errorf("%s: nothing comes through any more after %v", s.order.Kind, took.Round(time.Second))
	}
	return sum.Load(), took, err
}

func (s *sender) send(fd int) (uint64, error) {
	switch s.order.Kind {
	case TCPRoundTrip:
		return s.roundTrips(fd)
	case UDPRoundTrip:
		return s.datagrams(fd)
	case UDPOneWay:
		return s.flood(fd)
	case TCPConnect:
		return s.connections()
	default:
		return s.bulk(fd)
	}
}

func (s *sender) roundTrips(fd int) (n uint64, err error) {
	var buffer [1]byte
	for ; !s.over.Load(); n++ {
		if err := exchange(fd, buffer[:]); err != nil {
			return n, err
		}
	}
	return n, nil
}

// exchange sends a byte over a connection and waits for one.
func exchange(fd int, buffer []byte) error {
	if _, err := write(fd, buffer); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	switch n, err := read(fd, buffer); {
	case err != nil:
		return fmt.Errorf("receive: %w", err)
	case n == 0:
		return errors.New("receive: the connection has ended")
	}
	return nil
}

// datagrams are numbered, so that of one that was sent twice only one answer counts.
func (s *sender) datagrams(fd int) (n uint64, err error) {
	var at atomic.Uint64
	stop := make(chan struct{})
	var resender errgroup.Group
	resender.Go(func() error { resend(fd, &at, stop); return nil })
	defer func() { close(stop); err = errors.Join(err, resender.Wait()) }()
	var buffer [1]byte
	for !s.over.Load() {
		number := byte(at.Add(1))
		buffer[0] = number
		if _, err := write(fd, buffer[:]); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return n, fmt.Errorf("send: %w", err)
		}
		for {
			got, err := read(fd, buffer[:])
			if err != nil {
				return n, fmt.Errorf("receive: %w", err)
			}
			if got == 0 && s.sockets.ended() {
				return n, nil
			}
			if got == 1 && buffer[0] == number {
				break
			}
		}
		n++
	}
	return n, nil
}

// resend sends the datagram again that has had no answer.
func resend(fd int, at *atomic.Uint64, stop <-chan struct{}) {
	ticker := time.NewTicker(again)
	defer ticker.Stop()
	for last := uint64(0); ; last = at.Load() {
		select {
		case <-ticker.C:
		case <-stop:
			return
		}
		if now := at.Load(); now == last && now > 0 {
			_, _ = write(fd, []byte{byte(now)}) // the next tick is the remedy
		}
	}
}

// flood counts what was sent, not what has arrived.
func (s *sender) flood(fd int) (n uint64, err error) {
	var packet [smallSize]byte
	for !s.over.Load() {
		switch _, err := write(fd, packet[:]); {
		case err == nil:
			n++
		case !errors.Is(err, unix.ENOBUFS):
			return n, fmt.Errorf("send: %w", err)
		}
	}
	return n, nil
}

// connections are opened, used once and ended, one after the other.
func (s *sender) connections() (n uint64, err error) {
	to := sockaddr(s.order.Addr)
	domain := unix.AF_INET
	if s.order.Addr.Addr().Is6() {
		domain = unix.AF_INET6
	}
	for ; !s.over.Load(); n++ {
		fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return n, fmt.Errorf("open socket: %w", err)
		}
		if !s.sockets.add(fd) {
			return n, nil
		}
		err = connection(fd, to)
		s.sockets.close(fd)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func connection(fd int, to unix.Sockaddr) error {
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, Congestion); err != nil {
		return fmt.Errorf("set congestion control %s: %w", Congestion, err)
	}
	err := unix.Connect(fd, to)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("connect: %w", err)
	}
	var buffer [1]byte
	if err := exchange(fd, buffer[:]); err != nil {
		return err
	}
	if n, err := read(fd, buffer[:]); err != nil || n != 0 {
		return errors.Join(errors.New("the connection does not end"), err)
	}
	return nil
}

func (s *sender) bulk(fd int) (sent uint64, err error) {
	data := make([]byte, bulkSize)
	for !s.over.Load() {
		n, err := write(fd, data)
		if err != nil {
			return sent, fmt.Errorf("send: %w", err)
		}
		sent += uint64(n)
	}
	return sent, nil
}
