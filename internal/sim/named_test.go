package sim

import "testing"

// TestNamedSeeds runs again what once broke something, by the seeds under which it comes to light when it is broken again,
// and the throws that their schedules had. What they found is distilled in the tests named here, and so is what earlier dice
// found and no seed is known for now:
//   - a running daemon took a reservation that was written while it had lost its lease, and changed its subnet
//     (subnet/subnettest: KeptSubnetBeforeOthers);
//   - after a wipe, those that were not yet back were believed gone, because most were back already (subnet: TestHoldback);
//   - a daemon that was down while an old backup was restored believed the first view that it saw
//     (internal/agent: TestRestoreWhileDownChangesNothing).
func TestNamedSeeds(t *testing.T) {
	for name, s := range map[string]struct {
		seed   uint64
		throws int
	}{
		// A daemon stopped in the middle of a pass slept five times as long afterwards.
		// internal/agent: TestScheduleAfterAStopInTheMiddleOfAPass
		"stopped in the middle of a pass": {41, 2},
		// A lease that nobody uses, since it is too wide, kept a host from starting without the store.
		// internal/agent: TestCachedViewWithALeaseThatNobodyUses
		"a wide lease in the cached view": {142, 2},
		// A lease inside of its subnet, younger than its own, did so too.
		"a young lease in the cached view": {752, 1},
		// After a restore the store used revisions again, and a host took another's lease for what it had written.
		// subnet/subnettest: TestSameRevisionAfterRestore
		"another's lease with the same revision": {199, 2},
		// A clone of a host that was cut off took over its lease while that host still held it.
		// subnet/subnettest: NodeIDOnOtherHardware
		"a clone of a host that is cut off": {37, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			simulate(t, newSchedule(s.seed, s.throws), false)
		})
	}
}
