package etcdtransport

import (
	"time"

	"tulle/internal/backoff"
)

// Burst tells a watch to pause while changes come by the hundred. Of a thousand hosts that start at once each writes a key,
// and etcd tells each of them of every one: a million messages, one by one to whoever watches at the time. Who comes back
// later gets in one message all that there was meanwhile.
//
// Only a watch that has known no calm pauses, and only while it is young. After that it hears of each change at once.
type Burst struct {
	Pause backoff.Backoff // how long to pause each time

	calm      bool
	end       time.Time // when there is calm in any case
	pausing   bool      // the next message tells of what there was meanwhile
	last      time.Time // when a message came, or the watch began
	allowance float64   // messages until it pauses
}

const (
	// burstAllowance is how many messages are no burst: small networks know none.
	burstAllowance = 16
	// burstRate is how many messages per second are no burst either.
	burstRate = 2
	// burstOver is how few changes there are in a pause once a burst is over.
	burstOver = 4
	// burstSilence is how long no message comes where there is no burst. Hosts that start at once may keep etcd busy for seconds.
	burstSilence = 10 * time.Second
	// burstMost is how long a burst is believed in: what goes on after that is how this network is.
	burstMost = 30 * time.Second
)

// NewBurst is for a watch that begins now.
func NewBurst() Burst {
	now := time.Now()
	return Burst{end: now.Add(burstMost), last: now, allowance: burstAllowance, Pause: backoff.Backoff{First: time.Second, Most: 4 * time.Second}}
}

// Observe takes in a message with a number of changes, and reports whether to pause.
func (b *Burst) Observe(changes int) bool {
	now := time.Now()
	passed := now.Sub(b.last)
	b.last = now
	b.calm = b.calm || passed > burstSilence || now.After(b.end) || b.pausing && changes <= burstOver
	b.allowance = max(0, min(b.allowance+burstRate*passed.Seconds(), burstAllowance)) - 1
	b.pausing = !b.calm && b.allowance < 0
	return b.pausing
}
