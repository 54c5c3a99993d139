package agent

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff doubles the time between tries, from first to most, and spreads it by a quarter either way.
type backoff struct {
	first, most time.Duration
	last        time.Duration
}

// next returns how long to wait before the next try.
func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, b.first), b.most)
	return b.last*3/4 + rand.N(b.last/2)
}

// reset begins again with the first wait.
func (b *backoff) reset() { b.last = 0 }

// wait sleeps for the next wait or until ctx ends.
func (b *backoff) wait(ctx context.Context) error {
	t := time.NewTimer(b.next())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
