package subnettest

import (
	"testing"
	"time"

	"tulle/subnet"
)

// complaintTests are about what hosts say of peers that packets do not arrive at.
func complaintTests() map[string]func(*testing.T, KeyHarness) {
	return map[string]func(*testing.T, KeyHarness){
		"ComplaintComesAndGoes":    complaintComesAndGoes,
		"ComplaintOfAnEarlierRun":  complaintOfAnEarlierRun,
		"ComplaintAmidRubbish":     complaintAmidRubbish,
		"ComplaintGoesWithLease":   complaintGoesWithLease,
		"ComplaintOfALostLease":    complaintOfALostLease,
		"ComplaintOfAReservation":  complaintOfAReservation,
		"ComplaintIsPutRight":      complaintIsPutRight,
		"ComplaintAndProbesAreOff": complaintAndProbesAreOff,
	}
}

// probedClaim is the claim of host n, which is asked whether packets arrive.
func probedClaim(n int) subnet.Claim {
	claim := claimOf(n)
	claim.Attrs.Probe = subnet.Probe{Port: 8473, Key: subnet.ProbeKey{byte(n)}}
	return claim
}

// complaint is about one peer, of which packets of a size arrive.
func complaint(size int) *subnet.Complaint {
	return &subnet.Complaint{Time: time.Now(), Peers: []subnet.BadPeer{{
		Lease: "10.5.99.0-24", Node: "node-99", Family: "ipv4", Way: "fabric", State: subnet.PeerNarrow, Size: size, Full: 1450, Since: time.Unix(1764547200, 0),
	}}}
}

func (x *host) complain(c *subnet.Complaint) {
	x.t.Helper()
	if err := x.held.Complain(x.t.Context(), c); err != nil {
		x.t.Fatal(err)
	}
}

// wantComplaint fails unless the complaint of host n is that, on its lease, and returns its value.
func wantComplaint(t *testing.T, h KeyHarness, n int, x *host, want *subnet.Complaint) string {
	t.Helper()
	node := claimOf(n).Attrs.Node
	value, expires, ok := h.Get(ComplaintOf(node))
	if want == nil {
		if ok {
			t.Errorf("there is the complaint %s, want none", value)
		}
		return ""
	}
	own := *want
	own.Node, own.Lease = node, subnet.KeyOf(x.subnets())
	if got, err := subnet.ParseComplaint(node, []byte(value)); err != nil || !expires || !got.Says(&own) {
		t.Errorf("the complaint is %q, it expires: %t, %v, want %+v that does", value, expires, err, own)
	}
	return value
}

// untilNoComplaint waits until that of host n has gone.
func untilNoComplaint(t *testing.T, h KeyHarness, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		value, _, ok := h.Get(ComplaintOf(claimOf(n).Attrs.Node))
		if !ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the complaint %s stays", value)
		}
	}
}

// complaintComesAndGoes writes what differs from what is there, and nothing else.
func complaintComesAndGoes(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	x, y := start(t, h, probedClaim(1)), start(t, h, probedClaim(2))
	x.complain(nil)
	wantComplaint(t, h, 1, x, nil)
	x.complain(complaint(1300))
	first := wantComplaint(t, h, 1, x, complaint(1300))
	<-time.After(time.Millisecond)
	x.complain(complaint(1300))
	if again := wantComplaint(t, h, 1, x, complaint(1300)); again != first {
		t.Errorf("written again was what had been there: %s, %s", first, again)
	}
	y.complain(complaint(1400))
	x.complain(complaint(1200))
	wantComplaint(t, h, 1, x, complaint(1200))
	x.complain(nil)
	x.complain(nil)
	wantComplaint(t, h, 1, x, nil)
	wantComplaint(t, h, 2, y, complaint(1400))
	if err := x.held.Complain(t.Context(), &subnet.Complaint{}); err == nil {
		t.Error("nonsense was written")
	}
	wantKept(t, x)
}

