package probe

import "time"

// limit is a token bucket: so many a second, and so many at once after a pause.
type limit struct {
	every time.Duration
	burst int
	full  time.Time // when all tokens are there again, if none is taken any more
}

// take reports whether there is a token, and takes it.
func (l *limit) take(now time.Time) bool {
	if l.full.Before(now) {
		l.full = now
	}
	if l.full.Sub(now) > time.Duration(l.burst-1)*l.every {
		return false
	}
	l.full = l.full.Add(l.every)
	return true
}
