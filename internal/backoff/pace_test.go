package backoff

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pace{Every: time.Second, Burst: 3}
		took := func(count int) time.Duration {
			started := time.Now()
			for range count {
				p.Wait(t.Context())
			}
			return time.Since(started)
		}
		for _, step := range []struct {
			rest  time.Duration
			count int
			want  time.Duration
		}{
			{0, 3, 0}, {0, 10, 10 * time.Second}, {time.Second, 1, 0}, {0, 1, time.Second}, {time.Hour, 3, 0}, {0, 1, time.Second},
		} {
			<-time.After(step.rest)
			if got := took(step.count); got != step.want {
				t.Errorf("%d after %v of rest took %v, want %v", step.count, step.rest, got, step.want)
			}
		}
	})
}
