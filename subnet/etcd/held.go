package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/backoff"
	"tulle/internal/etcdtransport"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// held is a lease that is being kept alive. Whatever happens to the key, the reaction is the same: look at it, and make
// it right or give it up (see inspect).
type held struct {
	store *Store
	claim subnet.Claim
	lost  chan error
	stop  context.CancelFunc
	done  chan struct{} // closed when nothing keeps the lease alive any more
	turn  chan struct{} // holds a token while the key is read or written
	said  said          // used by who has the turn

	questions *questions // used by keep alone, but for those that are due
	recorded  time.Time  // when it was last recorded that the subnets are this host's; used by keep alone

	mu        sync.Mutex
	mine      entry
	until     time.Duration // by uptime: as far as etcd has confirmed the lease
	loss      error         // why it is no longer ours
	claimants subnet.Claimants
}

// checkEvery is how many probe intervals pass between looks at a key of which no watch tells anything: a watch is blind
// once etcd has other data (see watcher.probe).
const checkEvery = 3

// errChanged makes the keeping start over with the lease as it is now.
var errChanged = errors.New("lease changed")

func (s *Store) hold(ctx context.Context, claim subnet.Claim, mine *entry, granted term) *held {
	ctx, cancel := s.scope(ctx)
	h := &held{
		store: s,
		claim: claim,
		lost:  make(chan error, 1),
		stop:  cancel,
		done:  make(chan struct{}),
		turn:  make(chan struct{}, 1),

		questions: s.newQuestions(claim),
		recorded:  time.Now(),
		mine:      *mine,
		until:     granted.until,
		claimants: subnet.Claimants{},
	}
	s.wg.Go(func() {
		var wg sync.WaitGroup
		defer close(h.done)
		defer wg.Wait()
		defer cancel()
		if claim.Answer != nil {
			wg.Go(func() { h.answerQuestions(ctx) })
		}
		h.keep(ctx)
	})
	return h
}

func (h *held) Lease() subnet.Lease { return h.entry().Lease }

func (h *held) Lost() <-chan error { return h.lost }

// Claimants implements subnet.Held.
func (h *held) Claimants() []subnet.Claimant {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.claimants.Now()
}

func (h *held) entry() entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mine
}

func (h *held) set(e entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mine = e
}

func (h *held) lose(why error) {
	h.mu.Lock()
	h.loss = why
	h.mu.Unlock()
	h.lost <- why
}

func (h *held) lossNow() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.loss
}

// take makes the caller the only goroutine that works on the key.
func (h *held) take(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *held) give() { <-h.turn }

// keep runs until ctx ends or the lease is lost. An etcd that is away is no loss.
func (h *held) keep(ctx context.Context) {
	retry := etcdtransport.ConnectBackoff()
	for ctx.Err() == nil {
		start := time.Now()
		err := h.ownerKey(ctx)
		switch {
		case errors.Is(err, subnet.ErrLost):
			h.lose(err)
			h.withdraw(ctx)
			return
		case errors.Is(err, errChanged), time.Since(start) > h.store.config.ProbeInterval:
			retry.Reset()
		}
		if ctx.Err() == nil {
			h.store.log.Debug("lease is looked at anew", "err", err)
		}
		if retry.Wait(ctx) != nil {
			return
		}
	}
}

// ownerKey keeps the etcd lease alive and watches the key, and those where others ask this host, until something breaks.
func (h *held) ownerKey(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	other := h.store.otherData()
	reconnected := make(chan struct{}, 1)
	wg.Go(func() { h.store.client.Reconnects(ctx, reconnected) })
	if err := h.forget(ctx); err != nil {
		return err
	}
	revision, err := h.inspect(ctx)
	if err != nil {
		return err
	}
	mine := h.entry()
	gone := make(chan error, 1)
	if mine.id != 0 {
		wg.Go(func() { gone <- h.renewal(ctx, mine.id) })
	}
	l := h.store.layout
	stream := h.store.client.JoinStream(ctx)
	defer stream.Leave()
	own := stream.Watch(l.lease(mine.Subnets), clientv3.WithRev(revision))
	challenge, end := l.asked(h.claim.Attrs.Node)
	options := []clientv3.OpOption{clientv3.WithRev(revision)}
	if h.claim.Answer != nil {
		options = append(options, clientv3.WithRange(end))
	}
	asked := stream.Watch(challenge, options...)
	check := time.NewTimer(backoff.Jitter(checkEvery * h.store.config.ProbeInterval))
	defer check.Stop()
	silent := false // since a sign of life was asked for on the stream
	told := revision
	for {
		r, ok := clientv3.WatchResponse{}, true
		due, blind := false, false
		select {
		case <-other:
			return errRewound
		case <-reconnected:
			due = true // with other data, of the same revisions, the watches go on and tell nothing
		case <-check.C:
			due = silent || !stream.AskForLife()
			silent, blind = !due, due
			check.Reset(backoff.Jitter(checkEvery * h.store.config.ProbeInterval))
		case err := <-gone:
			return err
		case r, ok = <-own:
			silent = false
		case r, ok = <-asked:
			silent = false
			r.Events = h.questions.take(challenge, r.Events)
		}
		if !ok {
			return errWatchEnded
		}
		if err := r.Err(); err != nil {
			return err
		}
		if r.Header != nil {
			told = max(told, r.Header.Revision)
		}
		if len(since(revision, r.Events)) == 0 && !due {
			if r.Header != nil && r.Header.Revision < revision {
				return errRewound
			}
			if err := h.recordOwner(ctx); err != nil {
				return err
			}
			continue
		}
		switch now, err := h.inspect(ctx); {
		case err != nil:
			return err
		case now < revision:
			return errRewound
		case blind && now > told:
			return errBlind // a question to this host would not be told either
		}
		if err := h.recordOwner(ctx); err != nil {
			return err
		}
	}
}

