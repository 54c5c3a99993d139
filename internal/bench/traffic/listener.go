//go:build linux

package traffic

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// backlog is how many connections may wait to be accepted.
const backlog = 128

// listener is the end that traffic is sent to.
type listener struct {
	addr    netip.AddrPort
	kind    Kind
	count   atomic.Uint64
	sockets sockets
	threads sync.WaitGroup
}

// listen returns when what is sent to addr is taken.
func listen(o Order) (*listener, error) {
	l := &listener{kind: o.Kind}
	var serve func(fd int)
	socket := unix.SOCK_STREAM
	switch o.Kind {
	case TCPRoundTrip:
		serve = l.acceptor(func(fd int) { l.spawn(fd, l.echo) })
	case TCPBulk:
		serve = l.acceptor(func(fd int) { l.spawn(fd, l.drain) })
	case TCPConnect:
		serve = l.acceptor(l.greet)
	case UDPRoundTrip:
		serve, socket = l.reflect, unix.SOCK_DGRAM
	case UDPOneWay:
		serve, socket = l.drain, unix.SOCK_DGRAM
	default:
		return nil, fmt.Errorf("kind of traffic is %q, which this end does not know", o.Kind)
	}
	fd, err := newSocket(o.Addr, socket)
	if err != nil {
		return nil, err
	}
	if l.addr, err = bind(fd, o.Addr, socket); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if socket == unix.SOCK_STREAM {
		if err := unix.Listen(fd, backlog); err != nil {
			return nil, errors.Join(fmt.Errorf("listen at %s: %w", l.addr, err), unix.Close(fd))
		}
	}
	if l.sockets.add(fd) {
		l.spawn(fd, serve)
	}
	return l, nil
}

func bind(fd int, to netip.AddrPort, kind int) (bound netip.AddrPort, err error) {
	if kind == unix.SOCK_STREAM {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(to))
	}
	if err != nil {
		return bound, fmt.Errorf("listen at %s: %w", to, err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return bound, fmt.Errorf("listen at %s: %w", to, err)
	}
	return addrPort(name), nil
}

func (l *listener) counted() uint64 { return l.count.Load() }

func (l *listener) close() error {
	l.sockets.end()
	l.threads.Wait()
	return nil
}

// spawn has a thread of its own serve a socket, until its end.
func (l *listener) spawn(fd int, serve func(fd int)) {
	l.threads.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer l.sockets.close(fd)
		serve(fd)
	})
}

func (l *listener) acceptor(serve func(fd int)) func(int) {
	return func(listening int) {
		for {
			fd, _, err := unix.Accept4(listening, unix.SOCK_CLOEXEC)
			switch {
			case err == nil && l.sockets.add(fd):
				serve(fd)
			case err == nil, l.sockets.ended():
				return
			}
		}
	}
}

// echo answers each byte.
func (l *listener) echo(fd int) {
	var buffer [64]byte
	for {
		n, err := read(fd, buffer[:])
		if err != nil || n == 0 {
			return
		}
		if _, err := write(fd, buffer[:n]); err != nil {
			return
		}
		l.count.Add(1)
	}
}

// greet answers one byte, and ends the connection first, so that it is this side's port that stays taken for a while: it is the same each time.
func (l *listener) greet(fd int) {
	defer l.sockets.close(fd)
	var buffer [1]byte
	if n, err := read(fd, buffer[:]); err != nil || n == 0 {
		return
	}
	if _, err := write(fd, buffer[:]); err == nil {
		l.count.Add(1)
	}
}

// reflect answers datagrams of whoever sends the first one.
func (l *listener) reflect(fd int) {
	var buffer [64]byte
	n, from, err := unix.Recvfrom(fd, buffer[:], 0)
	for ; errors.Is(err, unix.EINTR); n, from, err = unix.Recvfrom(fd, buffer[:], 0) {
	}
	if err != nil || from == nil || unix.Connect(fd, from) != nil {
		return
	}
	for {
		// An error is news of an earlier datagram, which its sender misses.
		if _, err := write(fd, buffer[:n]); err == nil {
			l.count.Add(1)
		}
		n, err = read(fd, buffer[:])
		if (err != nil || n == 0) && l.sockets.ended() {
			return
		}
	}
}

// drain counts bytes of a connection, or datagrams.
func (l *listener) drain(fd int) {
	buffer := make([]byte, 256<<10)
	for {
		n, err := read(fd, buffer)
		if l.kind == UDPOneWay {
			if l.sockets.ended() {
				return
			}
			if err == nil {
				l.count.Add(1)
			}
			continue
		}
		if err != nil || n == 0 {
			return
		}
		l.count.Add(uint64(n))
	}
}
