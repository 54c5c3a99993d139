//go:build linux

package fastpath_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

const (
	// streamPeriod is the time between two packets of a stream.
	streamPeriod = 500 * time.Microsecond

	// streamLength is the payload of a stream's packets, in bytes. Packets of another length are told from them by it.
	streamLength = 16

	// drainTime is how long the last packets of a stream may be under way, after those before them.
	drainTime = 500 * time.Millisecond

	// streamBuffer holds seconds of packets, so that a busy machine does not lose what the network has delivered. In bytes.
	streamBuffer = 8 << 20
)

// stream is a one-way stream of numbered UDP packets. A packet's number tells when it was sent.
type stream struct {
	t                  *testing.T
	src, dst           *container
	from, to           netip.AddrPort
	outgoing, incoming *net.UDPConn
	sent               atomic.Uint64 // number of the last packet
	highest            atomic.Uint64 // number of those received
	received           atomic.Int64
	finish             func() streamReport

	mu       sync.Mutex
	arrivals []arrival
}

// arrival is a packet that has come.
type arrival struct {
	number uint64
	at     time.Time // by the kernel's clock
	length int
	header string // what the IP header said
}

// streamReport is what became of a stream.
type streamReport struct {
	Sent, Lost, Twice, Reordered int

	longestGap time.Duration
	lastLost   uint64 // number
	sendError  error
}

func (r streamReport) String() string {
	text := fmt.Sprintf("%d sent, %d lost (the last is %d), %d came twice, %d out of order, longest gap %v",
		r.Sent, r.Lost, r.lastLost, r.Twice, r.Reordered, r.longestGap.Round(time.Microsecond))
	if r.sendError != nil {
		text += ", first send error: " + r.sendError.Error()
	}
	return text
}

// kept is an error unless each packet came once, and in order. On a busy machine one that waits for its turn in the stack may be overtaken by the first
// that is fast.
func (r streamReport) kept() error {
	if r.Lost > 0 || r.Twice > 0 || r.Reordered > r.Sent/1000 {
		return fmt.Errorf("a stream of packets: %s", r)
	}
	return nil
}

// startStream starts a stream between two containers once a first packet, which does not count, has passed. The kernel chooses the ports, unless
// they are given: the receiver's, the sender's.
func startStream(from, to *container, ports ...uint16) *stream {
	from.t.Helper()
	ports = append(ports, 0, 0)
	incoming, outgoing := listen(to, ports[0]), listen(from, ports[1])
	must(from.t, greet(outgoing, incoming))
	return startUnheard(from, to, outgoing, incoming)
}

// greet sends packets of no number until one arrives.
func greet(outgoing, incoming *net.UDPConn) error {
	last := fmt.Errorf("no packet from %s arrives at %s", addrOf(outgoing), addrOf(incoming))
	if !eventually(healTimeout, func() bool {
		if _, err := outgoing.WriteToUDPAddrPort([]byte("?"), addrOf(incoming)); err != nil {
			last = err
			return false
		}
		if err := incoming.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			last = err
		}
		_, err := incoming.Read(make([]byte, 1))
		return err == nil
	}) {
		return last
	}
	return incoming.SetReadDeadline(time.Time{})
}

// startUnheard starts a stream of which nothing may arrive.
func startUnheard(from, to *container, outgoing, incoming *net.UDPConn) *stream {
	s := &stream{t: from.t, src: from, dst: to, outgoing: outgoing, incoming: incoming, from: addrOf(outgoing), to: addrOf(incoming)}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	var sendError error
	work.Go(func() { sendError = s.send(ctx) })
	received := make(chan struct{})
	go func() {
		defer close(received)
		s.receive()
	}()
	s.finish = sync.OnceValue(func() streamReport {
		cancel()
		work.Wait()
		last, since := s.received.Load(), time.Now()
		eventually(healTimeout, func() bool {
			if now := s.received.Load(); now != last {
				last, since = now, time.Now()
			}
			return last >= int64(s.sent.Load()) || time.Since(since) > drainTime
		})
		s.incoming.Close()
		<-received
		s.outgoing.Close()
		return s.report(sendError)
	})
	from.t.Cleanup(func() { s.finish() })
	return s
}

