package agent

import "tulle/ip"

// tally sums up, by network, counters that begin anew whenever their table is made anew.
type tally map[string]*networkTally

type networkTally struct {
	total Dropped
	last  ip.Dual[ip.Drops]
}

// add takes in a reading and returns the sums of all.
func (t tally) add(read map[string]ip.Dual[ip.Drops]) Dropped {
	for network, n := range t {
		if _, ok := read[network]; !ok {
			n.last = ip.Dual[ip.Drops]{} // it has no table
		}
	}
	for network, drops := range read {
		if t[network] == nil {
			t[network] = &networkTally{}
		}
		t[network].add(drops)
	}
	return t.total()
}

func (t tally) total() (all Dropped) {
	for _, n := range t {
		all.Strangers += n.total.Strangers
		all.Forged += n.total.Forged
		all.Injected += n.total.Injected
		all.Spoofed += n.total.Spoofed
	}
	return all
}

func (t *networkTally) add(read ip.Dual[ip.Drops]) {
	for _, f := range ip.Families() {
		last, now := t.last.Of(f), read.Of(f)
		for _, c := range []struct {
			total     *uint64
			last, now uint64
		}{
			{&t.total.Strangers, last.Strangers, now.Strangers},
			{&t.total.Forged, last.Forged, now.Forged},
			{&t.total.Injected, last.Injected, now.Injected},
			{&t.total.Spoofed, last.Spoofed, now.Spoofed},
		} {
			if c.now < c.last {
				c.last = 0
			}
			*c.total += c.now - c.last
		}
	}
	t.last = read
}
