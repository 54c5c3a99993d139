package sim

import "testing"

// TestNamedSeeds runs again what once broke something: schedules under which it came to light at one time in the life of
// this package. A change of what seeds decide makes them others; what they found is distilled in the tests named here.
func TestNamedSeeds(t *testing.T) {
	for name, seed := range map[string]uint64{
		// A daemon stopped in the middle of a pass slept five times as long afterwards.
		// internal/agent: TestScheduleAfterAStopInTheMiddleOfAPass
		"stopped in the middle of a pass": 92,
		// A running daemon took a reservation that was written while it had lost its lease, and changed its subnet.
		// subnet/subnettest: KeptSubnetBeforeOthers
		"a reservation while the lease is lost": 163,
		// A lease that nobody uses, since it is too wide, kept a host from starting without the store.
		// internal/agent: TestKeptViewWithALeaseThatNobodyUses
		"a wide lease in the kept view": 75,
		// After a wipe, those that were not yet back were believed gone, because most were back already.
		// subnet: TestHoldback
		"a wipe seen late": 379,
		// A daemon that was down while an old backup was restored believed the first view that it saw.
		// internal/agent: TestRestoreWhileDownChangesNothing
		"a restore while the daemon is down": 1168,
		// After a restore the store used revisions again: a host took another's lease, and another its own of another time, for what it
		// had written. subnet/subnettest: TestSameRevisionAfterRestore
		"another's lease with the same revision": 199,
		"an old lease with the same revision":    1564,
		// A lease inside of its subnet, younger than its own, kept a host from starting without the store.
		// internal/agent: TestKeptViewWithALeaseThatNobodyUses
		"a young lease in the kept view": 752,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			simulate(t, newSchedule(seed, 1), false)
		})
	}
}