// stop ends the stream, waits for packets under way, and reports. To call it again returns the same report.
func (s *stream) stop() streamReport { return s.finish() }

func (s *stream) send(ctx context.Context) (failed error) {
	ticker := time.NewTicker(streamPeriod)
	defer ticker.Stop()
	packet := make([]byte, streamLength)
	for started := time.Now(); ; {
		select {
		case <-ctx.Done():
			return failed
		case <-ticker.C:
		}
		for due := uint64(time.Since(started) / streamPeriod); s.sent.Load() < due; {
			number := s.sent.Load() + 1
			binary.BigEndian.PutUint64(packet, number)
			_, err := s.outgoing.WriteToUDPAddrPort(packet, s.to)
			if failed == nil {
				failed = err
			}
			s.sent.Store(number)
		}
	}
}

func (s *stream) receive() {
	packet, control := make([]byte, 1<<16), make([]byte, 256)
	for {
		n, nc, _, _, err := s.incoming.ReadMsgUDPAddrPort(packet, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		a := arrival{at: arrivalTime(control[:nc]), length: n}
		if n == streamLength {
			a.number = binary.BigEndian.Uint64(packet)
		} else {
			a.header = headerFields(control[:nc])
		}
		s.mu.Lock()
		s.arrivals = append(s.arrivals, a)
		s.mu.Unlock()
		if n == streamLength {
			s.received.Add(1)
			s.highest.Store(max(s.highest.Load(), a.number))
		}
	}
}

// arrivalTime reads SCM_TIMESTAMPNS (socket(7)): a receiver that has to wait for its turn does not make the packet late.
func arrivalTime(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
				return time.Unix((*unix.Timespec)(unsafe.Pointer(&m.Data[0])).Unix())
			}
		}
	}
	return time.Now()
}

// headerFields reads the TTL and the TOS (ip(7), ipv6(7)).
func headerFields(control []byte) (text string) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return err.Error()
	}
	for _, m := range messages {
		h := m.Header
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TTL || h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_HOPLIMIT:
			text += fmt.Sprintf(" ttl %d", m.Data[0])
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS || h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS:
			text += fmt.Sprintf(" tos %#x", m.Data[0])
		}
	}
	return text
}

func (s *stream) report(sendError error) streamReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := streamReport{Sent: int(s.sent.Load()), sendError: sendError}
	seen := make([]bool, r.Sent+1)
	var highest uint64
	var last time.Time
	for _, a := range s.arrivals {
		if a.length != streamLength || a.number == 0 || a.number > uint64(r.Sent) {
			continue
		}
		switch {
		case seen[a.number]:
			r.Twice++
		case a.number < highest:
			r.Reordered++
		}
		if !last.IsZero() {
			r.longestGap = max(r.longestGap, a.at.Sub(last))
		}
		seen[a.number], highest, last = true, max(highest, a.number), a.at
	}
	for number := 1; number <= r.Sent; number++ {
		if !seen[number] {
			r.Lost++
			r.lastLost = uint64(number)
		}
	}
	return r
}

// ofLength counts the packets of a length that have come.
func (s *stream) ofLength(n int) (count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.arrivals {
		if a.length == n {
			count++
		}
	}
	return count
}

// lastArrival is when the last packet has come.
func (s *stream) lastArrival() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.arrivals) == 0 {
		return time.Time{}
	}
	return s.arrivals[len(s.arrivals)-1].at
}

