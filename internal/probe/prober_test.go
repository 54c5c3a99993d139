package probe

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/ip"
)

// Peers that answer are well, both ways, and the full size is known.
func TestAllIsWell(t *testing.T) {
	for _, f := range ip.Families() {
		w := newWorld(t, f, 3)
		if took := w.until(time.Minute, func() bool { return w.all(Well) }); took > 6*time.Second {
			t.Errorf("%s: known after %v, want 6 s at most", f, took)
		}
		w.run(10 * time.Minute)
		for i := range w.peers {
			for _, way := range Ways() {
				v := w.verdict(i, way)
				if v.State != Well || v.Size != w.peers[i].Size[way] || v.RTT != (Quantiles{w.took, w.took}) || v.Lost != 0 || v.Asked < 50 {
					t.Errorf("%s, %s to %d: %+v", f, way, i, v)
				}
			}
		}
		if b := w.s.bad(); len(b.Reports) != 0 || b.Asked != 3 || b.Blocked != nil || b.Heard.IsZero() {
			t.Errorf("bad: %+v", b)
		}
	}
}

// The rate is bounded at any number of peers, whatever becomes of the questions, and with up to 200 each is asked every 10 s.
func TestRate(t *testing.T) {
	for _, n := range []int{1, 200, 10_000} {
		for name, arrives := range map[string]func(*world, request) bool{
			"all arrives":  func(*world, request) bool { return true },
			"all is lost":  func(*world, request) bool { return false },
			"small arrive": func(w *world, q request) bool { return q.size < 600 },
			"half is lost": func(w *world, q request) bool { return q.nonce%2 == 0 },
		} {
			t.Run(fmt.Sprint(n, " peers, ", name), func(t *testing.T) {
				w := newWorld(t, ip.IPv4, n)
				w.arrives = arrives
				w.run(3 * time.Minute)
				w.checkRate()
				if n < 10_000 && name == "all arrives" {
					checkInterval(t, w, 10*time.Second)
				}
				if n >= 200 && len(w.asked) < 3*60*19 {
					t.Errorf("%d questions in 3 min: the rate is not used", len(w.asked))
				}
				if n == 10_000 { // nobody is forgotten for the sake of those that hurry
					w.run(2 * time.Hour)
					known := map[netip.Addr]bool{}
					for _, q := range w.asked {
						known[q.to.Addr()] = true
					}
					if len(known) != 2*n {
						t.Errorf("%d of %d addresses asked in 2 h", len(known), 2*n)
					}
				}
			})
		}
	}
}

// checkInterval fails if a peer was not asked for longer than most, but for the beginning.
func checkInterval(t *testing.T, w *world, most time.Duration) {
	t.Helper()
	last := map[byte]time.Time{}
	var longest time.Duration
	for _, q := range w.asked {
		n := q.to.Addr().As4()[3]
		if at, ok := last[n]; ok && at.Sub(w.begin) > 30*time.Second {
			longest = max(longest, q.at.Sub(at))
		}
		last[n] = q.at
	}
	if longest > most+most/5 {
		t.Errorf("a peer is not asked for %v, want about %v", longest, most)
	}
}

// A peer that goes away is found within 15 s, one that comes back within 10 s; others are as before.
func TestUnreachable(t *testing.T) {
	for _, f := range ip.Families() {
		for n, most := range map[int]time.Duration{2: 12 * time.Second, 200: 16 * time.Second} {
			w := newWorld(t, f, n)
			w.run(2 * time.Minute)
			cut := true
			w.arrives = func(w *world, q request) bool { return !cut || !w.to(q, 1) }
			if took := w.until(time.Minute, func() bool { return w.is(1, Unreachable) }); took > most {
				t.Errorf("%s, %d peers: found after %v, want %v at most", f, n, took, most)
			}
			b := w.s.bad()
			if len(b.Reports) != 1 || b.Reports[0].Peer != w.peers[1] || b.Blocked != nil || b.Asked != n {
				t.Errorf("%s, %d peers: bad: %+v", f, n, b)
			}
			if v := w.verdict(1, Underlay); v.Size != w.peers[1].Size[Underlay] || v.Lost < 3 {
				t.Errorf("verdict: %+v", v)
			}
			cut = false
			if took := w.until(time.Minute, func() bool { return w.is(1, Well) }); took > 11*time.Second && n < 100 || took > 21*time.Second {
				t.Errorf("%s, %d peers: found to be back after %v", f, n, took)
			}
			w.run(30 * time.Second)
			if !w.all(Well) || len(w.s.bad().Reports) != 0 {
				t.Errorf("%s, %d peers: not all is well after that", f, n)
			}
			w.checkRate()
		}
	}
}

