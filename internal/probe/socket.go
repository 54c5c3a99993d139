package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"tulle/internal/backoff"
	"tulle/ip"
)

const (
	readsPerSecond = 500                    // of one socket: of a flood, the rest stays with the kernel, which drops it
	readBurst      = 100                    // at once, after a pause
	readPause      = 50 * time.Millisecond  // when these are used up
	sendWait       = spacing                // for room in the socket's buffer
	openFirst      = 500 * time.Millisecond // between tries to open a socket
	openMost       = 10 * time.Second
	openPatience   = 10 * time.Second // until others are told: an address comes and goes with its link, and a new IPv6 one is not there at once
)

// place is what a host has one socket for.
type place struct {
	way    Way
	family ip.Family
}

// sockets are those of this host, by which it asks and is asked. It is not safe for concurrent use.
type sockets struct {
	prober  *Prober
	opened  map[place]*socket
	failed  map[place]*failure
	readers sync.WaitGroup
	buffer  []byte // of questions
}

// failure is a socket that could not be opened yet.
type failure struct {
	addr  netip.AddrPort
	since time.Time
	next  time.Time
	pause backoff.Backoff
	err   error
}

func newSockets(p *Prober) *sockets {
	return &sockets{prober: p, opened: map[place]*socket{}, failed: map[place]*failure{}}
}

// open opens and closes sockets, so that there are those that this host has addresses for. It returns when to call it again; zero: when these change.
func (s *sockets) open(ctx context.Context, self Self) (next time.Time) {
	var cannot []error
	for _, way := range Ways() {
		for _, f := range ip.Families() {
			var addr netip.AddrPort
			if a := self.Addr[way].Of(f); a.IsValid() && self.Port != 0 {
				addr = netip.AddrPortFrom(a, self.Port)
			}
			fail := s.keep(ctx, place{way, f}, addr)
			if fail == nil {
				continue
			}
			if next.IsZero() || fail.next.Before(next) {
				next = fail.next
			}
			if time.Since(fail.since) >= openPatience {
				cannot = append(cannot, fmt.Errorf("open %s socket of the %s: %w", f, way, fail.err))
			}
		}
	}
	s.prober.setCannot(errors.Join(cannot...))
	return next
}

// keep has a socket be there at an address, or none if that is zero. It returns what is wrong.
func (s *sockets) keep(ctx context.Context, at place, addr netip.AddrPort) *failure {
	if have := s.opened[at]; have != nil && have.addr != addr {
		s.prober.update(func(sc *schedule) { sc.use(at.way, at.family, false, time.Now()) })
		have.conn.Close()
		delete(s.opened, at)
	}
	fail := s.failed[at]
	if fail != nil && fail.addr != addr {
		delete(s.failed, at)
		fail = nil
	}
	if now := time.Now(); addr == (netip.AddrPort{}) || s.opened[at] != nil || fail != nil && now.Before(fail.next) {
		return fail
	}
	opened, err := listen(ctx, at.family, addr)
	if err != nil {
		if fail == nil {
			fail = &failure{addr: addr, since: time.Now(), pause: backoff.Backoff{First: openFirst, Most: openMost}}
			s.failed[at] = fail
		}
		fail.err, fail.next = err, time.Now().Add(fail.pause.Next())
		return fail
	}
	delete(s.failed, at)
	s.opened[at] = opened
	s.readers.Go(func() { s.prober.read(ctx, at.way, opened) })
	s.prober.cfg.Log.Info("probing", slog.String("way", at.way.String()), slog.Any("address", addr))
	s.prober.update(func(sc *schedule) { sc.use(at.way, at.family, true, time.Now()) })
	return nil
}

// closeAll is for the end. What was found out stays: others may still look at it, and must not take the end for a change.
func (s *sockets) closeAll() {
	for _, socket := range s.opened {
		socket.conn.Close()
	}
	s.readers.Wait()
}

// send sends a question, and returns why it could not; empty: it was sent.
func (s *sockets) send(q request) string {
	socket := s.opened[place{q.way, q.family}]
	if socket == nil {
		return "this host has no address for it"
	}
	s.buffer = message{kind: question, nonce: q.nonce}.encode(s.buffer, q.key, q.size-overhead(q.family))
	return reason(socket.send(s.buffer, q.to))
}

// reason is what the kernel says of a question that it does not send.
func reason(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return ""
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

func (p *Prober) setCannot(err error) {
	p.update(func(s *schedule) {
		if fmt.Sprint(p.cannot) != fmt.Sprint(err) {
			p.cannot, s.changed = err, true
		}
	})
}

// socket is a UDP socket that does not fragment, whatever the kernel knows of the path.
type socket struct {
	conn *net.UDPConn
	addr netip.AddrPort

	mu sync.Mutex // guards the deadline until it is used
}

func listen(ctx context.Context, f ip.Family, addr netip.AddrPort) (*socket, error) {
	network := "udp4"
	if f == ip.IPv6 {
		network = "udp6"
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var setup error
		err := raw.Control(func(fd uintptr) { setup = forbidFragments(int(fd), f) })
		return errors.Join(err, setup)
	}}
	conn, err := config.ListenPacket(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	return &socket{conn: conn.(*net.UDPConn), addr: addr}, nil
}

// send does not wait for long: a full buffer is a loss like any other.
func (s *socket) send(datagram []byte, to netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(sendWait)); err != nil {
		return err
	}
	_, err := s.conn.WriteToUDPAddrPort(datagram, to)
	return err
}

// read takes in what comes to a socket until that is closed.
func (p *Prober) read(ctx context.Context, way Way, s *socket) {
	datagram, buf := make([]byte, maxPacket), make([]byte, messageSize)
	reads := limit{every: time.Second / readsPerSecond, burst: readBurst}
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(datagram)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			if reply := p.receive(way, from, datagram[:n], buf); reply != nil {
				_ = s.send(reply, from) // to who asked, this is a lost answer
				buf = reply
			}
		}
		if err != nil || !reads.take(time.Now()) {
			timer := time.NewTimer(readPause)
			select {
			case <-ctx.Done(): // and soon the socket is closed
			case <-timer.C:
			}
			timer.Stop()
		}
	}
}
