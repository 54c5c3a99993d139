package probe

import (
	"net/netip"
	"time"

	"tulle/ip"
)

// want takes in whom to ask from now on, and from where. What is known of a peer stays, as far as it is about the same addresses.
func (s *schedule) want(w Want, now time.Time) {
	s.wish++
	for way := range w.Self.Addr {
		for _, f := range ip.Families() {
			if s.from[way].Of(f) != w.Self.Addr[way].Of(f) {
				s.each(Way(way), f, func(l *line) { l.restart(now) })
			}
		}
	}
	s.from = w.Self.Addr
	var fresh []*line
	before, order := s.order, make([]*peer, 0, len(w.Peers))
	for i := range w.Peers {
		wanted := &w.Peers[i]
		var p *peer
		if p, before = s.lookup(wanted, before); p != nil && p.seen == s.wish {
			continue
		}
		switch {
		case p == nil:
			p = s.add(*wanted, now)
		case p.Peer != *wanted:
			s.replace(p, *wanted, now)
		}
		p.seen = s.wish
		order = append(order, p)
		for way := range p.lines {
			if l := &p.lines[way]; s.switchOn(l, now) {
				fresh = append(fresh, l)
			}
		}
	}
	if len(order) < len(s.peers) {
		for _, p := range s.peers {
			if p.seen != s.wish {
				s.remove(p)
			}
		}
	}
	s.order = order
	s.noLongerSilent()
	s.spreadOut(fresh, now)
}

// lookup finds a peer. Most are where they were in the last wish, or one has gone before them, which is found out without hashing.
func (s *schedule) lookup(wanted *Peer, before []*peer) (found *peer, rest []*peer) {
	for i := range min(2, len(before)) {
		if p := before[i]; p.Family == wanted.Family && p.Lease == wanted.Lease {
			return p, before[i+1:]
		}
	}
	return s.peers[peerID{wanted.Lease, wanted.Family}], before
}

// use says whether this host can ask from its address of this family.
func (s *schedule) use(way Way, f ip.Family, usable bool, now time.Time) {
	if s.usable[way].Of(f) == usable {
		return
	}
	s.usable[way].Set(f, usable)
	var fresh []*line
	s.each(way, f, func(l *line) {
		if s.switchOn(l, now) {
			fresh = append(fresh, l)
		}
	})
	s.noLongerSilent()
	s.spreadOut(fresh, now)
}

func (s *schedule) each(way Way, f ip.Family, do func(*line)) {
	for _, p := range s.peers {
		if p.Family == f {
			do(&p.lines[way])
		}
	}
}

func (s *schedule) add(wanted Peer, now time.Time) *peer {
	p := &peer{Peer: wanted}
	for way := range p.lines {
		p.lines[way] = line{peer: p, way: Way(way), since: now}
	}
	s.tally.add(p)
	s.peers[peerID{p.Lease, p.Family}] = p
	return p
}

func (s *schedule) remove(p *peer) {
	for way := range p.lines {
		s.switchOff(&p.lines[way])
	}
	s.changed = s.changed || s.tally.isBad(p)
	s.tally.remove(p)
	delete(s.peers, peerID{p.Lease, p.Family})
}

// replace has a peer be asked as its lease says now.
func (s *schedule) replace(p *peer, wanted Peer, now time.Time) {
	was := p.Peer
	s.changed = s.changed || s.tally.isBad(p)
	s.tally.remove(p)
	p.Peer = wanted
	for way := range p.lines {
		l := &p.lines[way]
		state, size := l.state, l.size
		switch {
		case was.At[way] != wanted.At[way]:
			s.switchOff(l)
			*l = line{peer: p, way: Way(way), since: now, asked: l.asked, lost: l.lost}
		case was.Key != wanted.Key:
			l.restart(now)
			fallthrough
		default:
			if was.Size[way] != wanted.Size[way] {
				l.resize(now)
			}
		}
		s.changed = s.changed || l.state != state || l.size != size
	}
	s.tally.add(p)
}

// switchOn has the line asked if it can be, and not if it cannot. It reports whether it is asked for the first time, or again.
func (s *schedule) switchOn(l *line, now time.Time) bool {
	at := l.peer.At[l.way]
	on := at != (netip.AddrPort{}) && s.usable[l.way].Of(l.peer.Family)
	switch {
	case on && !l.on:
		l.on = true
		l.restart(now)
		s.on++
		return true
	case l.on && !on:
		s.switchOff(l)
		s.judge(l, func() { l.set(now, Unknown) })
	}
	return false
}

func (s *schedule) switchOff(l *line) {
	if !l.on {
		return
	}
	l.leave()
	s.hasten(l, false)
	l.on, l.nonce = false, 0
	s.on--
}

// spreadOut gives turns to lines: all hosts see a new one at the same time, and must not ask it at the same time. The ways of a peer take turns half a
// period apart, so that what befalls both is seen sooner. All lines get turns anew where they were given for a longer period than is needed now.
func (s *schedule) spreadOut(lines []*line, now time.Time) {
	period := s.turn()
	if period < s.period/2 {
		lines = append(lines, s.turns...)
		for _, l := range lines {
			l.leave()
		}
		s.period = period
	}
	s.period = max(s.period, period)
	for _, l := range lines {
		s.turns.put(l, now.Add(s.apart(l, now, s.spread(period))))
	}
}

// apart is how long a line waits for its turn so that the peer's other way has its own half a period later, if that waits for its turn, too.
func (s *schedule) apart(l *line, now time.Time, otherwise time.Duration) time.Duration {
	other, period := l.other(), s.turn()
	if other.queue != &s.turns || other.due.Before(now) {
		return otherwise
	}
	return (other.due.Sub(now) + period/2) % period
}
