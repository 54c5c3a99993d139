package agent

import "tulle/ip"

// tally sums up counters that begin anew whenever their table is made anew.
type tally struct {
	total Dropped
	last  ip.Dual[ip.Drops]
}

// add takes in a reading and returns the sums.
func (t *tally) add(read ip.Dual[ip.Drops]) Dropped {
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
	return t.total
}
