package subnettest

import (
	"testing"
	"time"

	"tulle/subnet"
)

func sleepTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"BeliefEndsInASleep":        beliefEndsInASleep,
		"BeliefOutlivesAShortSleep": beliefOutlivesAShortSleep,
	}
}

// asleep is the claim of host 1 for a lease of which a good part runs out before the next renewal.
func asleep() subnet.Claim {
	claim := claimOf(1)
	claim.TTL = 10 * time.Second
	return claim
}

func beliefEndsInASleep(t *testing.T, h Harness) {
	h.Configure(network4())
	x, far := startAfar(t, h, asleep())
	far.Cut()
	far.Sleep(asleep().TTL)
	if left := x.held.Remaining(); left > 0 {
		t.Errorf("after a sleep as long as the lease, %v are left", left)
	}
	wantKept(t, x) // that nobody else has it, it must hear from the store
	far.Mend()
	for deadline := time.After(patience); x.held.Remaining() <= 0; {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatal("the lease is not renewed after the sleep")
		}
	}
	wantKept(t, x)
	wantLeases(t, h, x.subnets())
}

func beliefOutlivesAShortSleep(t *testing.T, h Harness) {
	h.Configure(network4())
	x, far := startAfar(t, h, asleep())
	far.Sleep(asleep().TTL / 2)
	if left := x.held.Remaining(); left <= 0 || left > asleep().TTL/2 {
		t.Errorf("after a sleep half as long as the lease, %v are left", left)
	}
}

// Sleep has this host's machine suspended for d, within no time: its timers stand still, its uptime goes on, and the store has
// d less time for its leases. To all others nothing happens for d.
func (s *Store) Sleep(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slept += d
	if s.down {
		return // no lease runs out meanwhile
	}
	for _, h := range s.live {
		r, ok := s.keys[h.key()]
		if h.session != s || !ok || r.expiry == nil || !h.owns(r) {
			continue
		}
		if left := time.Until(r.expires) - d; left > 0 {
			r.lastFor(left)
		} else {
			s.delete(h.key())
		}
	}
}

// uptime is the host's clock that goes on while the machine is suspended. The lock is held.
func (s *Store) uptime() time.Duration { return time.Since(s.born) + s.slept }