// awaitMore waits until packets arrive that are sent from now on, as many as are given.
func (s *stream) awaitMore(n int) error {
	from, received := s.sent.Load(), s.received.Load()
	if !eventually(healTimeout, func() bool { return s.highest.Load() > from && s.received.Load() >= received+int64(n) }) {
		return fmt.Errorf("of the packets from %s to %s after the %dth none arrives", s.from, s.to, from)
	}
	return nil
}

// awaitWhole waits until all packets of a second have come, that are sent from now on, and returns the number of the first.
func (s *stream) awaitWhole() (first uint64, err error) {
	const row = uint64(time.Second / streamPeriod)
	if !eventually(healTimeout, func() bool {
		first = s.sent.Load() + 1
		s.awaitSent(row + 100) // the last are no longer under way
		return s.came(first, row)
	}) {
		return 0, fmt.Errorf("of the packets from %s to %s before the %dth some are lost all the time", s.from, s.to, first)
	}
	return first, nil
}

// came reports whether n packets from the first on have come.
func (s *stream) came(first, n uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[uint64]bool{}
	for _, a := range s.arrivals {
		if a.length == streamLength && a.number >= first && a.number < first+n {
			seen[a.number] = true
		}
	}
	return uint64(len(seen)) == n
}

// awaitSent waits until as many more packets have been sent.
func (s *stream) awaitSent(n uint64) {
	s.t.Helper()
	from := s.sent.Load()
	if !eventually(healTimeout, func() bool { return s.sent.Load() >= from+n }) {
		s.t.Fatalf("the stream from %s stands still", s.from)
	}
}

// awaitSilence waits until no packet has come for as long, of those that are sent all the time, and tells when the last came.
func (s *stream) awaitSilence(quiet, timeout time.Duration) (last time.Time, err error) {
	if !eventually(timeout, func() bool { last = s.lastArrival(); return time.Since(last) > quiet }) {
		return last, fmt.Errorf("packets from %s to %s still arrive", s.from, s.to)
	}
	return last, nil
}

// listen opens a UDP socket of a container on its own address.
func listen(c *container, port uint16) *net.UDPConn {
	c.t.Helper()
	return listenAt(c.node, netip.AddrPortFrom(c.addr, port))
}

func listenAt(n *node, at netip.AddrPort) *net.UDPConn {
	n.t.Helper()
	var conn net.PacketConn
	must(n.t, n.Do(func() (err error) {
		conn, err = reusing().ListenPacket(n.t.Context(), "udp", at.String())
		return err
	}))
	n.t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

func addrOf(conn *net.UDPConn) netip.AddrPort {
	at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// awaitFast waits until packets of the stream take the fast path on both hosts, or on that of them which has one.
func (s *stream) awaitFast() error {
	return s.awaitFastBy(healTimeout)
}

func (s *stream) awaitFastBy(timeout time.Duration) error {
	for _, end := range []struct {
		*host
		in bool
	}{{s.src.host, false}, {s.dst.host, true}} {
		if end.engine == nil {
			continue
		}
		var before uint64
		if !eventually(timeout, func() bool {
			f, _ := end.flow(end.in, unix.IPPROTO_UDP, s.from, s.to)
			if s.src.host.world.unlisted {
				state := end.engine.State()
				f.Packets = state.Out.FastPackets + state.In.FastPackets
			}
			if before == 0 {
				before = f.Packets
			}
			return before > 0 && f.Packets > before+10
		}) {
			return fmt.Errorf("the packets from %s to %s do not take the fast path on host %d: %s", s.from, s.to, end.number, show(end.engine.State()))
		}
	}
	return nil
}

// flow is what the engine knows of a flow.
func (h *host) flow(in bool, protocol uint8, src, dst netip.AddrPort) (ip.FastFlow, bool) {
	h.t.Helper()
	flows, err := h.engine.Flows()
	must(h.t, err)
	for _, f := range flows {
		if f.In == in && f.Protocol == protocol && f.Src == src && f.Dst == dst {
			return f, true
		}
	}
	return ip.FastFlow{}, false
}
