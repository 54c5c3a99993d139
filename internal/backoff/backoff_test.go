package backoff

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestNextDoublesWithinBounds(t *testing.T) {
	for range 1000 {
		b := Backoff{First: 100 * time.Millisecond, Most: time.Second}
		for _, ms := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
			whole := ms * time.Millisecond
			if got := b.Next(); got < whole/2 || got > whole {
				t.Fatalf("waits %v, want %v or down to half of it", got, whole)
			}
		}
		b.Reset()
		if got := b.Next(); got > 100*time.Millisecond {
			t.Fatalf("waits %v after Reset", got)
		}
	}
}

func TestZeroDoesNotWait(t *testing.T) {
	var b Backoff
	if got := b.Next(); got != 0 {
		t.Errorf("waits %v", got)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Backoff{First: time.Minute, Most: time.Hour}
		started := time.Now()
		if err := b.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if waited := time.Since(started); waited < 30*time.Second || waited > time.Minute {
			t.Errorf("waited %v, want half a minute to a whole one", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		started = time.Now()
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(started) != time.Second {
			t.Errorf("error %v after %v, want the context's after a second", err, time.Since(started))
		}
	})
}
