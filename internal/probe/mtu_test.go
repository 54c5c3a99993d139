package probe

import (
	"math/rand/v2"
	"testing"
	"time"

	"tulle/ip"
)

// blackHole loses what is longer than most, to peer 0, one way.
func blackHole(way Way, most *int) func(*world, request) bool {
	return func(w *world, q request) bool { return q.way != way || !w.to(q, 0) || q.size <= *most }
}

// The largest size that arrives is found to the byte, within a minute and at 5% loss, too, and nothing else is found.
func TestNarrow(t *testing.T) {
	for _, f := range ip.Families() {
		for _, way := range Ways() {
			for _, most := range []int{1449, 1448, 1400, 1281, 1280, 1279, 577, 576, 575, 100} {
				for _, loss := range []int{0, 5} {
					w := newWorld(t, f, 3)
					random := rand.New(rand.NewPCG(5, uint64(most)))
					hole := blackHole(way, &most)
					w.run(20 * time.Second)
					w.arrives = func(w *world, q request) bool { return random.IntN(100) >= loss && hole(w, q) }
					want := most
					if most < leastMTU(f) {
						want = smallPacket(f)
					}
					if way == Underlay {
						w.peers[0].Size[way] = fullSize
						w.want()
					}
					took := w.until(3*time.Minute, func() bool { return w.verdict(0, way).State == Narrow })
					if limit := 40 * time.Second; took > limit && loss == 0 || took > 2*limit {
						t.Errorf("%s, %s, %d, %d%% loss: found after %v", f, way, most, loss, took)
					}
					if v := w.verdict(0, way); v.State != Narrow || v.Size != want {
						t.Errorf("%s, %s, %d, %d%% loss: %+v, want size %d", f, way, most, loss, v, want)
					}
					w.run(time.Minute)
					b := w.s.bad()
					if len(b.Reports) != 1 || b.Reports[0].Peer != w.peers[0] || b.Reports[0].Ways[1-way].State != Well {
						t.Errorf("%s, %s, %d, %d%% loss: bad: %+v", f, way, most, loss, b)
					}
					w.checkRate()
				}
			}
		}
	}
}

// A path that gets wide again is found so: within a minute or two soon after it became narrow, within an hour and a bit later; so is one that gets wider, and one that gets narrower still.
func TestNarrowAndBack(t *testing.T) {
	most := 1400
	narrow := func() *world {
		most = 1400
		w := newWorld(t, ip.IPv4, 3)
		w.arrives = blackHole(Fabric, &most)
		w.run(time.Minute)
		if v := w.verdict(0, Fabric); v.State != Narrow || v.Size != 1400 {
			t.Fatalf("%+v, want 1400 bytes", v)
		}
		return w
	}
	size := func(w *world, want int, state State) func() bool {
		return func() bool { v := w.verdict(0, Fabric); return v.Size == want && v.State == state }
	}

	w := narrow()
	most = fullSize
	if took := w.until(time.Hour, size(w, fullSize, Well)); took > 70*time.Second {
		t.Errorf("wide after %v", took)
	}

	w = narrow()
	w.run(20 * time.Minute)
	asked := len(w.asked)
	w.run(time.Hour - time.Minute)
	full := 0
	for _, q := range w.asked[asked:] {
		if q.way == Fabric && w.to(q, 0) && q.size == fullSize {
			full++
		}
	}
	if full > 2 {
		t.Errorf("asked full-size %d times in an hour", full)
	}
	most = fullSize
	if took := w.until(2*time.Hour, size(w, fullSize, Well)); took > 62*time.Minute {
		t.Errorf("wide after %v", took)
	}

	w = narrow()
	most = 1420
	if took := w.until(time.Hour, size(w, 1420, Narrow)); took > 100*time.Second {
		t.Errorf("wider after %v", took)
	}

	w = narrow()
	most = 1300
	if took := w.until(time.Hour, size(w, 1300, Narrow)); took > 40*time.Second {
		t.Errorf("narrower after %v", took)
	}

	// A narrow one that is lost and comes back is narrow still.
	w = narrow()
	most = 0
	w.until(time.Minute, func() bool { return w.verdict(0, Fabric).State == Unreachable })
	if v := w.verdict(0, Fabric); v.Size != 1400 {
		t.Errorf("%+v, want size 1400 still", v)
	}
	most = 1400
	if w.until(time.Minute, func() bool { return w.verdict(0, Fabric).State != Unreachable }); !size(w, 1400, Narrow)() {
		t.Errorf("%+v, want narrow again", w.verdict(0, Fabric))
	}
}

