package probe

import (
	"net/netip"
	"slices"
	"time"

	"tulle/ip"
)

// How much is asked.
const (
	spacing     = 50 * time.Millisecond // between any two questions: 20 a second
	leastPeriod = 5 * time.Second       // between two questions to one peer one way, when all is well
	mostHurried = 30                    // lines that do not wait for their turn: these get their next question within 2 s
	hurriedRun  = 3                     // questions to them between two to those whose turn it is
)

// schedule decides whom to ask when, and takes in what comes of it. It has neither a clock nor a network: times are passed in, and questions
// and answers out and in. It is not safe for concurrent use.
//
// All lines take turns, a question each in a period, small and full ones alternating. Where something was lost, the next questions come sooner, but
// never more than one in 50 ms in all: who has a reason to hurry comes before who waits for a turn, with three of four questions. At rest, the work
// of a second does not depend on the number of peers.
type schedule struct {
	number func() uint64                     // for a question, never the same again
	spread func(time.Duration) time.Duration // a random part of it
	usable [ways]ip.Dual[bool]               // by Way: this host can ask from its address
	from   [ways]ip.Dual[netip.Addr]         // by Way
	guess  [ways]ip.Dual[int]                // by Way: size in bytes that was found for the last narrow line
	peers  map[peerID]*peer
	wish   uint64        // counts wishes
	order  []*peer       // of the last wish
	on     int           // lines that are asked
	period time.Duration // by which turns were last given

	turns, hurried queue
	quick          int // lines in hurried, or with a question on its way as one of these
	run            int // questions in a row to such
	orders         []*order
	ordered        bool // the last question was an order
	free           time.Time
	sent           []request // on their way, the oldest first

	silence silence
	last    time.Time // when the last answer came
	tally   tally
	changed bool // something that others are told of, since it was last looked at
}

type peerID struct {
	lease  string
	family ip.Family
}

// request is a question on its way.
type request struct {
	nonce  uint64
	way    Way
	family ip.Family
	key    Key
	to     netip.AddrPort
	size   int // of the IP packet, in bytes
	at     time.Time

	line  *line  // nil: it was ordered
	order *order // nil: it was not
}

// order is a question that somebody waits for.
type order struct {
	request
	result func(outcome) // must not block
}

// outcome is what became of a question.
type outcome struct {
	heard  bool
	took   time.Duration
	reason string // why it could not be sent; empty: it could
}

func newSchedule(number func() uint64, spread func(time.Duration) time.Duration) *schedule {
	return &schedule{number: number, spread: spread, peers: map[peerID]*peer{}}
}

// ask returns the question to send now, if there is one. At most one is returned per 50 ms.
func (s *schedule) ask(now time.Time) (request, bool) {
	s.expire(now)
	if now.Before(s.free) {
		return request{}, false
	}
	q, ok := s.choose(now)
	if !ok {
		return request{}, false
	}
	q.nonce, q.at = s.number(), now
	s.free = now.Add(spacing)
	s.sent = append(s.sent, q)
	if q.line != nil {
		q.line.nonce = q.nonce
		if q.size == q.line.smallSize() {
			q.line.asked++
		}
	}
	return q, true
}

func (s *schedule) choose(now time.Time) (request, bool) {
	hurried, turn := s.hurried.due(now), s.turns.due(now)
	if len(s.orders) > 0 && !(s.ordered && (hurried || turn)) {
		o := s.orders[0]
		s.orders, s.ordered = slices.Delete(s.orders, 0, 1), true
		o.request.order = o
		return o.request, true
	}
	s.ordered = false
	var l *line
	switch {
	case hurried && (!turn || s.run < hurriedRun):
		l = s.hurried[0]
		s.run++
	case turn:
		l = s.turns[0]
		s.run = 0
	default:
		return request{}, false
	}
	l.leave()
	return request{way: l.way, family: l.peer.Family, key: l.peer.Key, to: l.peer.At[l.way], size: l.next(now), line: l}, true
}

