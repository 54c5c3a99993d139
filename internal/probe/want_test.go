package probe

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"tulle/ip"
)

// Peers and addresses come, change and go.
func TestWanted(t *testing.T) {
	w := newWorld(t, ip.IPv4, 5)
	w.arrives = func(w *world, q request) bool { return !w.to(q, 4) }
	w.run(time.Minute)
	if len(w.s.bad().Reports) != 1 {
		t.Fatalf("bad: %+v", w.s.bad())
	}

	w.peers = w.peers[:4] // the bad one goes
	changes := w.changes
	w.want()
	w.look()
	if b := w.s.bad(); len(b.Reports) != 0 || b.Asked != 4 || w.changes != changes+1 {
		t.Errorf("bad: %+v, changes %d", b, w.changes-changes)
	}
	w.want() // nothing is new
	if w.look(); w.changes != changes+1 {
		t.Error("a wish that is not new is a change")
	}

	w.peers[0].At[Fabric] = netip.AddrPort{} // one is asked one way only, another elsewhere
	w.peers[1].At[Underlay] = netip.AddrPortFrom(address(ip.IPv4, Underlay, 99), 8473)
	w.want()
	if v := w.verdict(0, Fabric); v.State != Unknown {
		t.Errorf("not asked any more, but %+v", v)
	}
	if v := w.verdict(1, Underlay); v.State != Unknown || w.verdict(1, Fabric).State != Well {
		t.Errorf("asked elsewhere, but %+v", v)
	}
	if got, want := w.s.tally.Peers, [ways][states]int{{1, 3, 0, 0}, {0, 3, 0, 0}}; got != want {
		t.Errorf("counted %v, want %v", got, want)
	}
	asked := len(w.asked)
	w.run(time.Minute)
	for _, q := range w.asked[asked:] {
		if w.to(q, 0) && q.way == Fabric || q.to.Addr() == address(ip.IPv4, Underlay, 2) || q.to.Addr() == address(ip.IPv4, Underlay, 5) {
			t.Errorf("asked all the same: %v", q.to)
		}
	}
	if v := w.verdict(1, Underlay); v.State != Well {
		t.Errorf("asked elsewhere: %+v", v)
	}

	w.s.use(Fabric, ip.IPv4, false, w.now) // the device goes
	asked = len(w.asked)
	w.run(time.Minute)
	if v := w.verdict(2, Fabric); v.State != Unknown || slices.ContainsFunc(w.asked[asked:], func(q request) bool { return q.way == Fabric }) {
		t.Errorf("without an address of its own: %+v", v)
	}
	w.s.use(Fabric, ip.IPv4, true, w.now)
	w.run(time.Minute)
	if v := w.verdict(2, Fabric); v.State != Well {
		t.Errorf("with an address again: %+v", v)
	}

	w.peers = nil
	w.want()
	if !w.s.wake().IsZero() && len(w.s.sent) == 0 {
		t.Errorf("nobody to ask, but to wake at %v", w.s.wake().Sub(w.now))
	}
	if w.s.tally.Peers != ([ways][states]int{}) || w.s.on != 0 || w.s.quick != 0 || len(w.s.turns)+len(w.s.hurried) != 0 {
		t.Errorf("left: %v, on %d, quick %d", w.s.tally.Peers, w.s.on, w.s.quick)
	}
}

// When most peers go, the others do not wait for as long as before.
func TestTurnsComeSoonerWithFewerPeers(t *testing.T) {
	w := newWorld(t, ip.IPv4, 10_000)
	w.run(time.Second)
	w.peers = w.peers[:3]
	w.want()
	if took := w.until(time.Hour, func() bool { return w.all(Well) }); took > 6*time.Second {
		t.Errorf("known after %v", took)
	}
}

// Who sees a new host at the same time as all others does not ask it at the same time.
func TestNewPeersAreAskedAtRandom(t *testing.T) {
	w := newWorld(t, ip.IPv4, 2000)
	w.run(time.Minute)
	var at []time.Duration
	for i := range 20 {
		w.peers = append(w.peers, somePeer(ip.IPv4, 5000+i))
	}
	w.want()
	for i := range 20 {
		at = append(at, w.s.peers[peerID{w.peers[2000+i].Lease, ip.IPv4}].lines[Fabric].due.Sub(w.now))
	}
	slices.Sort(at)
	if period := w.s.turn(); at[0] > period/3 || at[19] < 2*period/3 || at[19] > period {
		t.Errorf("due after %v to %v, want anywhere in %v", at[0], at[19], period)
	}
}

// This host's own address is a new one: that counts as if the peers were new, but what is known of them stays.
func TestOwnAddressChanges(t *testing.T) {
	w := newWorld(t, ip.IPv4, 2)
	w.run(time.Minute)
	changes := w.changes
	w.from.Addr[Fabric].V4 = address(ip.IPv4, Fabric, 77)
	known := w.now.Add(9 * time.Second)
	w.arrives = func(w *world, q request) bool { return q.way != Fabric || !w.now.Before(known) }
	w.want()
	w.run(time.Minute)
	if w.changes != changes || !w.all(Well) {
		t.Errorf("%d changes, want none", w.changes-changes)
	}
}
