package kernel

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// maxBatch is the number of requests in one system call. If all of them fail, their answers of less than 1 KiB
	// each still fit into the receive buffer that an unprivileged process gets.
	maxBatch = 256
	// bufferSize is what the send and receive buffers of a socket are asked to hold, in bytes.
	bufferSize = 4 << 20
	// receiveSize holds the longest datagram of a dump, in bytes.
	receiveSize = 64 << 10
	// dumpAttempts bounds how often a dump is repeated because of changes made while it ran.
	dumpAttempts = 10
	// answerTimeout in seconds is only ever reached through a bug: the kernel answers within the call that asks.
	answerTimeout = 10
)

// socket is a netlink connection to the kernel. It is not safe for concurrent use.
type socket struct {
	fd   int
	port uint32
	seq  uint32
	buf  []byte

	calls   atomic.Uint64  // sends and receives
	lengths map[uint16]int // of the last lists, by type: the next ones are about as long
}

// dial opens a socket in the network namespace of the calling thread.
func dial(protocol int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	s := &socket{fd: fd, buf: make([]byte, receiveSize), lengths: map[uint16]int{}}
	if err := s.setup(); err != nil {
		return nil, errors.Join(fmt.Errorf("set up netlink socket: %w", err), s.close())
	}
	return s, nil
}

func (s *socket) setup() error {
	growBuffers(s.fd)
	// Answers leave out the request, and say in words what is wrong with it.
	for _, option := range []int{unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, option, 1); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTimeout}); err != nil {
		return err
	}
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	port, err := portOf(s.fd)
	s.port = port
	return err
}

// growBuffers asks for large buffers; without CAP_NET_ADMIN over the host the kernel grants less, which also works.
func growBuffers(fd int) {
	for force, unforced := range map[int]int{unix.SO_SNDBUFFORCE: unix.SO_SNDBUF, unix.SO_RCVBUFFORCE: unix.SO_RCVBUF} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bufferSize) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unforced, bufferSize)
		}
	}
}

// portOf is the address that the kernel gave to a bound netlink socket.
func portOf(fd int) (uint32, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	addr, ok := name.(*unix.SockaddrNetlink)
	if !ok {
		return 0, unix.EAFNOSUPPORT
	}
	return addr.Pid, nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// exchange sends the requests of b in one system call. It hands what the kernel answers to answer, with the index of
// the request: a message, or an error. The kernel runs each request whatever became of the others.
func (s *socket) exchange(b *batch, answer func(i int, m message, err error)) error {
	count := uint32(len(b.starts))
	if count == 0 {
		return nil
	}
	first := s.seq + 1
	s.seq += count
	b.seal(first)
	if err := s.send(b.buf); err != nil {
		return err
	}
	for {
		datagram, err := s.receive()
		if err != nil {
			return err
		}
		for m := range messages(datagram) {
			i := m.seq - first
			if i >= count {
				continue // left over from an exchange that broke off
			}
			if m.typ != unix.NLMSG_ERROR {
				answer(int(i), m, nil)
				continue
			}
			if err := m.err(); err != nil {
				answer(int(i), message{}, err)
			}
			if i == count-1 {
				return nil
			}
		}
	}
}

// dump sends a request for a list and parses each element of the answer; parse says which to keep.
func dump[T any](s *socket, typ uint16, header []byte, parse func(message) (T, bool)) ([]T, error) {
	return retry(func() ([]T, error) {
		list := make([]T, 0, s.lengths[typ])
		err := s.list(typ, header, func(m message) {
			if v, ok := parse(m); ok {
				list = append(roomier(list), v)
			}
		})
		s.lengths[typ] = len(list)
		return list, err
	})
}

// roomier returns a list of unknown length with room for one more at least. append alone would have a long one grow by a quarter each time, and copy it
// four times over.
func roomier[T any](list []T) []T {
	const least = 64
	if len(list) < cap(list) {
		return list
	}
	return slices.Grow(list, max(len(list)+1, least))
}

// list sends a request for a list once and calls element with each part of the answer, which is only valid until that returns.
func (s *socket) list(typ uint16, header []byte, element func(message)) error {
	var b batch
	b.begin(typ, unix.NLM_F_DUMP, header...)
	s.seq++
	b.seal(s.seq)
	if err := s.send(b.buf); err != nil {
		return err
	}
	var interrupted error
	for {
		datagram, err := s.receive()
		if err != nil {
			return err
		}
		for m := range messages(datagram) {
			if m.seq != s.seq {
				continue
			}
			if m.flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = netlink.ErrDumpInterrupted
			}
			if m.typ == unix.NLMSG_DONE || m.typ == unix.NLMSG_ERROR {
				return errors.Join(m.err(), interrupted)
			}
			element(m)
		}
	}
}

// retry repeats a listing that changes made meanwhile may have left incomplete. Every listing goes through it.
func retry[T any](list func() (T, error)) (T, error) {
	for attempt := 1; ; attempt++ {
		v, err := list()
		if attempt == dumpAttempts || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return v, err
		}
	}
}

func (s *socket) send(b []byte) error {
	s.calls.Add(1)
	if err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send netlink request: %w", err)
	}
	return nil
}

func (s *socket) receive() ([]byte, error) {
	for {
		s.calls.Add(1)
		n, err := unix.Read(s.fd, s.buf)
		if err == nil {
			return s.buf[:n], nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("receive netlink answer: %w", err)
		}
	}
}
