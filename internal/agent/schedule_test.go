package agent

import (
	"testing"
	"testing/synctest"
	"time"
)

// run drives a schedule for d: wakes come every interval, each pass takes the given time and ends as told.
func run(d, interval, takes time.Duration, ready, changed bool) (passes int) {
	s := newSchedule()
	defer s.stop()
	end := time.After(d)
	wakes := time.NewTicker(interval)
	defer wakes.Stop()
	for {
		select {
		case <-end:
			return passes
		case <-wakes.C:
			s.wake()
		case <-s.timer.C:
			started := time.Now()
			<-time.After(takes)
			passes++
			s.passed(started, takes, ready, changed)
		}
	}
}

func TestSchedule(t *testing.T) {
	const never = 1000 * time.Hour
	for _, tt := range []struct {
		name            string
		interval, takes time.Duration
		ready, changed  bool
		atLeast, atMost int // passes in ten minutes
	}{
		{"at rest", never, time.Millisecond, true, false, 20, 21},
		{"a storm does not starve passes", 5 * time.Millisecond, time.Millisecond, true, false, 10_000, 30_000},
		{"slow passes leave time to others", 10 * time.Millisecond, time.Second, true, false, 95, 101},
		{"a contest is fought slowly", 10 * time.Millisecond, time.Millisecond, true, true, 480, 900},
		{"a contest that is lost", 10 * time.Millisecond, time.Millisecond, false, true, 480, 900},
		{"what fails is retried less and less", never, time.Millisecond, false, true, 40, 90}, // every 7.5 to 15 s in the end
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := run(10*time.Minute, tt.interval, tt.takes, tt.ready, tt.changed)
				if got < tt.atLeast || got > tt.atMost {
					t.Errorf("%d passes in ten minutes, want %d to %d", got, tt.atLeast, tt.atMost)
				}
			})
		})
	}
}

func TestScheduleAnswersAtOnceAfterCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSchedule()
		defer s.stop()
		<-s.timer.C
		for range 10 { // a contest
			s.passed(time.Now(), 0, true, true)
			s.wake()
			<-s.timer.C
		}
		s.passed(time.Now(), 0, true, true)
		<-time.After(busyFor + time.Second)
		for range 2 {
			woken := time.Now()
			s.wake()
			<-s.timer.C
			if waited := time.Since(woken); waited > 2*debounce {
				t.Errorf("a pass %v after the wake-up, want it at once", waited)
			}
			s.passed(time.Now(), 0, true, true)
		}
	})
}

// A pass that only waits, for the kernel's network lock or because the process was stopped, puts off nothing.
func TestScheduleAfterAPassThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSchedule()
		defer s.stop()
		<-s.timer.C
		started := time.Now()
		<-time.After(time.Hour)
		s.passed(started, time.Millisecond, true, false)
		s.wake()
		<-s.timer.C
		if waited := time.Since(started) - time.Hour; waited > 2*debounce {
			t.Errorf("the next pass comes after %v, want it at once", waited)
		}
	})
}

// Incremental passes take their part of the time, and put off no full one.
func TestScheduleOfIncrementalPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const takes = 10 * time.Millisecond
		s := newSchedule()
		defer s.stop()
		<-s.timer.C
		s.passed(time.Now(), 0, true, false)
		end := time.After(time.Minute)
		incremental, full := 0, 0
		for {
			s.leases()
			select {
			case <-end:
				if most := int(time.Minute / (takes * (1 + incrementalSlowdown))); incremental < most*9/10 || incremental > most || full != 1 && full != 2 {
					t.Errorf("%d incremental passes in a minute, want some %d; %d full ones, want one every %v", incremental, most, full, resyncEvery)
				}
				return
			case <-s.timer.C:
			}
			started := time.Now()
			<-time.After(takes)
			if s.isIncremental() {
				incremental++
				s.passedIncremental(takes)
			} else {
				full++
				s.passed(started, takes, true, false)
			}
		}
	})
}

func TestScheduleTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSchedule()
		defer s.stop()
		<-s.timer.C
		s.passed(time.Now(), 0, true, false)
		<-time.After(time.Second)
		s.leases()
		<-s.timer.C
		if !s.isIncremental() {
			t.Fatal("a full pass is due")
		}
		found := time.Now()
		s.tooMany()
		<-s.timer.C
		if waited := time.Since(found); s.isIncremental() || waited > 2*debounce {
			t.Errorf("incremental again: %t; after %v, want a full pass at once", s.isIncremental(), waited)
		}
	})
}
