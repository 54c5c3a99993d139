package probe

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Summary counts peers and questions.
type Summary struct {
	Peers [ways][states]int  // by Way and State; peers that are not asked that way are in none
	RTT   [ways]Distribution // by Way
	Lost  [ways]uint64       // small questions that were not answered since this program runs
}

// Distribution counts round trip times of answered questions since this program runs.
type Distribution struct {
	Buckets [len(bounds)]uint64 // by Bounds: those up to the bound that are in no bucket before; none is longer than the last
	Count   uint64
	Sum     time.Duration
}

// bounds are those of the buckets; none is beyond how long an answer is waited for.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, timeout,
}

// Bounds lists the upper bounds of a distribution's buckets.
func Bounds() []time.Duration { return slices.Clone(bounds[:]) }

// tally keeps what is counted, so that nobody has to look at all peers for it.
type tally struct {
	Summary
	known int                // peers of which something is known
	bad   map[*peer]struct{} // those with a narrow or unreachable way, or one that was narrow when it was last asked
	told  *Bad               // of what is in bad; nil: to be made anew
}

// add counts a peer, which does not change before remove.
func (t *tally) add(p *peer) {
	t.count(p, 1)
	if p.isBad() {
		if t.bad == nil {
			t.bad = map[*peer]struct{}{}
		}
		t.bad[p] = struct{}{}
		t.told = nil
	}
}

func (t *tally) remove(p *peer) {
	t.count(p, -1)
	if t.isBad(p) {
		delete(t.bad, p)
		t.told = nil
	}
}

func (t *tally) isBad(p *peer) bool {
	_, bad := t.bad[p]
	return bad
}

func (t *tally) count(p *peer, n int) {
	known := false
	for way := range p.lines {
		if p.At[way] != (netip.AddrPort{}) {
			t.Peers[way][p.lines[way].state] += n
		}
		known = known || p.lines[way].state != Unknown
	}
	if known {
		t.known += n
	}
}

func (t *tally) heard(way Way, took time.Duration) {
	d := &t.RTT[way]
	d.Count++
	d.Sum += took
	if i, _ := slices.BinarySearch(bounds[:], took); i < len(bounds) {
		d.Buckets[i]++
	}
}

func (t *tally) lost(way Way) { t.Lost[way]++ }

func (p *peer) isBad() bool {
	for way := range p.lines {
		if l := &p.lines[way]; l.state == Narrow || l.state == Unreachable || l.narrow {
			return true
		}
	}
	return false
}

// isCutOff reports whether the peer answers no way of those that it is asked.
func (p *peer) isCutOff() bool {
	asked := false
	for way := range p.lines {
		l := &p.lines[way]
		if l.on && l.state != Unreachable {
			return false
		}
		asked = asked || l.on
	}
	return asked
}

func (p *peer) report() Report {
	r := Report{Peer: p.Peer}
	for way := range p.lines {
		r.Ways[way] = p.lines[way].verdict()
	}
	return r
}

func byLease(a, b *peer) int {
	return cmp.Or(cmp.Compare(a.Lease, b.Lease), cmp.Compare(a.Family, b.Family))
}

// judge runs what may change what is known of a line, and keeps the tally.
func (s *schedule) judge(l *line, do func()) {
	state, size := l.state, l.size
	s.tally.remove(l.peer)
	do()
	s.tally.add(l.peer)
	if l.state != state || l.size != size {
		s.changed = true
	}
}

func (s *schedule) reports() []Report {
	peers := make([]*peer, 0, len(s.peers))
	for _, p := range s.peers {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, byLease)
	out := make([]Report, len(peers))
	for i, p := range peers {
		out[i] = p.report()
	}
	return out
}

// mostBad bounds how many peers are named.
const mostBad = 1000

func (s *schedule) bad() Bad {
	t := &s.tally
	if t.told == nil {
		peers := make([]*peer, 0, len(t.bad))
		for p := range t.bad {
			peers = append(peers, p)
		}
		slices.SortFunc(peers, byLease)
		told := &Bad{More: max(0, len(peers)-mostBad)}
		for _, p := range peers[:len(peers)-told.More] {
			told.Reports = append(told.Reports, p.report())
		}
		t.told = told
	}
	b := *t.told
	b.Asked, b.Heard, b.Blocked, b.Silent = t.known, s.last, s.silence.blocked, s.silence.blocked != nil
	return b
}

// When nobody answers, this is more likely for a reason of this host than for one of each peer.
const (
	silentFor     = 15 * time.Second
	silentLost    = 6 // questions
	silentLeases  = 2 // hosts that answer no way
	silentMessage = "nobody answers: of the last questions none was answered, whoever was asked, neither over the underlay nor over the fabric"
)

// silence is how long nobody has answered.
type silence struct {
	since   time.Time // the first loss after the last answer
	lost    int       // questions since then
	blocked error     // nil: it need not be this host's fault
}

// noLongerSilent takes in that others are asked than before, of whom less is known.
func (s *schedule) noLongerSilent() {
	if s.silence.blocked != nil && !s.cutOff() {
		s.answered()
	}
}

func (s *schedule) answered() {
	s.changed = s.changed || s.silence.blocked != nil
	s.silence = silence{}
}

func (s *schedule) unanswered(now time.Time, reason string) {
	q := &s.silence
	if q.lost == 0 {
		q.since = now
	}
	q.lost++
	if q.blocked != nil || now.Sub(q.since) < silentFor || q.lost < silentLost || !s.cutOff() {
		return
	}
	s.changed = true
	if q.blocked = errors.New(silentMessage); reason != "" {
		q.blocked = fmt.Errorf("%s; sending says: %s", silentMessage, reason)
	}
}

// cutOff reports whether several hosts answer no way.
func (s *schedule) cutOff() bool {
	leases := map[string]bool{}
	for p := range s.tally.bad {
		if p.isCutOff() {
			if leases[p.Lease] = true; len(leases) >= silentLeases {
				return true
			}
		}
	}
	return false
}
