package iptest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"tulle/ip"
)

// patience is how long a watch may take to notice.
const patience = 5 * time.Second

func (s *suite) watch() {
	s.create(ip.State{Links: []ip.Link{s.link}})
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	var count atomic.Int64
	woken := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Kernel.Watch(ctx, func(ip.Actor) {
			count.Add(1)
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	}()
	until := func(n int64) {
		s.Helper()
		deadline := time.After(patience)
		for count.Load() < n {
			select {
			case <-woken:
			case <-deadline:
				s.Fatalf("notified %d times, want %d", count.Load(), n)
			}
		}
	}
	until(1)
	s.snapshot(s.scope())

	// Each change of another program is noticed, one by one.
	n := count.Load()
	guard, peer := s.guarded()
	for _, op := range []ip.Op{
		add(guard), add(member(peer)), add(s.fdb), add(s.near), add(s.route),
		del(s.route), del(s.near), del(s.fdb), del(member(peer)), del(guard),
	} {
		s.must(s.Other, op)
		n++
		until(n)
		n = count.Load()
	}

	for _, rule := range []Rule{{From: s.network, Table: 100}, {To: s.route.Dst, Table: 100}} {
		for _, change := range []func(Rule){s.AddRule, s.DelRule} {
			change(rule)
			n++
			until(n)
			n = count.Load()
		}
	}

	// Our own are not. Notifications come in order, so a leak would show in the count by the last one at the latest.
	const own = 100
	n = count.Load()
	s.must(s.Kernel, add(s.near))
	for range own {
		s.must(s.Kernel, add(s.route), del(s.route))
	}
	for range 10 {
		before := count.Load()
		s.must(s.Other, add(s.route))
		s.must(s.Kernel, del(s.route))
		until(before + 1)
	}
	if got := count.Load() - n; got > own {
		s.Errorf("notified %d times of 10 changes: own changes are notified", got)
	}

	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			s.Errorf("Watch = %v, want %v", err, context.Canceled)
		}
	case <-time.After(patience):
		s.Error("Watch does not end with its context")
	}
}
