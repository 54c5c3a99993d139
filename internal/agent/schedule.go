package agent

import (
	"time"

	"tulle/internal/backoff"
	"tulle/internal/fabric"
)

const (
	resyncEvery         = 30 * time.Second      // finds what no notification tells: sysctls, lost messages
	debounce            = 20 * time.Millisecond // lets a burst of changes become one pass
	busyMost            = time.Second           // between passes that each change the kernel
	busyFor             = 5 * time.Second       // without a pass, and the next change is dealt with at once again
	slowdown            = 5                     // passes may take up one part in this many of a processor's time
	incrementalSlowdown = 2                     // and incremental ones, which are spaced out as it is
	pauseMost           = 10 * time.Second      // for that
)

// schedule decides when the next pass is due. A wake-up brings it forward and never puts it off, so that no storm of
// events keeps passes from happening; and the more passes change something, the longer the pauses between them, so that
// neither a contest with another program nor a cluster that starts all at once takes up the machine.
//
// Incremental passes come between, at once, and put off nothing.
type schedule struct {
	timer    *time.Timer
	due      time.Time // when the next full pass is
	earliest time.Time // what wake-ups are held back until
	last     time.Time // end of the last full pass
	busy     backoff.Backoff
	retry    backoff.Backoff

	incremental      time.Time // when the next incremental pass is; zero: none is needed
	incrementalAfter time.Time // what those are held back until
}

func newSchedule() *schedule {
	return &schedule{
		timer: time.NewTimer(0),
		due:   time.Now(),
		busy:  backoff.Backoff{First: debounce, Most: busyMost},
		retry: backoff.Backoff{First: fabric.RetryFirst, Most: fabric.RetryMost},
	}
}

func (s *schedule) stop() { s.timer.Stop() }

// wake makes a pass due soon.
func (s *schedule) wake() {
	at := time.Now().Add(debounce)
	if at.Before(s.earliest) {
		at = s.earliest
	}
	s.by(at)
}

// by makes a pass due at a time, if none is sooner.
func (s *schedule) by(at time.Time) {
	if at.Before(s.due) {
		s.set(at)
	}
}

// passed takes note of a pass: what it took of a processor's time, whether all is well now, and whether it changed the kernel. Where others hold the
// kernel's network lock, it lasts much longer than that, which is no reason to put off the next.
func (s *schedule) passed(started time.Time, took time.Duration, ready, changed bool) {
	now := time.Now()
	pause := min(slowdown*took, pauseMost)
	if !changed || started.Sub(s.last) > busyFor {
		s.busy.Reset()
	}
	if changed {
		pause = max(pause, s.busy.Next())
	}
	s.last, s.earliest = now, now.Add(pause)
	next := resyncEvery
	if ready {
		s.retry.Reset()
	} else {
		next = s.retry.Next()
	}
	s.incremental = time.Time{}
	s.set(now.Add(max(next, pause)))
}

// leases makes an incremental pass due.
func (s *schedule) leases() {
	if !s.incremental.IsZero() {
		return
	}
	if s.incremental = time.Now(); s.incremental.Before(s.incrementalAfter) {
		s.incremental = s.incrementalAfter
	}
	s.reset()
}

// isIncremental reports whether it is an incremental pass that is due.
func (s *schedule) isIncremental() bool {
	return !s.incremental.IsZero() && s.incremental.Before(s.due)
}

// passedIncremental takes note of an incremental pass, and of what it took of a processor's time.
func (s *schedule) passedIncremental(took time.Duration) {
	s.incremental, s.incrementalAfter = time.Time{}, time.Now().Add(min(incrementalSlowdown*took, pauseMost))
	s.reset()
}

// tooMany makes what was to be an incremental pass a full one.
func (s *schedule) tooMany() {
	s.incremental = time.Time{}
	s.reset()
	s.wake()
}

func (s *schedule) set(due time.Time) {
	s.due = due
	s.reset()
}

func (s *schedule) reset() {
	at := s.due
	if s.isIncremental() {
		at = s.incremental
	}
	s.timer.Reset(time.Until(at))
}