// wake returns when ask has something to do next; zero: not before something else happens.
func (s *schedule) wake() time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	for _, q := range []queue{s.turns, s.hurried} {
		if len(q) > 0 {
			sooner(q[0].due)
		}
	}
	if len(s.orders) > 0 {
		sooner(s.free)
	}
	if !at.IsZero() && at.Before(s.free) {
		at = s.free
	}
	if len(s.sent) > 0 {
		sooner(s.sent[0].at.Add(timeout))
	}
	return at
}

// find returns the question that an answer belongs to. Only who was asked may answer, and only once.
func (s *schedule) find(nonce uint64, way Way, from netip.AddrPort) (request, bool) {
	i := s.index(nonce)
	if i < 0 || s.sent[i].way != way || s.sent[i].to != from {
		return request{}, false
	}
	return s.sent[i], true
}

func (s *schedule) index(nonce uint64) int {
	return slices.IndexFunc(s.sent, func(q request) bool { return q.nonce == nonce })
}

// heard takes in an authentic answer.
func (s *schedule) heard(nonce uint64, now time.Time) {
	s.expire(now)
	i := s.index(nonce)
	if i < 0 {
		return
	}
	q := s.take(i)
	s.answered()
	s.last = now
	s.settle(now, q, outcome{heard: true, took: now.Sub(q.at)})
}

// failed takes in that a question could not be sent.
func (s *schedule) failed(nonce uint64, now time.Time, reason string) {
	if i := s.index(nonce); i >= 0 {
		s.settle(now, s.take(i), outcome{reason: reason})
	}
}

// expire gives up on answers that have not come in time.
func (s *schedule) expire(now time.Time) {
	for len(s.sent) > 0 && now.Sub(s.sent[0].at) >= timeout {
		s.settle(now, s.take(0), outcome{})
	}
}

func (s *schedule) take(i int) request {
	q := s.sent[i]
	s.sent = slices.Delete(s.sent, i, i+1)
	return q
}

// settle takes in what became of a question, and decides when the next one to this line is due.
func (s *schedule) settle(now time.Time, q request, o outcome) {
	if q.order != nil {
		q.order.result(o)
		return
	}
	l := q.line
	if l.nonce != q.nonce {
		return // it is not asked any more, or somewhere else
	}
	l.nonce = 0
	was := l.state
	s.judge(l, func() {
		if o.heard {
			s.tally.heard(l.way, o.took)
			l.heard(now, q.size, o.took, s.guess[l.way].Of(q.family))
			return
		}
		if q.size == l.smallSize() {
			l.lost++
			s.tally.lost(l.way)
		}
		l.missed(now, q.size, o.reason)
	})
	if l.narrow {
		s.guess[l.way].Set(q.family, l.size)
	}
	pause := onward
	if !o.heard {
		s.unanswered(now, o.reason)
		pause = max(0, hurry-now.Sub(q.at))
	}
	// What befalls one way befalls the other more often than not: that it goes, and that it comes back.
	if other := l.other(); !o.heard && other.state != Unreachable || o.heard && was == Unreachable {
		s.nudge(other, now)
	}
	s.queue(l, now, pause)
}

// queue has the line asked after a pause if it hurries, and there is room among those that do, and else at its turn.
func (s *schedule) queue(l *line, now time.Time, pause time.Duration) {
	was, quick := l.quick, l.hurries() && (l.quick || s.quick < mostHurried)
	s.hasten(l, quick)
	switch {
	case quick:
		s.hurried.put(l, now.Add(pause))
	case was:
		s.turns.put(l, now.Add(s.apart(l, now, s.turn())))
	default:
		s.turns.put(l, now.Add(s.turn()))
	}
}

func (s *schedule) hasten(l *line, quick bool) {
	switch {
	case quick && !l.quick:
		s.quick++
	case l.quick && !quick:
		s.quick--
	}
	l.quick = quick
}

// nudge asks soon whether small packets arrive the other way, too.
func (s *schedule) nudge(l *line, now time.Time) {
	if !l.on || l.quick || l.nonce != 0 || s.quick >= mostHurried {
		return
	}
	l.nudge = true
	s.queue(l, now, 0)
}

// other is the same peer's other way.
func (l *line) other() *line { return &l.peer.lines[(l.way+1)%ways] }

// turn is how long each line waits for its turn.
func (s *schedule) turn() time.Duration { return max(leastPeriod, time.Duration(s.on)*spacing) }
