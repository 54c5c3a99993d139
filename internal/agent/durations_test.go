package agent

import (
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	var d Durations
	for _, took := range []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 200 * time.Millisecond, time.Minute} {
		d.add(took)
	}
	if want := (Durations{time.Minute + 203*time.Millisecond, [8]uint64{2, 3, 3, 3, 3, 4, 4, 4}}); d != want {
		t.Errorf("counted %v, want %v", d, want)
	}
}

// Each pass is counted as what it was, and what remains of the lease is told.
func TestPassesAreTimed(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		work := w.hosts[0].agent.Status().Work
		if left := w.hosts[0].agent.Status().Networks[0].Lease.Remaining; left <= 0 || left > 25*time.Hour {
			t.Errorf("the lease is held for %v, want some hours", left)
		}
		// In this world none takes longer than the last bound.
		if full, few := work.TookFull.Within[7], work.TookIncremental.Within[7]; full != work.Passes || few != work.Incremental || full == 0 {
			t.Errorf("%d full and %d incremental passes are timed, of %d and %d", full, few, work.Passes, work.Incremental)
		}
	})
}