// Three in a row make a peer unreachable, not two, and only if they are small.
func TestThreeLosses(t *testing.T) {
	for losses, want := range map[int]State{2: Well, 3: Unreachable} {
		w := newWorld(t, ip.IPv4, 2)
		w.run(time.Minute)
		left, worst := losses, Unknown
		w.arrives = func(w *world, q request) bool {
			if q.way == Underlay && w.to(q, 0) && q.size < 100 && left > 0 {
				left--
				return false
			}
			return true
		}
		w.until(time.Minute, func() bool { worst = max(worst, w.verdict(0, Underlay).State); return false })
		if worst != want || left != 0 || w.verdict(0, Underlay).State != Well || w.verdict(0, Fabric).State != Well {
			t.Errorf("%d losses: worst state %s, want %s; %d not used; now %s", losses, worst, want, left, w.verdict(0, Underlay).State)
		}
	}
}

// After a loss, the next questions come a second apart.
func TestLossesHurry(t *testing.T) {
	w := newWorld(t, ip.IPv4, 2)
	w.run(time.Minute)
	w.arrives = func(w *world, q request) bool { return q.way != Underlay || !w.to(q, 0) }
	asked := len(w.asked)
	w.until(time.Minute, func() bool { return w.verdict(0, Underlay).State == Unreachable })
	var at []time.Time
	for _, q := range w.asked[asked:] {
		if q.way == Underlay && w.to(q, 0) {
			at = append(at, q.at)
		}
	}
	if len(at) < 3 || len(at) > 4 {
		t.Fatalf("%d questions, want 3 small ones, after a full one perhaps", len(at))
	}
	for i := 1; i < len(at); i++ {
		if gap := at[i].Sub(at[i-1]); gap < time.Second || gap > 1200*time.Millisecond {
			t.Errorf("question %d after %v, want 1 s", i, gap)
		}
	}
}

// What cannot be sent is lost at once, and the next question waits a second all the same.
func TestRefusalsDoNotHurryMore(t *testing.T) {
	w := newWorld(t, ip.IPv4, 1)
	w.run(time.Minute)
	w.refuses = func(request) string { return "network is unreachable" }
	asked := len(w.asked)
	w.until(time.Minute, func() bool { return w.is(0, Unreachable) })
	if took, n := w.now.Sub(w.asked[asked].at), len(w.asked)-asked; took < 2*time.Second || n > 9 {
		t.Errorf("unreachable after %v and %d questions", took, n)
	}
	for _, way := range Ways() {
		if v := w.verdict(0, way); v.Reason != "network is unreachable" {
			t.Errorf("%s: %+v", way, v)
		}
	}
	w.refuses = nil
	w.run(time.Minute)
	if v := w.verdict(0, Fabric); v.State != Well || v.Reason != "" {
		t.Errorf("%+v", v)
	}
}

// What comes back one way is looked for the other way at once, and its size, too.
func TestComingBack(t *testing.T) {
	w := newWorld(t, ip.IPv4, 200)
	w.run(time.Minute)
	cut := true
	w.arrives = func(w *world, q request) bool { return !w.to(q, 1) || !cut && q.size <= 1400 }
	w.until(time.Minute, func() bool { return w.is(1, Unreachable) })
	cut = false
	w.until(time.Minute, func() bool { return !w.is(1, Unreachable) && len(w.s.sent) < 2 })
	if took := w.until(time.Minute, func() bool { return w.is(1, Well) }); took > 2*time.Second {
		t.Errorf("the other way is back %v after the first", took)
	}
	asked := len(w.asked)
	w.run(2 * time.Second)
	for _, way := range Ways() {
		if !slices.ContainsFunc(w.asked[asked:], func(q request) bool { return w.to(q, 1) && q.way == way && q.size == w.peers[1].Size[way] }) {
			t.Errorf("not asked full-size over the %s", way)
		}
	}
}

