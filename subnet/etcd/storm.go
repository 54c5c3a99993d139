package etcd

import (
	"errors"
	"time"

	"tulle/internal/backoff"
)

// storm tells a watch to pause for a while. Of a thousand hosts that start at once each writes a lease, and etcd tells each of
// them of every one: a million messages, one by one to whoever watches at the time. Who comes back later gets in one message
// all that there was meanwhile.
//
// Only a watch that has known no calm pauses, and only while it is young. After that it hears of each change at once.
type storm struct {
	calm     bool
	end      time.Time // when there is calm in any case
	away     bool      // the next message tells of what there was meanwhile
	last     time.Time // when a message came, or the watch began
	patience float64   // messages until it pauses
	pause    backoff.Backoff
}

var errStorm = errors.New("many leases come at once")

const (
	// stormPatience is how many messages are no storm: small networks know none.
	stormPatience = 16
	// stormRate is how many messages per second are no storm either.
	stormRate = 2
	// stormOver is how few changes there are in a pause once a storm is over.
	stormOver = 4
	// stormSilence is how long no message comes where there is no storm. Hosts that start at once may keep etcd busy for seconds.
	stormSilence = 10 * time.Second
	// stormMost is how long a storm is believed in: what goes on after that is how this network is.
	stormMost = 30 * time.Second
)

func newStorm() storm {
	now := time.Now()
	return storm{end: now.Add(stormMost), last: now, patience: stormPatience, pause: backoff.Backoff{First: time.Second, Most: 4 * time.Second}}
}

// observe takes in a message with a number of changes, and reports whether to pause.
func (s *storm) observe(changes int) bool {
	now := time.Now()
	passed := now.Sub(s.last)
	s.last = now
	s.calm = s.calm || passed > stormSilence || now.After(s.end) || s.away && changes <= stormOver
	s.patience = max(0, min(s.patience+stormRate*passed.Seconds(), stormPatience)) - 1
	s.away = !s.calm && s.patience < 0
	return s.away
}
