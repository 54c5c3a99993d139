package probe

import (
	"slices"
	"time"
)

// When what is asked of one peer.
const (
	timeout       = time.Second            // an answer counts that comes within it
	hurry         = time.Second            // from a question that was lost to the next one
	onward        = 200 * time.Millisecond // from an answer to the next question, where there is something to find out
	grace         = 10 * time.Second       // in which a host that appears, and everybody on the way, get to know it: what is lost counts for nothing
	smallLosses   = 3                      // in a row: unreachable
	fullLosses    = 3                      // in a row, while small ones arrive: narrow
	lossShare     = 4                      // one part in this many of small ones may be lost, and what is lost of large ones is for their size
	againSoon     = time.Minute            // from one question for the full size to the next one, soon after it was found not to arrive,
	soonAfter     = 10 * time.Minute       // which is this long,
	againLater    = time.Hour              // and later
	latestAnswers = 32                     // answers of which the times are kept
)

// peer is a host that is asked.
type peer struct {
	Peer
	lines [ways]line
	seen  uint64 // the last wish that had it
}

// line is one way to one peer, and what is known of it. At most one question is on its way there.
type line struct {
	peer *peer
	way  Way
	on   bool // it is asked

	state  State
	since  time.Time
	size   int // of the largest packet that arrives, in bytes; 0: not known
	narrow bool
	reason string // why the last question that was lost could not be sent

	small   int       // small questions lost in a row
	full    int       // times in a row that the size in use was lost while a small one arrived
	doubt   int       // the size that was lost, until it is known whether a small one arrives; 0: none
	search  *search   // for the largest size; nil: none
	confirm bool      // the full size has arrived once since it was found not to
	nudge   bool      // a small question, since the other way lost one
	recheck bool      // the size in use, since the peer was unreachable
	even    bool      // the next question is a small one, where nothing else matters
	fresh   time.Time // until then, losses count for nothing
	shrunk  time.Time // when the size became less
	again   time.Time // when to ask for the full size, if narrow

	// Small questions since a size came to be in doubt that were answered, and that were not.
	smallHeard, smallLost int

	asked, lost uint64
	times       [latestAnswers]uint32 // of answers, in µs, the latest at (answers - 1) % latestAnswers
	answers     uint64

	// of the schedule
	nonce uint64 // of the question on its way; 0: none
	due   time.Time
	quick bool // it is, or comes, among those in a hurry
	queue *queue
	index int
}

func (l *line) smallSize() int { return smallPacket(l.peer.Family) }

// fullSize is that of the largest packet that should arrive, in bytes; that of a small one if no larger one should.
func (l *line) fullSize() int {
	return min(max(l.peer.Size[l.way], l.smallSize()), maxPacket)
}

// useSize is the largest size that traffic may have by what is known, in bytes.
func (l *line) useSize() int {
	if l.narrow {
		return l.size
	}
	return l.fullSize()
}

// next says the size of the packet to ask for now, in bytes.
func (l *line) next(now time.Time) int {
	use := l.useSize()
	switch {
	case l.doubt != 0 || l.small > 0 || l.state == Unreachable || l.nudge:
		return l.smallSize()
	case l.search != nil:
		return l.search.next()
	case l.confirm || l.narrow && !now.Before(l.again):
		return l.fullSize()
	case l.recheck || l.full > 0 || l.size < use:
		return use
	}
	if l.even = !l.even; l.even {
		return use
	}
	return l.smallSize()
}

// heard takes in that a question was answered. The guess is a size to begin a search with, or 0.
func (l *line) heard(now time.Time, size int, took time.Duration, guess int) {
	l.times[l.answers%latestAnswers] = uint32(took.Microseconds())
	l.answers++
	l.small, l.nudge, l.recheck = 0, false, l.state == Unreachable
	if l.state == Unreachable {
		l.again = now // the packets may go another way now
	}
	if size == l.smallSize() {
		l.smallHeard++
	}
	if size > l.smallSize() || l.fullSize() == l.smallSize() {
		l.doubt, l.recheck = 0, false
		l.arrives(now, size)
	} else if doubt := l.doubt; doubt != 0 {
		l.doubt = 0
		l.tooLarge(now, doubt, guess)
	}
	was := l.state
	if l.narrow {
		l.set(now, Narrow)
	} else {
		l.set(now, Well)
	}
	if l.state == Well || was == Unreachable {
		l.reason = ""
	}
}