// The full size arrives now and then, as over one of several paths: that is not wide.
func TestFullSizeOnceIsNotWide(t *testing.T) {
	w := newWorld(t, ip.IPv4, 3)
	full := 0
	w.arrives = func(w *world, q request) bool {
		if q.size != w.peers[0].Size[Fabric] || q.way != Fabric || !w.to(q, 0) {
			return q.size <= 1400 || q.way != Fabric || !w.to(q, 0)
		}
		full++
		return full > 6 && full%2 == 0
	}
	w.run(50 * time.Second)
	if v := w.verdict(0, Fabric); v.State != Narrow {
		t.Fatalf("%+v", v)
	}
	w.until(9*time.Minute, func() bool { return w.verdict(0, Fabric).State != Narrow })
	if v := w.verdict(0, Fabric); v.State != Narrow {
		t.Errorf("%+v after %d times", v, full)
	}
}

// What a size is measured against changes: a device gets another MTU.
func TestResize(t *testing.T) {
	most := 1400
	w := newWorld(t, ip.IPv4, 3)
	w.arrives = blackHole(Fabric, &most)
	resize := func(to int) {
		w.peers[0].Size[Fabric] = to
		w.want()
		w.run(90 * time.Second)
	}
	check := func(state State, size int) {
		t.Helper()
		if v := w.verdict(0, Fabric); v.State != state || v.Size != size {
			t.Errorf("%+v, want %s, %d", v, state, size)
		}
	}
	w.run(time.Minute)
	check(Narrow, 1400)
	resize(1380)
	check(Well, 1380)
	resize(1390)
	check(Well, 1390)
	resize(8950)
	check(Narrow, 1400)
	most = 9000
	resize(8900)
	check(Well, 8900)
	resize(0)
	if v := w.verdict(0, Fabric); v.State != Well {
		t.Errorf("only small ones should arrive: %+v", v)
	}
}

// Sizes that the kernel does not send are too large, and it is told why.
func TestTooLongToSend(t *testing.T) {
	w := newWorld(t, ip.IPv4, 2)
	w.refuses = func(q request) string {
		if q.way == Fabric && q.size > 1350 {
			return "message too long"
		}
		return ""
	}
	w.run(time.Minute)
	if v := w.verdict(0, Fabric); v.State != Narrow || v.Size != 1350 || v.Reason != "message too long" {
		t.Errorf("%+v", v)
	}
	if v := w.verdict(0, Underlay); v.State != Well || v.Reason != "" {
		t.Errorf("%+v", v)
	}
	w.checkRate()
}

