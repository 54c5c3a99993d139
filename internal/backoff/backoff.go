// Package backoff spaces out retries.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff doubles the wait between tries from First to Most, and spreads each by a quarter either way, so that many
// hosts that failed together do not try again together. It is not safe for concurrent use.
type Backoff struct {
	First, Most time.Duration
	last        time.Duration
}

// Next returns how long to wait before the next try.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.First), b.Most)
	return b.last*3/4 + rand.N(b.last/2)
}

// Reset begins again with the first wait.
func (b *Backoff) Reset() { b.last = 0 }

// Wait waits before the next try, or until ctx ends and then returns its error.
func (b *Backoff) Wait(ctx context.Context) error {
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