// recordOwner records from time to time that the subnets are still this host's.
func (h *held) recordOwner(ctx context.Context) error {
	if time.Since(h.recorded) < h.store.config.OwnerInterval {
		return nil
	}
	h.recorded = time.Now()
	mine := h.entry()
	l := h.store.layout
	_, err := h.store.client.Commit(ctx, etcdtransport.Txn{
		When: []clientv3.Cmp{unchanged(l.lease(mine.Subnets), mine.Revision)},
		Then: l.recordOwner(mine.Subnets, mine.Attrs.Node, false),
	})
	if err != nil {
		return fmt.Errorf("note the owner of %s: %w", subnet.KeyOf(mine.Subnets), err)
	}
	return nil
}

// inspect looks at the key and at questions to this host, puts right what is wrong, and returns the revision of what it
// saw. It returns errChanged if it wrote, and an error that wraps subnet.ErrLost if the lease is another's.
func (h *held) inspect(ctx context.Context) (int64, error) {
	if err := h.take(ctx); err != nil {
		return 0, err
	}
	defer h.give()
	return h.inspectNow(ctx)
}

func (h *held) inspectNow(ctx context.Context) (int64, error) {
	mine := h.entry()
	l := h.store.layout
	r, err := h.store.client.Commit(ctx, etcdtransport.Txn{Then: []clientv3.Op{
		clientv3.OpGet(l.lease(mine.Subnets)),
		clientv3.OpGet(l.challenge(h.claim.Attrs.Node)),
	}})
	if err != nil {
		return 0, fmt.Errorf("read lease %s: %w", subnet.KeyOf(mine.Subnets), err)
	}
	found := r.Responses[0].GetResponseRange().GetKvs()
	if len(found) == 0 {
		return 0, h.heal(ctx)
	}
	if now := found[0]; subnet.Revision(now.ModRevision) != mine.Revision || !h.wrote(now) {
		if err := h.reclaim(ctx, now); err != nil {
			return 0, err
		}
	}
	for _, question := range r.Responses[1].GetResponseRange().GetKvs() {
		if err := h.answer(ctx, question); err != nil {
			return 0, err
		}
	}
	return r.Header.Revision, nil
}

// Update implements subnet.Held.
func (h *held) Update(ctx context.Context, attrs subnet.Attrs) error {
	if err := h.take(ctx); err != nil {
		return err
	}
	defer h.give()
	if err := h.lossNow(); err != nil {
		return fmt.Errorf("update lease: %w", err)
	}
	attrs.Node, attrs.Instance, attrs.Hardware = h.claim.Attrs.Node, h.claim.Attrs.Instance, h.claim.Attrs.Hardware
	retry := etcdtransport.RequestBackoff()
	for {
		done, err := h.update(ctx, attrs)
		if done || err != nil {
			return err
		}
		if _, err := h.inspectNow(ctx); err != nil && !errors.Is(err, errChanged) {
			return fmt.Errorf("update lease %s: %w", subnet.KeyOf(h.Lease().Subnets), err)
		}
		if err := retry.Wait(ctx); err != nil {
			return err
		}
	}
}

// update reports whether the lease has the attributes now; if not, the key is not as it was.
func (h *held) update(ctx context.Context, attrs subnet.Attrs) (bool, error) {
	mine := h.entry()
	key := h.store.layout.lease(mine.Subnets)
	attrs = attrs.Over(mine.Attrs)
	before, err := flannel.EncodeLease(mine.Subnets, mine.Attrs)
	if err != nil {
		return false, err
	}
	value, err := flannel.EncodeLease(mine.Subnets, attrs)
	if err != nil {
		return false, err
	}
	if before == value {
		return true, nil
	}
	r, err := h.store.client.Commit(ctx, etcdtransport.Txn{
		When: []clientv3.Cmp{
			unchanged(key, mine.Revision),
			clientv3.Compare(clientv3.LeaseValue(key), "=", mine.id), // a restore from a backup brings revisions again, never this id
		},
		Then: []clientv3.Op{clientv3.OpPut(key, value, clientv3.WithIgnoreLease())},
	})
	if err != nil {
		return false, fmt.Errorf("update lease %s: %w", subnet.KeyOf(mine.Subnets), err)
	}
	if r.Succeeded {
		mine.Attrs, mine.Revision = attrs, subnet.Revision(r.Header.Revision)
		h.set(mine)
	}
	return r.Succeeded, nil
}

// Release implements subnet.Held.
func (h *held) Release(ctx context.Context) error {
	h.stop()
	select {
	case <-h.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	mine := h.entry()
	if mine.Reserved {
		h.withdraw(ctx)
		return nil
	}
	key := h.store.layout.lease(mine.Subnets)
	retry := etcdtransport.RequestBackoff()
	for {
		r, err := h.store.client.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("release lease %s: %w", subnet.KeyOf(mine.Subnets), err)
		}
		if len(r.Kvs) == 0 {
			break
		}
		if !h.owns(r.Kvs[0]) || r.Kvs[0].Lease == 0 {
			return nil
		}
		gone, err := h.store.remove(ctx, mine.Subnets, mine.Attrs.Node, subnet.Revision(r.Kvs[0].ModRevision))
		if err != nil {
			return err
		}
		if gone {
			break
		}
		if err := retry.Wait(ctx); err != nil {
			return err
		}
	}
	h.store.client.Revoke(ctx, mine.id)
	return nil
}
