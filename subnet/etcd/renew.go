package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/backoff"
	"tulle/internal/etcdtransport"
	"tulle/subnet"
)

// lookEvery is how often a held lease is looked at for whether it is due for renewal: a timer would sleep when the machine does.
const lookEvery = time.Minute

// term is for how long etcd has granted a lease.
type term struct {
	seconds int64
	until   time.Duration // by uptime, with a margin
}

// termFrom counts from before the request that etcd granted: the answer may have waited here for any time.
func termFrom(asked time.Duration, seconds int64) term {
	length := time.Duration(seconds) * time.Second
	return term{seconds: seconds, until: asked + length - length/subnet.LeaseMargin}
}

// grant makes an etcd lease.
func (s *Store) grant(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, term, error) {
	asked := s.config.Uptime()
	r, err := s.client.Grant(ctx, seconds(ttl))
	if err != nil {
		return 0, term{}, fmt.Errorf("grant etcd lease: %w", err)
	}
	return r.ID, termFrom(asked, r.TTL), nil
}

// renew prolongs an etcd lease.
func (s *Store) renew(ctx context.Context, id clientv3.LeaseID) (term, error) {
	asked := s.config.Uptime()
	r, err := s.client.Renew(ctx, id)
	if err != nil {
		return term{}, fmt.Errorf("renew etcd lease: %w", err)
	}
	return termFrom(asked, r.TTL), nil
}

// renewal renews an etcd lease whenever a third of its time has passed, until ctx ends or the lease is gone.
func (h *held) renewal(ctx context.Context, id clientv3.LeaseID) error {
	retry := etcdtransport.ConnectBackoff()
	third := time.Duration(seconds(h.claim.TTL)) * time.Second / 3
	for {
		wait := time.Duration(0)
		if due := h.Remaining() - 2*third; due > 0 {
			wait = min(backoff.Jitter(due), lookEvery)
		} else if err := h.renewNow(ctx, id); errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return err
		} else if err != nil {
			wait = retry.Next()
		} else {
			retry.Reset()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (h *held) renewNow(ctx context.Context, id clientv3.LeaseID) error {
	t, err := h.store.renew(ctx, id)
	if err == nil {
		h.confirm(t)
	}
	return err
}

// confirm takes note that etcd has granted the lease for a time.
func (h *held) confirm(t term) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until = t.until
}

// Remaining implements subnet.Held.
func (h *held) Remaining() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mine.id == 0 {
		return subnet.Forever
	}
	return h.until - h.store.config.Uptime()
}
