package subnettest

import (
	"context"
	"slices"
	"testing"
	"time"

	"tulle/subnet"
)

// watcher collects what Watch delivers.
type watcher struct {
	t    *testing.T
	sets chan subnet.Set
	last subnet.Set
}

func watch(t *testing.T, h opener) *watcher {
	t.Helper()
	return watchBy(t, h.Open())
}

func watchBy(t *testing.T, store subnet.Store) *watcher {
	t.Helper()
	w := &watcher{t: t, sets: make(chan subnet.Set, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Watch(ctx, func(set subnet.Set) { w.sets <- set }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch = %v, want nil at the end of its context", err)
		}
		(&host{t: t, store: store}).kill()
	})
	return w
}

// until waits for a set that satisfies ok.
func (w *watcher) until(what string, ok func(subnet.Set) bool) subnet.Set {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case w.last = <-w.sets:
			if ok(w.last) {
				return w.last
			}
		case <-deadline:
			w.t.Fatalf("no set with %s; the last one was %+v", what, w.last)
		}
	}
}

// holdsFor fails if a set that does not satisfy ok arrives within d.
func (w *watcher) holdsFor(d time.Duration, what string, ok func(subnet.Set) bool) {
	w.t.Helper()
	deadline := time.After(d)
	for {
		select {
		case w.last = <-w.sets:
			if !ok(w.last) {
				w.t.Fatalf("set without %s: %+v", what, w.last)
			}
		case <-deadline:
			return
		}
	}
}

func hasLease(s subnet.Subnets) func(subnet.Set) bool {
	return func(set subnet.Set) bool {
		return slices.ContainsFunc(set.Leases, func(l *subnet.Lease) bool { return l.Subnets == s })
	}
}