// A search ends right although sizes that arrive are lost now and then, and in few steps if the guess is right.
func TestSearch(t *testing.T) {
	for _, c := range []struct {
		most, guess int
		lose        map[int]int // question: that one is lost, though its size arrives
		steps       int         // at most
	}{
		{most: 1400, steps: 25},
		{most: 1400, guess: 1400, steps: 7},
		{most: 1400, guess: 1300, steps: 28},
		{most: 1400, guess: 1450, steps: 26},
		{most: 1400, lose: map[int]int{1: 1, 3: 1, 5: 1}, steps: 30},
		{most: 1400, lose: map[int]int{1: 1, 2: 1}, steps: 50},        // twice: the middle counts as too large, until the end
		{most: 1400, lose: map[int]int{8: 1, 9: 1, 10: 1}, steps: 60}, // later
		{most: 1499, steps: 20},
		{most: 1500, lose: map[int]int{1: 1, 2: 1}, steps: 40}, // the size it began with arrives after all
	} {
		s, steps := narrowing(ip.IPv4, 1500, c.guess), 0
		for ; !s.done && steps < 1000; steps++ {
			if size := s.next(); size <= c.most && c.lose[steps] == 0 {
				s.heard(size)
			} else {
				s.missed(size)
			}
		}
		if s.lo != c.most || steps > c.steps {
			t.Errorf("%+v: found %d in %d steps", c, s.lo, steps)
		}
	}
}

// After packets have been lost altogether, large ones are asked for at once: they may go another way.
func TestLargeOnesArriveAgainAfterACut(t *testing.T) {
	w, most := newWorld(t, ip.IPv4, 3), 1300
	w.run(20 * time.Second)
	w.arrives = blackHole(Fabric, &most)
	w.until(time.Minute, func() bool { return w.verdict(0, Fabric).State == Narrow })
	w.arrives = func(*world, request) bool { return false }
	w.until(time.Minute, func() bool { return w.verdict(0, Fabric).State == Unreachable })
	w.arrives = func(*world, request) bool { return true }
	if took := w.until(time.Minute, func() bool { return w.verdict(0, Fabric).State == Well }); took > 20*time.Second {
		t.Errorf("%+v after %v", w.verdict(0, Fabric), took)
	}
}

// Where packets are lost whatever their size, as in a flood, that is not taken for a size.
func TestLossIsNotASize(t *testing.T) {
	for _, loss := range []int{20, 30, 40, 50} {
		w := newWorld(t, ip.IPv4, 20)
		w.run(time.Minute)
		random := rand.New(rand.NewPCG(7, uint64(loss)))
		w.arrives = func(*world, request) bool { return random.IntN(100) >= loss }
		narrow := 0
		w.until(30*time.Minute, func() bool {
			for i := range w.peers {
				for _, way := range Ways() {
					if w.verdict(i, way).State == Narrow {
						narrow++
					}
				}
			}
			return narrow > 0
		})
		if narrow > 0 {
			t.Errorf("%d%% loss: a way is narrow", loss)
		}
	}
}

// It takes two losses in a row to go on below a size, and three at the end.
func TestSearchTakesItsTime(t *testing.T) {
	s := narrowing(ip.IPv4, 1500, 0)
	for range stepLosses {
		if s.hi != 1500 {
			t.Error("too few losses to go on")
		}
		s.missed(576)
	}
	if s.hi != 576 || s.done {
		t.Errorf("%+v, want to go on below", s)
	}
	for range finalLosses {
		if s.done {
			t.Error("too few losses to end")
		}
		s.missed(s.next())
	}
	if !s.done || s.lo != smallPacket(ip.IPv4) || stepLosses != 2 || finalLosses != 3 {
		t.Errorf("%+v, want an end", s)
	}
}

// What was found for one peer is tried first with others: a network that is narrow all over does not take hours to know.
func TestGuess(t *testing.T) {
	w := newWorld(t, ip.IPv4, 20)
	w.arrives = func(w *world, q request) bool { return q.way != Fabric || q.size <= 1371 }
	w.until(time.Minute, func() bool { return len(w.s.tally.bad) > 0 })
	asked := len(w.asked)
	took := w.until(5*time.Minute, func() bool { return len(w.s.tally.bad) == 20 })
	if took > 2*time.Minute {
		t.Errorf("all known after %v, %d questions", took, len(w.asked)-asked)
	}
	for i := range w.peers {
		if v := w.verdict(i, Fabric); v.Size != 1371 {
			t.Errorf("peer %d: %+v", i, v)
		}
	}
}
