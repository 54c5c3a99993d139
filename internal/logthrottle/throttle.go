// Package logthrottle keeps what lasts, or comes again and again, from filling the log.
package logthrottle

import "time"

// How often the same is logged again.
const (
	Lasting   = 10 * time.Minute // of a state that lasts
	Recurring = time.Minute      // of what comes and goes
)

// Throttle tells which texts are worth a line: those that have not had one for a while.
type Throttle map[string]time.Time

// Due reports whether a text has had no line for as long as every says, and counts it as logged then.
func (t Throttle) Due(text string, every time.Duration) bool {
	const most = 256 // texts; when more are needed they differ in some number, and the old ones do not come again
	now := time.Now()
	if at, ok := t[text]; ok && now.Sub(at) < every {
		return false
	}
	if len(t) >= most {
		clear(t)
	}
	t[text] = now
	return true
}