// Where very many are lost, a few at a time are found out about soon, not all of them late.
func TestManyAreLost(t *testing.T) {
	w := newWorld(t, ip.IPv4, 10_000)
	w.run(time.Minute)
	w.arrives = func(w *world, q request) bool { return w.to(q, 0) }
	for i := range 10 {
		before := w.s.tally.Peers[Fabric][Unreachable]
		w.run(time.Minute)
		if n := w.s.tally.Peers[Fabric][Unreachable] - before; n < 60 {
			t.Errorf("minute %d: %d found unreachable, want one a second at least", i, n)
		}
	}
	last, gaps := map[netip.AddrPort]time.Time{}, []time.Duration(nil)
	for _, q := range w.asked {
		if at, ok := last[q.to]; ok && w.now.Sub(q.at) < time.Minute {
			gaps = append(gaps, q.at.Sub(at))
		}
		last[q.to] = q.at
	}
	slices.Sort(gaps)
	if median := gaps[len(gaps)/2]; median > 3*time.Second {
		t.Errorf("a peer that lost one is asked again after %v", median)
	}
}

// Who waits for an answer gets every other question.
func TestOrders(t *testing.T) {
	w := newWorld(t, ip.IPv4, 200)
	w.run(time.Minute)
	heard, asked := 0, len(w.asked)
	for range 10 {
		w.s.orders = append(w.s.orders, &order{request: request{to: w.peers[3].At[Fabric], way: Fabric, size: 500}, result: func(o outcome) {
			if o.heard && o.took == w.took {
				heard++
			}
		}})
	}
	w.until(time.Minute, func() bool { return heard == 10 })
	if n := len(w.asked) - asked; n < 19 || n > 20 {
		t.Errorf("%d questions until 10 were answered, want 19 or 20", n)
	}
}

// One way may be lost while the other is well.
func TestOneWay(t *testing.T) {
	w := newWorld(t, ip.IPv6, 3)
	w.arrives = func(w *world, q request) bool { return q.way == Underlay }
	w.run(time.Minute)
	for i := range w.peers {
		if u, f := w.verdict(i, Underlay), w.verdict(i, Fabric); u.State != Well || f.State != Unreachable || f.Size != 0 {
			t.Errorf("peer %d: %+v, %+v", i, u, f)
		}
	}
	if b := w.s.bad(); b.Blocked != nil || len(b.Reports) != 3 {
		t.Errorf("bad: %+v", b)
	}
}

// A peer that appears has time before it counts as unreachable, and so has one with another key.
func TestGrace(t *testing.T) {
	w := newWorld(t, ip.IPv4, 2)
	w.run(time.Minute)
	w.peers = append(w.peers, somePeer(ip.IPv4, 3))
	late := w.now.Add(9 * time.Second)
	w.arrives = func(w *world, q request) bool { return !w.to(q, 2) || !w.now.Before(late) }
	w.want()
	w.run(time.Minute)
	if !w.is(2, Well) || w.changes > 6+2 || w.verdict(2, Fabric).Since.Sub(late) > 6*time.Second {
		t.Errorf("it went from unknown to %s and %s, changes %d", w.verdict(2, Underlay).State, w.verdict(2, Fabric).State, w.changes)
	}

	w.peers[2].Key[5]++
	changes := w.changes
	late = w.now.Add(9 * time.Second)
	w.want()
	w.run(time.Minute)
	if w.changes != changes {
		t.Errorf("another key brought %d changes, want none", w.changes-changes)
	}

	w.peers = append(w.peers, somePeer(ip.IPv4, 4))
	w.arrives = func(w *world, q request) bool { return !w.to(q, 3) }
	w.want()
	begin := w.now
	if took := w.until(time.Minute, func() bool { return w.is(3, Unreachable) }); took < 10*time.Second || took > 21*time.Second {
		t.Errorf("unreachable %v after it appeared", w.now.Sub(begin))
	}
}

