//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// A probe is a UDP datagram of the full size that the MTU of its container
// allows, with fragmentation forbidden: what works for it works for any traffic.
// Its payload is an 8-byte number, and zeros. The answer repeats the number and
// then tells the source address that the responder saw.
const (
	probePort    = 7 // echo, RFC 862
	probeTimeout = 250 * time.Millisecond
	udpOverhead  = 8
)

// headerSize is the size of an IP header without options, in bytes.
func headerSize(family ip.Family) int {
	if family == ip.IPv4 {
		return 20
	}
	return 40
}

// listen opens a UDP socket in a container, which never fragments.
func (c *Container) listen(family ip.Family, port uint16) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := c.Do(func() (err error) {
		local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.Addr.Of(family), port))
		conn, err = net.ListenUDP("udp", local)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open socket in %s: %w", c, err)
	}
	if err := forbidFragments(conn, family); err != nil {
		return nil, errors.Join(fmt.Errorf("set up socket in %s: %w", c, err), conn.Close())
	}
	return conn, nil
}

func forbidFragments(conn syscall.Conn, family ip.Family) error {
	return setOption(conn, func(fd int) error {
		if family == ip.IPv4 {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	})
}

func setOption(conn syscall.Conn, set func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	if err := raw.Control(func(fd uintptr) { setErr = set(int(fd)) }); err != nil {
		return err
	}
	return setErr
}

// respond answers probes until conn is closed.
func respond(conn *net.UDPConn) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 8 {
			continue
		}
		clear(buffer[8:n])
		copy(buffer[8:n], from.Addr().Unmap().String())
		// A lost answer is the prober's to notice.
		_, _ = conn.WriteToUDPAddrPort(buffer[:n], from)
	}
}

// prober sends probes from one container to another.
type prober struct {
	conn   *net.UDPConn
	from   netip.Addr
	to     netip.AddrPort
	buffer []byte
	next   uint64
}

func newProber(from, to *Container, family ip.Family) (*prober, error) {
	conn, err := from.listen(family, 0)
	if err != nil {
		return nil, err
	}
	return &prober{
		conn:   conn,
		from:   from.Addr.Of(family),
		to:     netip.AddrPortFrom(to.Addr.Of(family), probePort),
		buffer: make([]byte, from.mtu-headerSize(family)-udpOverhead),
	}, nil
}

// probe measures one round trip.
func (p *prober) probe() (time.Duration, error) {
	p.next++
	binary.BigEndian.PutUint64(p.buffer, p.next)
	clear(p.buffer[8:])
	start := time.Now()
	if err := p.conn.SetDeadline(start.Add(probeTimeout)); err != nil {
		return 0, err
	}
	if _, err := p.conn.WriteToUDPAddrPort(p.buffer, p.to); err != nil {
		return 0, sendError(err, len(p.buffer))
	}
	for {
		n, _, err := p.conn.ReadFromUDPAddrPort(p.buffer)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) {
			return 0, err
		}
		if err != nil {
			return 0, errors.New("no answer")
		}
		took := time.Since(start)
		if n < 8 || binary.BigEndian.Uint64(p.buffer) != p.next {
			continue // an answer to an earlier probe
		}
		if seen := string(bytes.TrimRight(p.buffer[8:n], "\x00")); seen != p.from.String() {
			return 0, fmt.Errorf("source arrived as %s", seen)
		}
		return took, nil
	}
}

func sendError(err error, size int) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("path MTU is below a datagram of %d bytes", size)
	case errors.As(err, &errno):
		return errno
	default:
		return err
	}
}

// reach probes until there is an answer, ctx ends or until is past.
func (p *prober) reach(ctx context.Context, until time.Time) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		_, err := p.probe()
		if err == nil || time.Now().After(until) {
			return err
		}
		// A refused send returns at once: do not spin.
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// median measures n round trips and returns the median.
func (p *prober) median(n int) (time.Duration, error) {
	times := make([]time.Duration, n)
	for i := range times {
		took, err := p.probe()
		if err != nil {
			return 0, err
		}
		times[i] = took
	}
	slices.Sort(times)
	return times[n/2], nil
}

// startResponders answers probes in every container, in every family, until
// stop is called.
func (l *Lab) startResponders() (stop func(), err error) {
	var running sync.WaitGroup
	var conns []*net.UDPConn
	stop = func() {
		for _, conn := range conns {
			conn.Close()
		}
		running.Wait()
	}
	for _, container := range l.Containers() {
		for _, family := range l.Config.Families {
			conn, err := container.listen(family, probePort)
			if err != nil {
				stop()
				return nil, err
			}
			conns = append(conns, conn)
			running.Go(func() { respond(conn) })
		}
	}
	return stop, nil
}
