package etcd

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestStorm(t *testing.T) {
	// each message comes a time after the one before, with a number of changes
	type message struct {
		after   time.Duration
		changes int
	}
	repeat := func(m message, n int) (all []message) {
		for range n {
			all = append(all, m)
		}
		return all
	}
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		messages []message
		away     int // how often the watch pauses
	}{
		"a small network starts":              {repeat(message{0, 1}, stormPatience), 0},
		"a slow trickle":                      {repeat(message{500 * ms, 1}, 1000), 0},
		"a large network starts":              {append(repeat(message{0, 1}, stormPatience+1), repeat(message{time.Second / 4, 100}, 20)...), 21},
		"a network that changes all the time": {append(repeat(message{0, 1}, stormPatience+1), repeat(message{time.Second / 4, 100}, 1000)...), 1 + int(4*stormMost/time.Second)},
		"it was no storm":                     {append(repeat(message{0, 1}, stormPatience+1), repeat(message{time.Millisecond, 1}, 1000)...), 1},
		"long after, many at once":            {append([]message{{stormSilence + ms, 1}}, repeat(message{0, 1}, 1000)...), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, away := newStorm(), 0
				for _, m := range test.messages {
					<-time.After(m.after)
					if s.observe(m.changes) {
						away++
					}
				}
				if away != test.away {
					t.Errorf("pauses %d times, want %d", away, test.away)
				}
			})
		})
	}
}