// When nobody answers, the fault is more likely here: that is said within 30 s at any number of peers, with what sending says, and ends with an answer.
func TestBlocked(t *testing.T) {
	for _, n := range []int{2, 200, 10_000} {
		w := newWorld(t, ip.IPv4, n)
		w.run(time.Minute)
		w.refuses = func(request) string { return "operation not permitted" }
		heard := w.s.bad().Heard
		took := w.until(2*time.Minute, func() bool { return w.s.bad().Blocked != nil })
		if took < 15*time.Second || took > 30*time.Second {
			t.Errorf("%d peers: blocked after %v", n, took)
		}
		if err := w.s.bad().Blocked; err == nil || !strings.Contains(err.Error(), "operation not permitted") {
			t.Errorf("%d peers: blocked: %v", n, err)
		}
		if now := w.s.bad().Heard; now.Sub(heard) > time.Second {
			t.Errorf("%d peers: heard of %v after the last answer", n, now.Sub(heard))
		}
		changes := w.changes
		w.refuses = nil
		w.until(time.Minute, func() bool { return w.s.bad().Blocked == nil })
		if now := w.s.bad().Heard; !now.After(heard.Add(took)) {
			t.Errorf("%d peers: last heard at %v, before the first answer again", n, now)
		}
		if w.s.bad().Blocked != nil || w.changes == changes {
			t.Errorf("%d peers: still blocked: %v; %d changes", n, w.s.bad().Blocked, w.changes-changes)
		}
	}
	w := newWorld(t, ip.IPv4, 3)
	w.arrives = func(*world, request) bool { return false }
	w.run(10 * time.Minute)
	w.peers = w.peers[:1] // of whom there is not enough to tell
	if before := w.s.bad().Blocked; before == nil {
		t.Error("not blocked")
	}
	w.want()
	if b := w.s.bad(); b.Blocked != nil {
		t.Errorf("blocked still: %v", b.Blocked)
	}

	w = newWorld(t, ip.IPv4, 1)
	w.arrives = func(*world, request) bool { return false }
	w.run(10 * time.Minute)
	if b := w.s.bad(); b.Blocked != nil || !w.all(Unreachable) {
		t.Errorf("a single peer is off: blocked: %v", b.Blocked)
	}
}

// Loss by chance is counted, but makes nobody unreachable or narrow for long.
func TestLoss(t *testing.T) {
	w := newWorld(t, ip.IPv4, 20)
	random := rand.New(rand.NewPCG(3, 4))
	w.arrives = func(*world, request) bool { return random.IntN(100) >= 5 }
	w.run(time.Minute)
	bad, looks := 0, 0
	w.until(6*time.Hour, func() bool { looks++; bad += len(w.s.tally.bad); return false })
	if share := float64(bad) / float64(looks*len(w.peers)); share > 1e-3 {
		t.Errorf("peers are bad for %.2g of the time", share)
	}
	v := w.verdict(0, Underlay)
	if share := float64(v.Lost) / float64(v.Asked); share < 0.03 || share > 0.3 {
		t.Errorf("%d of %d lost, want about 5%%, and more of those asked after a loss", v.Lost, v.Asked)
	}
	var lost [ways]uint64
	for _, r := range w.s.reports() {
		for way, v := range r.Ways {
			lost[way] += v.Lost
		}
	}
	if lost != w.s.tally.Lost {
		t.Errorf("lost in all %v, of each peer together %v", w.s.tally.Lost, lost)
	}
}

// Only who was asked can answer, the way it was asked, once, and within a second.
func TestAnswersOfOthers(t *testing.T) {
	w := newWorld(t, ip.IPv4, 1)
	w.arrives = func(*world, request) bool { return false }
	w.until(time.Minute, func() bool { return len(w.asked) > 0 })
	q := w.asked[0]
	elsewhere := netip.AddrPortFrom(q.to.Addr(), q.to.Port()+1)
	for name, found := range map[string]bool{
		"another port":  ok(w.s.find(q.nonce, q.way, elsewhere)),
		"another way":   ok(w.s.find(q.nonce, 1-q.way, q.to)),
		"another nonce": ok(w.s.find(q.nonce+1, q.way, q.to)),
	} {
		if found {
			t.Errorf("an answer counts from %s", name)
		}
	}
	if !ok(w.s.find(q.nonce, q.way, q.to)) {
		t.Error("the answer does not count")
	}
	w.s.heard(q.nonce, w.now.Add(time.Millisecond))
	if ok(w.s.find(q.nonce, q.way, q.to)) {
		t.Error("a replayed answer counts")
	}
	w.s.heard(q.nonce, w.now.Add(time.Millisecond))
	if n := w.s.peers[peerID{w.peers[0].Lease, ip.IPv4}].lines[q.way].answers; n != 1 {
		t.Errorf("%d answers, want 1", n)
	}

	asked := len(w.asked)
	w.until(time.Minute, func() bool { return len(w.asked) > asked })
	q = w.asked[asked]
	w.s.heard(q.nonce, w.now.Add(timeout))
	p := w.s.peers[peerID{w.peers[0].Lease, ip.IPv4}]
	if n := p.lines[Underlay].answers + p.lines[Fabric].answers; n != 1 {
		t.Errorf("an answer counts that came too late: %d", n)
	}
}

func ok(_ request, ok bool) bool { return ok }
