package etcd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/backoff"
	"tulle/internal/etcdtransport"
	"tulle/subnet"
)

var (
	errWatchEnded = errors.New("etcd watch ended")
	errBurst      = errors.New("many leases come at once")
	errRewound    = errors.New("etcd has other data than before")
	errSuddenLoss = errors.New("most leases went at once")
	errBlind      = errors.New("etcd has what the watch does not tell")
)

// Watch implements subnet.Store. Whatever etcd answers, Watch tries again: what is wrong with credentials or rights is
// put right in etcd, without a restart of this program. Trouble tells of it meanwhile. At the end of ctx it returns nil.
func (s *Store) Watch(ctx context.Context, deliver func(subnet.Set)) error {
	ctx, cancel := s.scope(ctx)
	defer cancel()
	w := &watcher{store: s, view: newView(s.layout), changed: make(chan struct{}, 1), lookAgain: make(chan struct{}, 1), burst: etcdtransport.NewBurst()}
	s.watching.Store(w)
	defer s.watching.CompareAndSwap(w, nil)
	var wg sync.WaitGroup
	wg.Go(func() { w.deliver(ctx, deliver) })
	wg.Go(func() { s.client.Probe(ctx) })
	retry := etcdtransport.ConnectBackoff()
	for ctx.Err() == nil {
		start := time.Now()
		err := w.follow(ctx)
		if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, errRewound) || errors.Is(err, errSuddenLoss) {
			s.log.Debug("leases are read anew", "err", err)
			w.relist(err)
		}
		if errors.Is(err, errBlind) {
			s.log.Warn("etcd has changes that its watch does not tell: the watch begins anew")
		}
		if time.Since(start) > s.config.ProbeInterval {
			retry.Reset()
		}
		pause := retry
		if errors.Is(err, errBurst) {
			pause = &w.burst.Pause
		}
		if pause.Wait(ctx) != nil {
			break
		}
	}
	cancel()
	wg.Wait()
	if s.ctx.Err() != nil {
		return errClosed
	}
	return nil
}

// watcher is one run of Watch.
type watcher struct {
	store     *Store
	rewound   bool // the next listing is of other data than the view
	confirms  bool // the next listing is the second look at a loss
	changed   chan struct{}
	lookAgain chan struct{} // asks for a second look at a sudden loss
	burst     etcdtransport.Burst

	mu     sync.Mutex
	listed bool // the view is complete as of its revision
	view   *view
	read   reading // since the last delivery
}

// reading says how a view came about.
type reading struct{ back, second bool }

// relist has all leases read anew.
func (w *watcher) relist(why error) {
	w.mu.Lock()
	w.listed = false
	w.mu.Unlock()
	w.rewound = w.rewound || errors.Is(why, errRewound)
	w.confirms = w.confirms || errors.Is(why, errSuddenLoss)
}

