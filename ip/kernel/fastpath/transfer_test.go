//go:build linux

package fastpath_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// transferTimeout is how long a transfer may take.
const transferTimeout = time.Minute

// connection is one of TCP.
type connection struct {
	client, server *net.TCPConn
}

// connect makes a connection between two containers. By is the address that leads to the server, and from the client's port; zero: its own, any.
func connect(from, to *container, port uint16, by netip.AddrPort, local uint16) (connection, error) {
	from.t.Helper()
	var listener net.Listener
	must(from.t, to.Do(func() (err error) {
		listener, err = reusing().Listen(from.t.Context(), "tcp", netip.AddrPortFrom(to.addr, port).String())
		return err
	}))
	defer listener.Close()
	if !by.IsValid() {
		by = listener.Addr().(*net.TCPAddr).AddrPort()
	}
	dialer := net.Dialer{Timeout: healTimeout, Control: reusing().Control, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.addr, local))}
	var client net.Conn
	if err := from.Do(func() (err error) {
		client, err = dialer.DialContext(from.t.Context(), "tcp", by.String())
		return err
	}); err != nil {
		return connection{}, err
	}
	from.t.Cleanup(func() { client.Close() })
	if err := listener.(*net.TCPListener).SetDeadline(time.Now().Add(healTimeout)); err != nil {
		return connection{}, err
	}
	server, err := listener.Accept()
	if err != nil {
		return connection{}, err
	}
	from.t.Cleanup(func() { server.Close() })
	return connection{client.(*net.TCPConn), server.(*net.TCPConn)}, nil
}

// reusing lets several sockets have one port.
func reusing() *net.ListenConfig {
	return &net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) error {
		var refused error
		err := raw.Control(func(fd uintptr) {
			refused = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
			if strings.HasPrefix(network, "udp") {
				refused = errors.Join(refused, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
				level, options := unix.IPPROTO_IPV6, []int{unix.IPV6_RECVHOPLIMIT, unix.IPV6_RECVTCLASS}
				if network == "udp4" {
					level, options = unix.IPPROTO_IP, []int{unix.IP_RECVTTL, unix.IP_RECVTOS}
				}
				for _, o := range options {
					refused = errors.Join(refused, unix.SetsockoptInt(int(fd), level, o, 1))
				}
				// More than the system's limit needs a privilege that a user namespace does not give; the limit suffices for slower streams.
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, streamBuffer)
			}
		})
		return errors.Join(err, refused)
	}}
}

// ends are those of the flow from the client to the server.
func (c connection) ends() (client, server netip.AddrPort) {
	at := func(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }
	return at(c.client.LocalAddr()), at(c.client.RemoteAddr())
}

// transfer sends random bytes from one end to the other, and compares what arrives.
func transfer(from, to *net.TCPConn, size int) error {
	deadline := time.Now().Add(transferTimeout)
	if err := errors.Join(from.SetDeadline(deadline), to.SetDeadline(deadline)); err != nil {
		return err
	}
	sent := make(chan error, 1)
	want, got := sha256.New(), sha256.New()
	go func() {
		random := rand.NewChaCha8([32]byte{byte(size)})
		_, err := io.Copy(io.MultiWriter(from, want), io.LimitReader(random, int64(size)))
		sent <- err
	}()
	n, err := io.CopyN(got, to, int64(size))
	if err := errors.Join(err, <-sent); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, size, err)
	}
	if string(want.Sum(nil)) != string(got.Sum(nil)) {
		return fmt.Errorf("other bytes arrive than are sent, of %d", size)
	}
	return nil
}

// roundTrips sends a byte there and back, again and again, for as long, and returns how often.
func (c connection) roundTrips(duration time.Duration) (n int, err error) {
	ended := make(chan struct{})
	defer time.AfterFunc(duration, func() { close(ended) }).Stop()
	_, n, err = c.roundTripsUntil(ended)
	return n, err
}

// roundTripsUntil does so until a channel is closed, and tells the longest time that a round trip took.
func (c connection) roundTripsUntil(ended <-chan struct{}) (longest time.Duration, n int, err error) {
	echoed := make(chan error, 1)
	go func() {
		// As plain reader and writer: else each byte takes a pipe (splice(2)), which the race detector's pool forgets now and then, until there are no more files.
		in, out := struct{ io.Reader }{c.server}, struct{ io.Writer }{c.server}
		_, err := io.CopyN(out, in, 1)
		for err == nil {
			_, err = io.CopyN(out, in, 1)
		}
		echoed <- err
	}()
	buffer := make([]byte, 1)
	for ; !isClosed(ended); n++ {
		start := time.Now()
		if err := c.client.SetDeadline(start.Add(healTimeout)); err != nil {
			return longest, n, err
		}
		buffer[0] = byte(n)
		if _, err := c.client.Write(buffer); err != nil {
			return longest, n, err
		}
		if _, err := io.ReadFull(c.client, buffer); err != nil {
			return longest, n, fmt.Errorf("round trip %d: %w", n, err)
		}
		if buffer[0] != byte(n) {
			return longest, n, fmt.Errorf("round trip %d: %d comes back", n, buffer[0])
		}
		longest = max(longest, time.Since(start))
	}
	if err := c.client.CloseWrite(); err != nil {
		return longest, n, err
	}
	if err := <-echoed; !errors.Is(err, io.EOF) {
		return longest, n, err
	}
	return longest, n, nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