func complaintOfAnEarlierRun(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	x := start(t, h, probedClaim(1))
	x.complain(complaint(1300))
	first := wantComplaint(t, h, 1, x, complaint(1300))
	for _, next := range []*subnet.Complaint{complaint(1300), nil} {
		x.kill()
		claim := probedClaim(1)
		claim.Attrs.Probe.Key[3]++
		x = start(t, h, claim)
		if kept := wantComplaint(t, h, 1, x, complaint(1300)); kept != first {
			t.Errorf("a restart changes %s to %s", first, kept)
		}
		x.complain(next)
		if now := wantComplaint(t, h, 1, x, next); next != nil && now != first {
			t.Errorf("written again was what an earlier run had written: %s, %s", first, now)
		}
	}
}

// complaintAmidRubbish finds at its place what no host writes.
func complaintAmidRubbish(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	for n, next := range map[int]*subnet.Complaint{1: complaint(1300), 2: nil} {
		h.Put(ComplaintOf(claimOf(n).Attrs.Node), "\x1b[2J", 0)
		x := start(t, h, probedClaim(n))
		x.complain(next)
		wantComplaint(t, h, n, x, next)
	}
}

func complaintGoesWithLease(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	x := start(t, h, probedClaim(1))
	x.complain(complaint(1300))
	if err := x.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantComplaint(t, h, 1, x, nil)
	if err := x.held.Complain(t.Context(), complaint(1300)); err == nil {
		t.Error("a host without a lease complains")
	}
	wantComplaint(t, h, 1, x, nil)

	claim := probedClaim(2)
	claim.TTL = 3 * time.Second
	y := start(t, h, claim)
	y.complain(complaint(1300))
	<-time.After(2 * claim.TTL)
	wantComplaint(t, h, 2, y, complaint(1300))
	y.kill()
	untilNoComplaint(t, h, 2)
}

func complaintOfALostLease(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	x := start(t, h, probedClaim(1))
	x.complain(complaint(1300))
	h.Put(keyOf(x.subnets()), encode(t, claimOf(3).Attrs), time.Hour)
	if err := x.held.Complain(t.Context(), complaint(1200)); err == nil {
		t.Error("a host complains whose lease is another's, whether it knows that or not")
	}
	wantLost(t, x, "node-3")
	untilNoComplaint(t, h, 1)
	if err := x.held.Complain(t.Context(), complaint(1300)); err == nil {
		t.Error("a host that has lost its lease complains")
	}
	wantComplaint(t, h, 1, x, nil)
}

// complaintOfAReservation hangs on no lease, and goes all the same.
func complaintOfAReservation(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	claim := probedClaim(1)
	claim.TTL = subnet.Forever
	x := start(t, h, claim)
	x.complain(complaint(1300))
	first := wantComplaint(t, h, 1, x, complaint(1300))
	<-time.After(time.Millisecond)
	x.complain(complaint(1300))
	if again := wantComplaint(t, h, 1, x, complaint(1300)); again != first {
		t.Errorf("written again was what had been there: %s, %s", first, again)
	}
	if err := x.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantComplaint(t, h, 1, x, nil)
	if _, _, ok := h.Get(keyOf(x.subnets())); !ok {
		t.Error("the reservation has gone")
	}
	if err := x.held.Complain(t.Context(), complaint(1300)); err == nil {
		t.Error("a host that has let go of its lease complains")
	}
}

// complaintIsPutRight has lease and complaint vanish together.
func complaintIsPutRight(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	x := start(t, h, probedClaim(1))
	x.complain(complaint(1300))
	before := x.held.Lease().Created
	h.Delete(ComplaintOf("node-1"))
	h.Delete(keyOf(x.subnets()))
	for deadline := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		err := x.held.Complain(t.Context(), complaint(1300))
		if _, _, ok := h.Get(ComplaintOf("node-1")); ok && x.held.Lease().Created > before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the complaint does not come back: %v", err)
		}
	}
	wantComplaint(t, h, 1, x, complaint(1300))
}

// complaintAndProbesAreOff: nobody would look after what an earlier run has complained of.
func complaintAndProbesAreOff(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	x := start(t, h, probedClaim(1))
	x.complain(complaint(1300))
	x.kill()
	wantComplaint(t, h, 1, start(t, h, claimOf(1)), nil)
}
