package subnettest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"tulle/subnet"
	"tulle/subnet/flannel"
)

// held keeps a lease in memory alive. The store's lock guards its fields.
type held struct {
	session   *Store
	store     *world
	claim     subnet.Claim
	mine      subnet.Lease
	until     time.Duration // by the host's uptime: when the lease runs out unless it is renewed
	lost      chan error
	claimants subnet.Claimants
	turns     subnet.Turns
	due       chan question // to this host
	wake      chan struct{} // the key changed
	stop      context.CancelFunc
	done      chan struct{}
}

// hold starts keeping a lease alive.
func (s *Store) hold(ctx context.Context, claim subnet.Claim, mine subnet.Lease) *held {
	ctx, cancel := context.WithCancel(ctx)
	ended := context.AfterFunc(s.ctx, cancel)
	h := &held{
		session: s, store: s.world, claim: claim, mine: mine,
		claimants: subnet.Claimants{}, lost: make(chan error, 1), wake: make(chan struct{}, 1), due: make(chan question, subnet.QuestionBurst),
		stop: cancel, done: make(chan struct{}),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h.until = s.uptime() + ttlOf(claim)
	s.live = append(s.live, h)
	signal(h.wake) // the key may have changed since it was written
	s.wg.Go(func() {
		var answering sync.WaitGroup
		defer close(h.done)
		defer answering.Wait()
		defer cancel()
		defer ended()
		answering.Go(func() { h.answerQuestions(ctx) })
		h.keep(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.live = slices.DeleteFunc(s.live, func(l *held) bool { return l == h })
	})
	return h
}

func (h *held) keep(ctx context.Context) {
	due := time.NewTicker(renewEvery(h.claim))
	defer due.Stop()
	look := false
	for {
		moved, err := h.turn(&look)
		if err != nil {
			h.lost <- err
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-moved:
		case <-due.C:
			look = true
		case <-h.wake:
			look = h.session.travel(ctx) == nil
		}
	}
}

// turn does what is due, as far as the connection to the store allows, and returns what tells that the connection has changed.
func (h *held) turn(look *bool) (moved <-chan struct{}, loss error) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if *look && h.session.open() && !h.session.connection.Stopped {
		*look = false
		if err := h.inspect(); err != nil {
			h.withdraw()
			return nil, err
		}
		h.renew()
	}
	return h.store.moved, nil
}

func renewEvery(claim subnet.Claim) time.Duration { return cmp.Or(ttlOf(claim), subnet.DefaultTTL) / 3 }

// renew puts off the expiry, if the key is still this host's.
func (h *held) renew() {
	if r, ok := h.store.keys[h.key()]; ok && r.modified == h.mine.Revision {
		h.store.renew(h.key(), ttlOf(h.claim))
		h.renewComplaint()
		h.until = h.session.uptime() + ttlOf(h.claim)
	}
}

// wrote reports whether the key says what this host has published. Its revision does not tell: after a restore from a backup
// the same one may be of another host, or of another time.
func (h *held) wrote(r *record) bool {
	now, err := decode(h.key(), r)
	return err == nil && now.Attrs.Equal(h.mine.Attrs)
}

// owns reports whether the key is this host's.
func (h *held) owns(r *record) bool {
	now, err := decode(h.key(), r)
	return err != nil || (subnet.Claim{Attrs: h.mine.Attrs}).Owns(now)
}

func (h *held) key() string { return leasesDir + subnet.KeyOf(h.mine.Subnets) }

// inspect looks at the key and puts right what is wrong, or returns the loss.
func (h *held) inspect() error {
	s := h.store
	r, ok := s.keys[h.key()]
	if ok && r.modified == h.mine.Revision && h.wrote(r) {
		return nil
	}
	ttl := ttlOf(h.claim)
	if ok {
		now, err := decode(h.key(), r)
		if err == nil && !(subnet.Claim{Attrs: h.mine.Attrs}).Owns(now) {
			return subnet.LostTo(h.mine.Subnets, now)
		}
		h.mine.Attrs = h.mine.Attrs.Over(now.Attrs)
		if h.mine.Reserved = h.mine.Reserved || r.expiry == nil; h.mine.Reserved {
			ttl = 0
		}
	} else {
		h.mine.Reserved = h.claim.TTL == subnet.Forever
		set := s.all()
		for _, other := range set.Leases {
			if other.Takes(h.mine.Subnets, set.Network) {
				return subnet.LostTo(h.mine.Subnets, *other)
			}
		}
		for _, other := range set.Leases {
			if other.AbandonedBy(h.mine) {
				s.delete(leasesDir + subnet.KeyOf(other.Subnets))
			}
		}
	}
	return h.write(h.mine.Attrs, ttl)
}

func (h *held) write(attrs subnet.Attrs, ttl time.Duration) error {
	value, err := flannel.EncodeLease(h.mine.Subnets, attrs)
	if err != nil {
		return err
	}
	r, ok := h.store.keys[h.key()]
	if !ok || r.value != value || (ttl == 0) != (r.expiry == nil) {
		if !ok {
			h.store.recordOwner(h.mine.Subnets, h.claim.Attrs.Node, false)
		}
		h.store.put(h.key(), value, ttl)
		r = h.store.keys[h.key()]
	}
	h.mine.Attrs, h.mine.Created, h.mine.Revision = attrs, r.created, r.modified
	h.renew()
	return nil
}

// Left implements subnet.Held.
func (h *held) Remaining() time.Duration {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if h.mine.Reserved {
		return subnet.Forever
	}
	return h.until - h.session.uptime() - ttlOf(h.claim)/subnet.LeaseMargin
}

// Lease implements subnet.Held.
func (h *held) Lease() subnet.Lease {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	return h.mine
}

// Lost implements subnet.Held.
func (h *held) Lost() <-chan error { return h.lost }

// Claimants implements subnet.Held.
func (h *held) Claimants() []subnet.Claimant {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	return h.claimants.Now()
}

// Update implements subnet.Held.
func (h *held) Update(ctx context.Context, attrs subnet.Attrs) error {
	if err := h.session.request(ctx); err != nil {
		return fmt.Errorf("update lease: %w", err)
	}
	if err := h.update(attrs); err != nil {
		return err
	}
	return h.session.answer(ctx)
}

func (h *held) update(attrs subnet.Attrs) error {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if err := h.inspect(); err != nil {
		return fmt.Errorf("update lease %s: %w", subnet.KeyOf(h.mine.Subnets), err)
	}
	attrs.Node, attrs.Instance, attrs.Hardware = h.claim.Attrs.Node, h.claim.Attrs.Instance, h.claim.Attrs.Hardware
	ttl := ttlOf(h.claim)
	if h.mine.Reserved {
		ttl = 0
	}
	return h.write(attrs.Over(h.mine.Attrs), ttl)
}

// Release implements subnet.Held.
func (h *held) Release(ctx context.Context) error {
	h.stop()
	select {
	case <-h.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	r, ok := h.store.keys[h.key()]
	if !ok || !h.owns(r) {
		return nil
	}
	h.withdraw()
	if r.expiry == nil {
		return nil
	}
	h.store.delete(h.key())
	h.store.recordOwner(h.mine.Subnets, h.claim.Attrs.Node, true)
	return nil
}
