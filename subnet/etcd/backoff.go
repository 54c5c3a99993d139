package etcd

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff spaces out retries: each wait is a random half to whole of a time that doubles from min to max.
type backoff struct {
	min, max time.Duration
	next     time.Duration
}

// wait returns early with the reason if ctx ends.
func (b *backoff) wait(ctx context.Context) error {
	b.next = min(max(2*b.next, b.min), b.max)
	timer := time.NewTimer(jitter(b.next))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// reset starts over after a success.
func (b *backoff) reset() { b.next = 0 }

// jitter returns a random half to whole of d, so that hosts that saw the same event do not act at the same time.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