// follow keeps the view up to date until something breaks.
func (w *watcher) follow(ctx context.Context) error {
	if !w.listed {
		if err := w.list(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	reconnected := make(chan struct{}, 1)
	wg.Go(func() { w.store.client.Reconnects(ctx, reconnected) })
	from, end := w.store.layout.span()
	stream := w.store.client.JoinStream(ctx)
	defer stream.Leave()
	begun := time.Now()
	events := stream.Watch(from, clientv3.WithRange(end), clientv3.WithRev(w.view.revision))
	probe := time.NewTimer(backoff.Jitter(w.store.config.ProbeInterval))
	defer probe.Stop()
	asked := false // for a sign of life on the stream, which costs etcd next to nothing
	for {
		silent := false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case r, ok := <-events:
			if !ok {
				return errWatchEnded
			}
			asked = false
			if err := r.Err(); err != nil {
				if r.CompactRevision == 0 {
					w.store.client.Observe(begun, err)
				}
				return err
			}
			if r.Header.Revision < w.view.revision {
				return errRewound
			}
			if w.apply(r); w.burst.Observe(len(r.Events)) {
				return errBurst
			}
			continue
		case <-w.lookAgain:
			return errSuddenLoss
		case <-reconnected:
		case <-probe.C:
			if !asked && stream.AskForLife() {
				asked = true
				probe.Reset(backoff.Jitter(w.store.config.ProbeInterval))
				continue
			}
			silent = true
		}
		asked = false
		now, err := w.probe(ctx)
		if err != nil {
			return err
		}
		if silent && now > w.view.revision && w.blind(ctx) {
			return errBlind
		}
		probe.Reset(backoff.Jitter(w.store.config.ProbeInterval))
	}
}

// list reads everything.
func (w *watcher) list(ctx context.Context) error {
	fresh, err := w.store.view(ctx, w.view.network)
	if err != nil {
		return err
	}
	known := w.view.revision != 0
	back := w.rewound || known && !w.view.precedes(fresh.moment)
	w.mu.Lock()
	w.read = reading{back: w.read.back || back, second: w.read.second || w.confirms && !back}
	w.view, w.listed = fresh, true
	w.mu.Unlock()
	w.rewound, w.confirms = false, false
	if back {
		w.store.log.Warn("etcd has other data than before, as after a restore: what is missing stays in force until a second look", "rev", fresh.revision)
		w.store.dataChanged()
	}
	w.signal()
	return nil
}

func (w *watcher) apply(r clientv3.WatchResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(r.Events) == 0 {
		w.view.revision = r.Header.Revision
		return
	}
	events := since(w.view.revision, r.Events)
	for _, e := range events {
		if e.Type == clientv3.EventTypeDelete {
			w.view.delete(string(e.Kv.Key))
		} else {
			w.view.put(e.Kv)
		}
	}
	if n := len(events); n > 0 {
		// The header may be ahead of the events, while a watch catches up.
		w.view.revision = events[n-1].Kv.ModRevision
		w.signal()
	}
}

// probe finds out what a watch does not tell: that etcd is away, and that it came back with other data, as after a
// restore from a backup. A watch from a revision that lies in the future waits for it silently. It returns the revision that etcd is at,
// 0 if etcd does not tell.
func (w *watcher) probe(ctx context.Context) (int64, error) {
	r, err := w.store.client.Get(ctx, w.store.layout.config(), clientv3.WithCountOnly())
	if err != nil {
		return 0, nil // the watch lasts; the client knows
	}
	if !w.view.precedes(momentOf(r.Header)) {
		return 0, errRewound
	}
	w.mu.Lock()
	w.view.term = r.Header.RaftTerm
	w.mu.Unlock()
	return r.Header.Revision, w.probeNewest(ctx)
}

// blind reports whether etcd serves, and has what a watch that gives no sign of life should have told. Silence alone tells
// nothing: etcd also keeps it until there is a revision that the watch has not seen, and its proxy always.
func (w *watcher) blind(ctx context.Context) bool {
	r, err := w.store.changes(ctx, w.view.revision+1, clientv3.WithKeysOnly())
	return err == nil && (len(r.Kvs) > 0 || r.Count != int64(w.view.size()))
}

// probeNewest looks up the newest lease at its revision: a history that was rewound and has grown past the view since
// has another there. After a compaction nobody can tell.
func (w *watcher) probeNewest(ctx context.Context) error {
	newest := w.view.newest()
	if newest == nil {
		return nil
	}
	key := w.store.layout.lease(newest.Subnets)
	r, err := w.store.client.Get(ctx, key, clientv3.WithRev(int64(newest.Revision)), clientv3.WithKeysOnly())
	if errors.Is(err, rpctypes.ErrFutureRev) || err == nil && (len(r.Kvs) == 0 || subnet.Revision(r.Kvs[0].ModRevision) != newest.Revision) {
		return errRewound
	}
	return nil
}

// since returns the events after a revision.
func since(revision int64, events []*clientv3.Event) []*clientv3.Event {
	first := slices.IndexFunc(events, func(e *clientv3.Event) bool { return e.Kv.ModRevision > revision })
	if first < 0 {
		return nil
	}
	return events[first:] // they come in order
}
