//go:build linux

// Package flowtest has flows between containers of two hosts with the fast path, whatever has attached these, and checks what rules of others make of them.
package flowtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

const (
	// echoPort is of what answers with all that it is sent, over TCP and UDP.
	echoPort = 7001

	// timeout is how long a busy machine may take for what is to happen at once.
	timeout = 15 * time.Second

	// flowPeriod is the time between two packets of a flow.
	flowPeriod = time.Millisecond

	// flowBuffer holds seconds of packets, so that a busy machine does not lose what the network has delivered. In bytes.
	flowBuffer = 8 << 20

	// promptly is how long an answer may take of which no packet is lost: TCP repeats one after 200 ms at the earliest, and its first and last ones after 1 s.
	promptly = 180 * time.Millisecond

	// silence is for how long nothing has come when a flow counts as stopped.
	silence = 300 * time.Millisecond
)

// sharing lets several sockets of a container have one port.
func sharing(_, _ string, raw syscall.RawConn) (err error) {
	return errors.Join(raw.Control(func(fd uintptr) {
		for option, value := range map[int]int{unix.SO_REUSEADDR: 1, unix.SO_REUSEPORT: 1, unix.SO_RCVBUFFORCE: flowBuffer} {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, value))
		}
	}), err)
}

// startEcho answers in a container until the test ends.
func startEcho(t testing.TB, c *lab.Container, f ip.Family) {
	t.Helper()
	at, config := netip.AddrPortFrom(c.Addr.Of(f), echoPort).String(), net.ListenConfig{Control: sharing}
	var listener net.Listener
	var packets net.PacketConn
	if err := c.Do(func() (err error) {
		if listener, err = config.Listen(t.Context(), "tcp", at); err != nil {
			return err
		}
		packets, err = config.ListenPacket(t.Context(), "udp", at)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	work.Go(func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			work.Go(func() {
				defer context.AfterFunc(ctx, func() { conn.Close() })() // what the client has ended may not have come
				defer conn.Close()
				// By a buffer: pipes that the kernel copies by would outlive the connection. What does not come back, the client misses.
				_, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
			})
		}
	})
	work.Go(func() {
		for buffer := make([]byte, 2048); ; {
			n, from, err := packets.ReadFrom(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = packets.WriteTo(buffer[:n], from)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		listener.Close()
		packets.Close()
		work.Wait()
	})
}

func dial(t testing.TB, from *lab.Container, network string, port uint16, to netip.AddrPort) net.Conn {
	t.Helper()
	local := netip.AddrPortFrom(from.Addr.Of(ip.FamilyOf(to.Addr())), port)
	dialer := net.Dialer{Timeout: timeout, Control: sharing, LocalAddr: net.TCPAddrFromAddrPort(local)}
	if network == "udp" {
		dialer.LocalAddr = net.UDPAddrFromAddrPort(local)
	}
	var conn net.Conn
	if err := from.Do(func() (err error) {
		conn, err = dialer.DialContext(t.Context(), network, to.String())
		return err
	}); err != nil {
		t.Fatalf("from %s: %v", from, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// flow sends a number each millisecond, whether or not any comes back.
type flow struct {
	network  string
	from, to netip.AddrPort
	conn     net.Conn
	sent     atomic.Int64
	echoed   atomic.Int64 // of those, how many have come back
	last     atomic.Int64 // when one came last, in nanoseconds since 1970
	quiet    func()       // has it send no more
	close    func() error // returns what went wrong
}

func (f *flow) String() string { return fmt.Sprintf("%s %s → %s", f.network, f.from, f.to) }

// names are those of its two directions, on the host of the client or of the server.
func (f *flow) names(server bool) []string {
	protocol := map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[f.network]
	return []string{flowName(server, protocol, f.from, f.to), flowName(!server, protocol, f.to, f.from)}
}

func flowName(in bool, protocol uint8, src, dst netip.AddrPort) string {
	return fmt.Sprintf("in %t protocol %d %s → %s", in, protocol, src, dst)
}

func startFlow(t testing.TB, from *lab.Container, network string, port uint16, to netip.AddrPort) *flow {
	t.Helper()
	f := &flow{network: network, conn: dial(t, from, network, port, to), from: netip.AddrPortFrom(from.Addr.Of(ip.FamilyOf(to.Addr())), port), to: to}
	f.last.Store(time.Now().UnixNano())
	ctx, cancel := context.WithCancel(context.Background())
	var sending, receiving sync.WaitGroup
	var sendError, receiveError error
	mark := rand.Uint64() &^ 0xffffffff // tells its packets from those of others
	sending.Go(func() { sendError = f.send(ctx, mark) })
	receiving.Go(func() { receiveError = f.receive(mark) })
	f.quiet = func() {
		cancel()
		_ = f.conn.SetWriteDeadline(time.Now().Add(timeout)) // it fails if that is over anyway
		sending.Wait()
	}
	f.close = sync.OnceValue(func() error {
		cancel()
		f.conn.Close()
		sending.Wait()
		receiving.Wait()
		return errors.Join(sendError, receiveError)
	})
	t.Cleanup(func() { _ = f.close() })
	return f
}

func (f *flow) send(ctx context.Context, mark uint64) error {
	ticker := time.NewTicker(flowPeriod)
	defer ticker.Stop()
	packet := make([]byte, 8)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		binary.BigEndian.PutUint64(packet, mark+uint64(f.sent.Load()))
		if _, err := f.conn.Write(packet); errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
		f.sent.Add(1)
	}
}

func (f *flow) receive(mark uint64) error {
	packet := make([]byte, 8)
	for {
		if _, err := io.ReadFull(f.conn, packet); errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
		if n := binary.BigEndian.Uint64(packet); n&^0xffffffff != mark {
			return fmt.Errorf("%x comes back, want what begins with %x", n, mark>>32)
		}
		f.last.Store(time.Now().UnixNano())
		f.echoed.Add(1)
	}
}

// stopAll ends flows, of which everything must come back.
func stopAll(t testing.TB, flows []*flow) {
	t.Helper()
	for _, f := range flows {
		f.quiet()
	}
	for _, f := range flows {
		f.await(t, "all come back", func() bool { return f.echoed.Load() == f.sent.Load() })
		if err := f.close(); err != nil {
			t.Errorf("%s: after %d packets: %v", f, f.echoed.Load(), err)
		}
	}
}

// await tries until a deadline.
func (f *flow) await(t testing.TB, what string, try func() bool) {
	t.Helper()
	ticker := time.NewTicker(flowPeriod)
	defer ticker.Stop()
	for deadline := time.Now().Add(timeout); !try(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s: not within %v, %d packets sent, %d have come back", f, what, timeout, f.sent.Load(), f.echoed.Load())
		}
	}
}

// awaitSilence waits until nothing comes back any more, and tells when the last came.
func (f *flow) awaitSilence(t testing.TB) (last time.Time) {
	t.Helper()
	f.await(t, "packets stop", func() bool { last = time.Unix(0, f.last.Load()); return time.Since(last) > silence })
	return last
}

// requireEcho sends random bytes over a connection of its own, and wants the same back.
func requireEcho(t testing.TB, from *lab.Container, port uint16, to netip.AddrPort, size int) {
	t.Helper()
	conn := dial(t, from, "tcp", port, to)
	requireSame(t, conn, size)
	requireEnds(t, conn)
}

func requireSame(t testing.TB, conn net.Conn, size int) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	want, got, sent := sha256.New(), sha256.New(), make(chan error, 1)
	go func() {
		var seed [32]byte
		binary.NativeEndian.PutUint64(seed[:], rand.Uint64())
		_, err := io.CopyN(io.MultiWriter(conn, want), rand.NewChaCha8(seed), int64(size))
		sent <- err
	}()
	n, err := io.CopyN(got, struct{ io.Reader }{conn}, int64(size))
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatalf("%s to %s: %d of %d bytes have come back: %v", conn.LocalAddr(), conn.RemoteAddr(), n, size, err)
	}
	if !bytes.Equal(want.Sum(nil), got.Sum(nil)) {
		t.Errorf("%s to %s: other bytes come back than were sent", conn.LocalAddr(), conn.RemoteAddr())
	}
}

// requireEnds ends a connection there, and has it ended back.
func requireEnds(t testing.TB, conn net.Conn) {
	t.Helper()
	began := time.Now()
	if err := errors.Join(conn.(*net.TCPConn).CloseWrite(), conn.SetDeadline(began.Add(timeout))); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%s to %s: end: %d bytes, %v", conn.LocalAddr(), conn.RemoteAddr(), n, err)
	}
	if took := time.Since(began); took > labtest.Limit(promptly) {
		t.Errorf("%s to %s: the end takes %v, want at most %v", conn.LocalAddr(), conn.RemoteAddr(), took, labtest.Limit(promptly))
	}
	conn.Close()
}
