package backoff

import (
	"context"
	"time"
)

// Pace spaces out what comes in bursts: a few at once, and more of them at intervals. It is not safe for concurrent use.
type Pace struct {
	Every time.Duration // of more than Burst
	Burst int
	next  time.Time // when the next one would be due if none went at once
}

// Wait is called after each, and returns when there may be another, or when ctx ends.
func (p *Pace) Wait(ctx context.Context) {
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(p.Every)
	ahead := p.next.Sub(now) - time.Duration(p.Burst)*p.Every
	if ahead <= 0 {
		return
	}
	t := time.NewTimer(ahead)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
