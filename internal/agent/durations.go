package agent

import "time"

// DurationBounds are the bounds by which Durations counts.
func DurationBounds() [8]time.Duration {
	const ms = time.Millisecond
	return [...]time.Duration{ms, 3 * ms, 10 * ms, 30 * ms, 100 * ms, 300 * ms, time.Second, 10 * time.Second}
}

// Durations is how long passes have taken, which are counted elsewhere.
type Durations struct {
	Sum    time.Duration `json:"sum"`    // nanoseconds
	Within [8]uint64     `json:"within"` // how many took no longer than each of the bounds
}

func (d *Durations) add(took time.Duration) {
	d.Sum += took
	for i, bound := range DurationBounds() {
		if took <= bound {
			d.Within[i]++
		}
	}
}
