package etcdtransport

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestBurst(t *testing.T) {
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
		pauses   int // how often the watch pauses
	}{
		"a small network starts":              {repeat(message{0, 1}, burstAllowance), 0},
		"a slow trickle":                      {repeat(message{500 * ms, 1}, 1000), 0},
		"a large network starts":              {append(repeat(message{0, 1}, burstAllowance+1), repeat(message{time.Second / 4, 100}, 20)...), 21},
		"a network that changes all the time": {append(repeat(message{0, 1}, burstAllowance+1), repeat(message{time.Second / 4, 100}, 1000)...), 1 + int(4*burstMost/time.Second)},
		"it was no burst":                     {append(repeat(message{0, 1}, burstAllowance+1), repeat(message{time.Millisecond, 1}, 1000)...), 1},
		"long after, many at once":            {append([]message{{burstSilence + ms, 1}}, repeat(message{0, 1}, 1000)...), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, pauses := NewBurst(), 0
				for _, m := range test.messages {
					<-time.After(m.after)
					if b.Observe(m.changes) {
						pauses++
					}
				}
				if pauses != test.pauses {
					t.Errorf("pauses %d times, want %d", pauses, test.pauses)
				}
			})
		})
	}
}
