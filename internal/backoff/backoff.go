// Package backoff spaces out retries.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff doubles the wait between tries from First to Most, and spreads each with Jitter. It is not safe for concurrent use.
type Backoff struct {
	First, Most time.Duration
	last        time.Duration
}

// Next returns how long to wait before the next try.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.First), b.Most)
	return Jitter(b.last)
}

// Reset begins again with the first wait.
func (b *Backoff) Reset() { b.last = 0 }

// Wait waits before the next try, or until ctx ends, and then returns the cause.
func (b *Backoff) Wait(ctx context.Context) error {
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Jitter returns a random duration from half of d to the whole, so that hosts that saw the same event do not act together.
func Jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
