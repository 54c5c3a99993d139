package etcd

import (
	"context"
	"time"

	"tulle/subnet"
)

// deliver hands out the newest view, except that it holds back a sudden loss. While it does, changes pile up in the view.
func (w *watcher) deliver(ctx context.Context, deliver func(subnet.Set)) {
	var hold subnet.Holdback
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-again:
			again = nil
			signal(w.lookAgain)
			continue
		case <-w.changed:
		}
		trusted := hold.Reason() == ""
		set := w.admit(&hold)
		reason := hold.Reason()
		switch {
		case reason == "":
			again = nil
		case again == nil:
			again = time.After(w.store.config.HoldbackTime)
		}
		if trusted && reason != "" {
			w.store.log.Warn("sudden loss held back", "reason", reason)
		}
		deliver(set)
	}
}

// admit is what to deliver of the view.
func (w *watcher) admit(hold *subnet.Holdback) subnet.Set {
	w.mu.Lock()
	set, read := w.view.set(), w.read
	w.read = reading{}
	w.mu.Unlock()
	if read.second && !read.back {
		return hold.Confirm(set)
	}
	set = hold.Admit(set, read.back)
	if reason := hold.Reason(); reason != "" {
		set.Problems = append(set.Problems, subnet.Problem{Key: w.store.layout.leases(), Reason: reason})
	}
	return set
}

func (w *watcher) signal() { signal(w.changed) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
