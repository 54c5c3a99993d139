//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

const (
	// streamDrain is how long the last packets of a stream may be under way:
	// what comes later is lost.
	streamDrain = time.Second
	// streamTick is how often a stream sends what is due.
	streamTick = time.Millisecond
	// streamReceiveBuffer holds seconds of packets, so that a busy machine does
	// not lose what the network has delivered. In bytes.
	streamReceiveBuffer = 8 << 20
	// maxStreamPackets bounds what a stray packet can make a receiver remember.
	maxStreamPackets = 1 << 26
)

// StreamConfig describes a one-way stream of numbered UDP packets.
type StreamConfig struct {
	From, To *Container
	Family   ip.Family
	// PerSecond is the rate of packets.
	PerSecond int
}

// StreamReport tells what became of a stream.
type StreamReport struct {
	Sent, Received, Lost int
	// LongestGap is the longest time between two arrivals.
	LongestGap time.Duration
	// LastLost is when the last of the lost packets was due to be sent.
	LastLost time.Time
	// SendError is the first error of a packet that could not be sent. Such
	// packets count as sent and lost.
	SendError error
}

func (r StreamReport) String() string {
	text := fmt.Sprintf("%d sent, %d received, %d lost, longest gap %v", r.Sent, r.Received, r.Lost, r.LongestGap.Round(time.Microsecond))
	if r.SendError != nil {
		text += ", first send error: " + r.SendError.Error()
	}
	return text
}

// Stream is a stream of packets that is under way.
type Stream struct {
	cancel   context.CancelFunc
	sender   chan sendResult
	arrivals chan arrivals
	started  time.Time
	period   time.Duration
	received atomic.Int64
	sent     atomic.Uint64 // number of the last packet
	highest  atomic.Uint64 // number among those received
	incoming *net.UDPConn
	outgoing *net.UDPConn
	stop     func() StreamReport
}

// arrivals is what a receiver has seen.
type arrivals struct {
	// seen tells of each packet, by its number, whether it came.
	seen       []bool
	longestGap time.Duration
}

type sendResult struct {
	sent int
	err  error
}

// StartStream starts a stream once a first packet, which does not count, has
// passed. The caller ends it with Stop.
func StartStream(ctx context.Context, config StreamConfig) (*Stream, error) {
	incoming, err := config.To.listen(config.Family, 0)
	if err != nil {
		return nil, err
	}
	outgoing, err := config.From.listen(config.Family, 0)
	if err != nil {
		return nil, errors.Join(err, incoming.Close())
	}
	// More than the system's limit needs a privilege that a user namespace
	// does not give; the limit suffices for slower streams.
	_ = setOption(incoming, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, streamReceiveBuffer)
	})
	port := incoming.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	to := netip.AddrPortFrom(config.To.Addr.Of(config.Family), port)
	if err := awaitFirst(ctx, outgoing, incoming, to); err != nil {
		return nil, errors.Join(
			fmt.Errorf("start stream from %s to %s: %w", config.From, config.To, err),
			incoming.Close(), outgoing.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Stream{
		cancel:   cancel,
		sender:   make(chan sendResult, 1),
		arrivals: make(chan arrivals, 1),
		started:  time.Now(),
		period:   time.Second / time.Duration(config.PerSecond),
		incoming: incoming,
		outgoing: outgoing,
	}
	s.stop = sync.OnceValue(s.finish)
	go func() { s.arrivals <- s.receive() }()
	go func() { s.sender <- s.send(ctx, to) }()
	return s, nil
}

// Received is how many packets have arrived so far.
func (s *Stream) Received() int { return int(s.received.Load()) }

// Stop ends the stream, waits for packets under way, and reports. To call it
// again returns the same report.
func (s *Stream) Stop() StreamReport { return s.stop() }

// AwaitNext waits until a packet arrives that is sent from now on.
func (s *Stream) AwaitNext(ctx context.Context, timeout time.Duration) error {
	last := s.sent.Load()
	if err := poll(ctx, timeout, func() bool { return s.highest.Load() > last }); err != nil {
		return fmt.Errorf("wait for packet %d of a stream: %w", last+1, err)
	}
	return nil
}

func (s *Stream) finish() StreamReport {
	s.cancel()
	sent := <-s.sender
	// A timeout here is what the report says as lost.
	_ = poll(context.Background(), streamDrain, func() bool { return s.received.Load() == int64(sent.sent) })
	s.incoming.Close()
	s.outgoing.Close()
	arrived := <-s.arrivals
	received := int(s.received.Load())
	return StreamReport{
		Sent:       sent.sent,
		Received:   received,
		Lost:       sent.sent - received,
		LongestGap: arrived.longestGap,
		LastLost:   s.lastLost(sent.sent, arrived.seen),
		SendError:  sent.err,
	}
}

// lastLost returns the zero time if nothing was lost.
func (s *Stream) lastLost(sent int, seen []bool) time.Time {
	for number := sent; number > 0; number-- {
		if number >= len(seen) || !seen[number] {
			return s.started.Add(time.Duration(number) * s.period)
		}
	}
	return time.Time{}
}

// awaitFirst sends packets with number 0 until one arrives.
func awaitFirst(ctx context.Context, outgoing, incoming *net.UDPConn, to netip.AddrPort) error {
	var packet [8]byte
	last := errors.New("no packet arrives")
	err := poll(ctx, matrixTimeout, func() bool {
		if _, err := outgoing.WriteToUDPAddrPort(packet[:], to); err != nil {
			last = err
			return false
		}
		incoming.SetReadDeadline(time.Now().Add(pollInterval))
		_, _, err := incoming.ReadFromUDPAddrPort(packet[:])
		return err == nil
	})
	if err != nil {
		return last
	}
	return incoming.SetReadDeadline(time.Time{})
}

// send sends packets numbered from 1 at the stream's rate until ctx ends.
func (s *Stream) send(ctx context.Context, to netip.AddrPort) (result sendResult) {
	ticker := time.NewTicker(streamTick)
	defer ticker.Stop()
	var packet [8]byte
	for {
		select {
		case <-ctx.Done():
			return result
		case <-ticker.C:
		}
		due := int(time.Since(s.started) / s.period)
		for result.sent < due {
			result.sent++
			binary.BigEndian.PutUint64(packet[:], uint64(result.sent))
			if _, err := s.outgoing.WriteToUDPAddrPort(packet[:], to); err != nil && result.err == nil {
				result.err = err
			}
			s.sent.Store(uint64(result.sent))
		}
	}
}

// receive notes the arrival of packets until the socket is closed.
func (s *Stream) receive() (a arrivals) {
	last := time.Now()
	var packet [8]byte
	for {
		_, _, err := s.incoming.ReadFromUDPAddrPort(packet[:])
		if errors.Is(err, net.ErrClosed) {
			return a
		}
		number := binary.BigEndian.Uint64(packet[:])
		if err != nil || number == 0 || number > maxStreamPackets {
			continue
		}
		if missing := int(number) + 1 - len(a.seen); missing > 0 {
			a.seen = append(a.seen, make([]bool, missing)...)
		}
		if a.seen[number] {
			continue
		}
		a.seen[number] = true
		s.received.Add(1)
		s.highest.Store(max(s.highest.Load(), number))
		now := time.Now()
		a.longestGap = max(a.longestGap, now.Sub(last))
		last = now
	}
}