// missed takes in that a question was lost, and why it could not be sent, if it could not.
func (l *line) missed(now time.Time, size int, reason string) {
	l.reason, l.nudge, l.recheck = reason, false, false
	if size > l.smallSize() {
		l.doubt, l.confirm = size, false
		return
	}
	l.doubt = 0
	l.smallLost++
	if now.Before(l.fresh) {
		return
	}
	if l.small++; l.small >= smallLosses && l.state != Unreachable {
		l.calm()
		l.set(now, Unreachable)
	}
}

// arrives takes in that a packet of this size did.
func (l *line) arrives(now time.Time, size int) {
	l.full = 0
	switch {
	case l.search != nil:
		if l.search.heard(size); l.search.done {
			l.conclude(now)
		}
	case l.narrow && size >= l.fullSize() && !l.confirm:
		l.confirm = true
	case l.narrow && size >= l.fullSize():
		l.confirm, l.narrow, l.size = false, false, size
	case size > l.size:
		l.size = size
	}
}

// tooLarge takes in that a packet of this size was lost while a small one arrived.
func (l *line) tooLarge(now time.Time, size, guess int) {
	switch {
	case l.search != nil:
		l.search.more = moreLosses * l.smallLost
		l.search.missed(size)
	case l.narrow && size > l.size:
		// Still not the full size, but perhaps more than before.
		l.smallHeard, l.smallLost = 0, 0
		l.search = widening(l.size, size)
	default:
		if l.full == 0 {
			l.smallHeard, l.smallLost = 0, 0
		}
		if l.full++; l.full < fullLosses {
			return
		}
		l.search = narrowing(l.peer.Family, size, guess)
	}
	if l.search.done {
		l.conclude(now)
	}
}

// conclude ends the search.
func (l *line) conclude(now time.Time) {
	size, vain := l.search.lo, l.search.vain
	l.search, l.full = nil, 0
	if size >= l.fullSize() {
		l.narrow, l.size = false, size
		return
	}
	if vain || l.smallLost*lossShare > l.smallHeard+l.smallLost {
		l.again = now.Add(againSoon) // packets are lost whatever their size, as in a flood: nothing has been learnt
		return
	}
	if !l.narrow || size < l.size {
		l.shrunk = now
	}
	l.narrow, l.size = true, size
	l.again = now.Add(againLater)
	if now.Sub(l.shrunk) < soonAfter {
		l.again = now.Add(againSoon)
	}
}

// hurries reports whether the next question has a reason not to wait for its turn.
func (l *line) hurries() bool {
	if l.state == Unreachable {
		return l.nudge
	}
	return l.state == Unknown || l.doubt != 0 || l.small > 0 || l.search != nil || l.full > 0 || l.confirm || l.nudge || l.recheck || l.size == 0
}

// calm forgets what was being found out.
func (l *line) calm() {
	l.doubt, l.search, l.full = 0, nil, 0
	l.confirm, l.nudge, l.recheck, l.even = false, false, false, false
}

// restart is for a host that may not be known on the way yet, or not know the way.
func (l *line) restart(now time.Time) {
	l.calm()
	l.small, l.fresh = 0, now.Add(grace)
}

// resize takes in that another size should arrive than before.
func (l *line) resize(now time.Time) {
	l.calm()
	full := l.fullSize()
	switch {
	case l.size >= full:
		l.narrow, l.size = false, full
		if l.state == Narrow {
			l.set(now, Well)
		}
	case l.narrow:
		l.again = now
	default:
		l.size = 0
	}
}

func (l *line) set(now time.Time, s State) {
	if l.state != s {
		l.state, l.since = s, now
	}
}

// verdict is what others are told.
func (l *line) verdict() Verdict {
	return Verdict{State: l.state, Since: l.since, Size: l.size, RTT: l.quantiles(), Asked: l.asked, Lost: l.lost, Reason: l.reason}
}

func (l *line) quantiles() Quantiles {
	times := l.times // a copy
	sorted := times[:min(l.answers, latestAnswers)]
	if len(sorted) == 0 {
		return Quantiles{}
	}
	slices.Sort(sorted)
	at := func(percent int) time.Duration {
		return time.Duration(sorted[(len(sorted)*percent+99)/100-1]) * time.Microsecond
	}
	return Quantiles{P50: at(50), P99: at(99)}
}
