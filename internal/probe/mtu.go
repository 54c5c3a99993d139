package probe

import "tulle/ip"

// How often a size has to be lost before it counts as too large.
const (
	stepLosses  = 2 // on the way to the result, which is checked in the end
	finalLosses = 3 // of the one above the result, if no small one is lost meanwhile,
	moreLosses  = 2 // and for each that is, so many more
	mostRepeats = 3 // searches that begin again, because a size arrived that had been lost before
)

// leastMTU is the smallest MTU that a family may have, in bytes (RFC 791, RFC 8200).
func leastMTU(f ip.Family) int {
	if f == ip.IPv4 {
		return 576
	}
	return 1280
}

// search looks for the largest packet that arrives, all in bytes: one of lo does, one of hi does not. A size that is lost now and then by chance
// makes it longer, and its result wrong only if it is lost each of finalLosses times.
type search struct {
	lo, hi  int
	top     int  // hi at the beginning
	least   int  // no size between lo and this one is of interest
	first   int  // asked before the middle, if it lies between lo and hi: a guess; 0: none
	above   bool // the one above a guess that arrived is asked, too
	widen   bool // the end has come once the first is lost
	lost    int  // times that the size asked for has been lost in a row
	more    int  // losses that it takes in the end beyond finalLosses
	repeats int
	done    bool
	vain    bool // all sizes arrive now and then
}

// narrowing begins below a size that does not arrive. The guess is what was found for another peer, or 0.
func narrowing(f ip.Family, size, guess int) *search {
	s := &search{lo: smallPacket(f), hi: size, top: size, least: leastMTU(f), first: guess, above: true}
	s.done = s.hi <= s.least
	return s
}

// widening begins above a size that does arrive, and ends soon if not one byte more does.
func widening(from, top int) *search {
	return &search{lo: from, hi: top, top: top, least: from, first: from + 1, widen: true, done: from+1 >= top}
}

// next is the size to ask for. Not called when done.
func (s *search) next() int {
	switch {
	case s.first > s.lo && s.first < s.hi && s.first >= s.least:
		return s.first
	case s.lo < s.least && s.hi > s.least:
		return s.least
	case s.hi-s.lo > 1 && s.hi > s.least:
		return (s.lo + s.hi) / 2
	}
	return s.hi // once more
}

// heard takes in that a size arrived.
func (s *search) heard(size int) {
	s.lost, s.widen = 0, false
	if size <= s.lo {
		return
	}
	right := size == s.first && s.above
	s.lo = size
	if size >= s.hi {
		if s.repeats++; size >= s.top || s.repeats > mostRepeats {
			s.done, s.vain = true, size < s.top
			return
		}
		s.hi = s.top
	}
	if s.first, s.above = 0, false; right {
		s.first = size + 1
	}
}

// missed takes in that a size was lost while small ones arrived.
func (s *search) missed(size int) {
	s.lost++
	if size < s.hi && s.lost >= stepLosses {
		s.hi, s.lost = size, 0
		s.done = s.widen // not one byte more
	}
	if size >= s.hi && s.lost >= finalLosses+s.more {
		s.done = true
	}
}
