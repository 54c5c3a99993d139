package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// asked is a prober on 127.0.0.1 and ::1 that nobody is wanted of, and a stranger's sockets there.
type asked struct {
	t    *testing.T
	ns   *netns.Namespace
	p    *Prober
	key  Key
	at   ip.Dual[netip.AddrPort]
	from ip.Dual[*net.UDPConn]
}

func newAsked(t *testing.T) *asked {
	a := &asked{t: t, ns: netnstest.New(t), key: Key{9}}
	w := Self{Key: a.key, Port: testPort}
	for _, f := range ip.Families() {
		addr := map[ip.Family]netip.Addr{ip.IPv4: netip.AddrFrom4([4]byte{127, 0, 0, 1}), ip.IPv6: netip.IPv6Loopback()}[f]
		w.Addr[Underlay].Set(f, addr)
		a.at.Set(f, netip.AddrPortFrom(addr, testPort))
		must(t, a.ns.Do(func() error {
			conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: addr.AsSlice()})
			a.from.Set(f, conn)
			return err
		}))
		t.Cleanup(func() { a.from.Of(f).Close() })
	}
	a.p, _ = start(t, a.ns, Want{Self: w})
	for _, f := range ip.Families() {
		await(t, 10*time.Second, "it answers", func() error {
			a.send(f, message{question, 1}.encode(nil, a.key, 0))
			_, err := a.receive(f, 100*time.Millisecond)
			return err
		})
		await(t, 10*time.Second, "it is silent", func() error {
			if got, err := a.receive(f, 100*time.Millisecond); err == nil {
				return fmt.Errorf("got %x", got)
			}
			return nil
		})
	}
	return a
}

func (a *asked) send(f ip.Family, datagram []byte) {
	a.t.Helper()
	if _, err := a.from.Of(f).WriteToUDPAddrPort(datagram, a.at.Of(f)); err != nil {
		a.t.Fatal(err)
	}
}

// receive returns the next answer, which comes from who was asked.
func (a *asked) receive(f ip.Family, within time.Duration) ([]byte, error) {
	conn, buf := a.from.Of(f), make([]byte, maxPacket)
	must(a.t, conn.SetReadDeadline(time.Now().Add(within)))
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err == nil && netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != a.at.Of(f) {
		a.t.Errorf("answer from %s", from)
	}
	return buf[:n], err
}

// A question is answered with its number, and as many bytes; anything else is not answered.
func TestAnswers(t *testing.T) {
	a := newAsked(t)
	for _, f := range ip.Families() {
		for nonce, size := range map[uint64]int{10: messageSize, 11: 500, 12: 1472, 13: 9000} {
			whole := message{question, nonce}.encode(nil, a.key, size)
			longer := append(slices.Clone(whole), 0)
			binary.BigEndian.PutUint16(longer[2:], uint16(len(longer)))
			for _, bad := range [][]byte{
				{}, []byte("hello"), whole[:len(whole)-1], whole[:messageSize-1], longer, append(slices.Clone(whole), 0),
				message{question, nonce}.encode(nil, Key{8}, size),
				message{question, nonce}.encode(nil, Key{}, size),
				message{answer, nonce}.encode(nil, a.key, size),
			} {
				a.send(f, bad)
			}
			a.send(f, whole)
			got, err := a.receive(f, 5*time.Second)
			if err != nil || !bytes.Equal(got, message{answer, nonce}.encode(nil, a.key, size)) {
				t.Errorf("%s, %d bytes: %.40x, %v", f, size, got, err)
			}
		}
	}
	a.p.Want(Want{Self: Self{Port: testPort, Addr: a.p.wanted.Self.Addr}}) // without a key
	a.send(ip.IPv4, message{question, 14}.encode(nil, Key{}, 0))
	if got, err := a.receive(ip.IPv4, 200*time.Millisecond); err == nil {
		t.Errorf("without a key of its own, it answers %x", got)
	}
}

// Who asks often is answered 200 times at first, and 200 times a second.
func TestAnswersAreLimited(t *testing.T) {
	p := New(Config{})
	key := Key{3}
	p.Want(Want{Self: Self{Key: key}})
	q := message{question, 1}.encode(nil, key, 0)
	synctest.Test(t, func(t *testing.T) {
		for second := range 5 {
			answers := 0
			for range 1000 {
				if p.receive(Underlay, netip.AddrPort{}, q, nil) != nil {
					answers++
				}
			}
			if answers != answersPerSecond {
				t.Errorf("second %d: %d answers, want %d", second, answers, answersPerSecond)
			}
			<-time.After(time.Second)
		}
	})
}

// What a flood costs is bounded: the rest stays unread, and the kernel drops it. After it, all is as before.
func TestFlood(t *testing.T) {
	a := newAsked(t)
	const most = 100_000
	junk := message{question, 1}.encode(nil, Key{1}, 0)
	begin := time.Now()
	sent := 0
	for sent < most && time.Since(begin) < time.Second {
		a.send(ip.IPv4, junk)
		sent++
	}
	took := time.Since(begin)
	dropped := a.dropped()
	if left, limit := sent-dropped, 1000+readBurst+int(took.Seconds()*readsPerSecond); left > limit {
		t.Errorf("of %d datagrams in %v, %d were dropped: %d read or in the buffer, want at most %d", sent, took, dropped, left, limit)
	}
	nonce := uint64(100)
	await(t, 10*time.Second, "it answers again", func() error {
		nonce++
		a.send(ip.IPv4, message{question, nonce}.encode(nil, a.key, 0))
		_, err := a.receive(ip.IPv4, 100*time.Millisecond)
		return err
	})
}

// dropped is how many datagrams the kernel has dropped for want of room.
func (a *asked) dropped() (n int) {
	a.t.Helper()
	var table []byte
	must(a.t, a.ns.Do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/udp")
		return err
	}))
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", testPort)) {
			if _, err := fmt.Sscan(fields[len(fields)-1], &n); err != nil {
				a.t.Fatal(err)
			}
		}
	}
	return n
}

// A socket that cannot be opened is tried again, and told of after a while.
func TestNoAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes atomic.Int64
		p := New(Config{Changed: func() { changes.Add(1) }})
		w := Want{Self: Self{Key: Key{1}, Port: testPort}}
		w.Self.Addr[Underlay].V4 = ip.IPv4.Elsewhere()
		w.Self.Addr[Fabric].V6 = ip.IPv6.Elsewhere()
		p.Want(w)
		done := make(chan error)
		ctx, cancel := contextOf(t)
		go func() { done <- p.Run(ctx) }()
		<-time.After(openPatience - time.Second)
		if b := p.Bad(); b.Blocked != nil || changes.Load() != 0 {
			t.Errorf("blocked at once: %v", b.Blocked)
		}
		<-time.After(openMost + time.Second)
		if b := p.Bad(); b.Blocked == nil || !strings.Contains(b.Blocked.Error(), "ipv4 socket of the underlay") || !strings.Contains(b.Blocked.Error(), "ipv6 socket of the fabric") {
			t.Errorf("blocked: %v", b.Blocked)
		}
		before := changes.Load()
		<-time.After(time.Hour)
		if now := changes.Load(); now != before {
			t.Errorf("%d changes in an hour", now-before)
		}
		p.Want(Want{})
		<-time.After(time.Second)
		if b := p.Bad(); b.Blocked != nil || changes.Load() != before+1 {
			t.Errorf("blocked without a wish: %v, %d changes", b.Blocked, changes.Load()-before)
		}
		cancel()
		if err := <-done; !errors.Is(err, errEnd) {
			t.Errorf("Run: %v", err)
		}
	})
}
