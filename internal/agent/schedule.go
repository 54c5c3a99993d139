package agent

import (
	"time"

	"tulle/internal/backoff"
)

const (
	resyncEvery = 30 * time.Second      // finds what no notification tells: sysctls, lost messages
	settle      = 20 * time.Millisecond // lets a burst of changes become one pass
	busyMost    = time.Second           // between passes that each change the kernel
	busyFor     = 5 * time.Second       // without a pass, and the next change is dealt with at once again
	slowdown    = 5                     // passes may take up one part in this many of the time
	fewSlowdown = 2                     // and those over a few leases, which are spaced out as it is
	pauseMost   = 10 * time.Second      // for that: who was stopped in the middle of a pass did not work all the time
	retryFirst  = 250 * time.Millisecond
	retryMost   = 15 * time.Second
)

// schedule decides when the next pass is due. A wake-up brings it forward and never puts it off, so that no storm of
// events keeps passes from happening; and the more passes change something, the longer the pauses between them, so that
// neither a contest with another program nor a cluster that starts all at once takes up the machine.
//
// Passes over a few leases come between, at once, and put off nothing.
type schedule struct {
	timer    *time.Timer
	due      time.Time // when the next pass over everything is
	few      time.Time // when the next one over a few leases is; zero: none is needed
	fewAfter time.Time // what those are held back until
	earliest time.Time // what wake-ups are held back until
	last     time.Time // end of the last pass
	busy     backoff.Backoff
	retry    backoff.Backoff
}

func newSchedule() *schedule {
	return &schedule{
		timer: time.NewTimer(0),
		due:   time.Now(),
		busy:  backoff.Backoff{First: settle, Most: busyMost},
		retry: backoff.Backoff{First: retryFirst, Most: retryMost},
	}
}

func (s *schedule) stop() { s.timer.Stop() }

// wake makes a pass due soon.
func (s *schedule) wake() {
	at := time.Now().Add(settle)
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

// passed takes note of a pass: whether all is well now, and whether it changed the kernel.
func (s *schedule) passed(started time.Time, ready, changed bool) {
	now := time.Now()
	pause := min(slowdown*now.Sub(started), pauseMost)
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
	s.few = time.Time{}
	s.set(now.Add(max(next, pause)))
}

// leases makes a pass over a few leases due.
func (s *schedule) leases() {
	if !s.few.IsZero() {
		return
	}
	if s.few = time.Now(); s.few.Before(s.fewAfter) {
		s.few = s.fewAfter
	}
	s.reset()
}

// isFew reports whether it is a pass over a few leases that is due.
func (s *schedule) isFew() bool { return !s.few.IsZero() && s.few.Before(s.due) }

// passedFew takes note of a pass over a few leases.
func (s *schedule) passedFew(started time.Time) {
	now := time.Now()
	s.few, s.fewAfter = time.Time{}, now.Add(min(fewSlowdown*now.Sub(started), pauseMost))
	s.reset()
}

// tooMany makes what was to be a pass over a few leases one over everything.
func (s *schedule) tooMany() {
	s.few = time.Time{}
	s.reset()
	s.wake()
}

func (s *schedule) set(due time.Time) {
	s.due = due
	s.reset()
}

func (s *schedule) reset() {
	at := s.due
	if s.isFew() {
		at = s.few
	}
	s.timer.Reset(time.Until(at))
}
