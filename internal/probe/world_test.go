package probe

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tulle/ip"
)

const fullSize = 1450

// world is a schedule, its clock, and a network in memory.
type world struct {
	t     *testing.T
	s     *schedule
	now   time.Time
	begin time.Time
	peers []Peer
	from  Self

	arrives func(w *world, q request) bool // the question, and its answer
	refuses func(q request) string         // why it cannot be sent
	took    time.Duration
	answers []delivery
	asked   []request
	changes int
}

type delivery struct {
	at    time.Time
	nonce uint64
}

// newWorld is a host with n peers in a family, in a network where all arrives.
func newWorld(t *testing.T, f ip.Family, n int) *world {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	w := &world{t: t, begin: time.Now(), took: time.Millisecond, from: Self{Key: Key{1}, Port: 8473}}
	w.now = w.begin
	w.arrives = func(*world, request) bool { return true }
	w.s = newSchedule(random.Uint64, func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) })
	for _, way := range Ways() {
		for _, f := range ip.Families() {
			w.from.Addr[way].Set(f, address(f, way, 0))
			w.s.use(way, f, true, w.now)
		}
	}
	for i := range n {
		w.peers = append(w.peers, somePeer(f, i+1))
	}
	w.want()
	return w
}

func address(f ip.Family, way Way, n int) netip.Addr {
	if f == ip.IPv4 {
		return netip.AddrFrom4([4]byte{10, byte(way), byte(n >> 8), byte(n)})
	}
	return netip.AddrFrom16([16]byte{0xfd, byte(way), 14: byte(n >> 8), 15: byte(n)})
}

func somePeer(f ip.Family, n int) Peer {
	p := Peer{Lease: fmt.Sprintf("lease %05d", n), Node: fmt.Sprintf("node %d", n), Family: f, Key: Key{2, byte(n >> 8), byte(n)}}
	for _, way := range Ways() {
		p.At[way] = netip.AddrPortFrom(address(f, way, n), 8473)
		p.Size[way] = fullSize + 50*(1-int(way))
	}
	return p
}

// want has the schedule want the peers that there are.
func (w *world) want() { w.s.want(Want{Self: w.from, Peers: slices.Clone(w.peers)}, w.now) }

// run lets time go by.
func (w *world) run(d time.Duration) { w.until(d, func() bool { return false }) }

// until lets time go by until something is so, and returns after how long it was; a test in which it is not within most has failed.
func (w *world) until(most time.Duration, so func() bool) time.Duration {
	w.t.Helper()
	begin := w.now
	for !so() {
		at := w.s.wake()
		if len(w.answers) > 0 && (at.IsZero() || w.answers[0].at.Before(at)) {
			at = w.answers[0].at
		}
		if at.IsZero() || at.Sub(begin) > most {
			w.now = begin.Add(most)
			return most
		}
		if at.After(w.now) {
			w.now = at
		}
		if len(w.answers) > 0 && !w.answers[0].at.After(w.now) {
			w.s.heard(w.answers[0].nonce, w.now)
			w.answers = w.answers[1:]
			w.look()
			continue
		}
		if q, ok := w.s.ask(w.now); ok {
			w.send(q)
		}
		w.look()
	}
	return w.now.Sub(begin)
}

func (w *world) send(q request) {
	w.asked = append(w.asked, q)
	if w.refuses != nil {
		if why := w.refuses(q); why != "" {
			w.s.failed(q.nonce, w.now, why)
			return
		}
	}
	if w.arrives(w, q) {
		w.answers = append(w.answers, delivery{w.now.Add(w.took), q.nonce})
	}
}

func (w *world) look() {
	if w.s.changed {
		w.s.changed = false
		w.changes++
	}
}

// verdict is what is known of a peer.
func (w *world) verdict(i int, way Way) Verdict {
	w.t.Helper()
	p := w.s.peers[peerID{w.peers[i].Lease, w.peers[i].Family}]
	if p == nil {
		w.t.Fatalf("peer %d is not known", i)
	}
	return p.lines[way].verdict()
}

// is reports whether a peer is in a state both ways.
func (w *world) is(i int, state State) bool {
	return w.verdict(i, Underlay).State == state && w.verdict(i, Fabric).State == state
}

func (w *world) all(state State) bool {
	return !slices.ContainsFunc(w.peers, func(p Peer) bool {
		known := w.s.peers[peerID{p.Lease, p.Family}]
		return slices.ContainsFunc(known.lines[:], func(l line) bool { return l.state != state })
	})
}

// to reports whether a question is for the i-th peer.
func (w *world) to(q request, i int) bool { return i < len(w.peers) && q.to == w.peers[i].At[q.way] }

// checkRate fails if more than 20 questions were asked in any second, from an index on.
func (w *world) checkRate() {
	w.t.Helper()
	for i := range w.asked {
		if j := i + 20; j < len(w.asked) && w.asked[j].at.Sub(w.asked[i].at) < time.Second {
			w.t.Fatalf("21 questions within %v", w.asked[j].at.Sub(w.asked[i].at))
		}
	}
}
