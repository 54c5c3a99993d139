package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tulle/internal/backoff"
	"tulle/ip"
	"tulle/subnet"
)

// keeper holds this host's lease: acquires it, publishes what the loop wants published, and gets it back when lost.
type keeper struct {
	store    subnet.Store
	log      *slog.Logger
	ttl      time.Duration
	previous subnet.Subnets
	keep     bool   // previous was held by this run: no other subnet will do
	changed  func() // asks the loop for a pass
	wake     chan struct{}

	mu    sync.Mutex
	want  *subnet.Attrs // nil until the loop knows
	lease *subnet.Lease // nil while none is held
	err   error         // why not
}

func newKeeper(cfg Config, previous subnet.Subnets, changed func()) *keeper {
	for _, f := range ip.Families() {
		if !previous.Of(f).IsValid() {
			previous.Set(f, cfg.Previous.Of(f))
		}
	}
	return &keeper{store: cfg.Store, log: cfg.Log, ttl: cfg.TTL, previous: previous, changed: changed, wake: make(chan struct{}, 1)}
}

// publish says what the lease should announce.
func (k *keeper) publish(attrs subnet.Attrs) {
	k.mu.Lock()
	same := k.want != nil && sameAttrs(*k.want, attrs)
	k.want = &attrs
	k.mu.Unlock()
	if same {
		return
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// errAcquiring tells that the store has not given a lease yet.
var errAcquiring = errors.New("acquiring a lease")

// held returns the lease, or why there is none.
func (k *keeper) held() (subnet.Lease, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.lease != nil:
		return *k.lease, nil
	case k.err != nil:
		return subnet.Lease{}, k.err
	}
	return subnet.Lease{}, errAcquiring
}

func (k *keeper) set(lease *subnet.Lease, err error) {
	k.mu.Lock()
	k.lease, k.err = lease, err
	k.mu.Unlock()
	k.changed()
}

func (k *keeper) wanted() (subnet.Attrs, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.want == nil {
		return subnet.Attrs{}, false
	}
	return *k.want, true
}

// run keeps a lease until ctx ends, and then leaves it in place.
func (k *keeper) run(ctx context.Context) error {
	retry := backoff.Backoff{First: retryFirst, Most: retryMost}
	var held subnet.Held
	var lost <-chan error
	for {
		var again <-chan time.Time
		if err := k.step(ctx, &held); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			again = time.After(retry.Next())
		} else {
			retry.Reset()
		}
		lost = nil
		if held != nil {
			lost = held.Lost()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.wake:
		case <-again:
		case reason := <-lost:
			k.log.Warn("lease lost", "subnet", subnet.KeyOf(held.Lease().Subnets), "err", reason)
			k.previous, k.keep, held = held.Lease().Subnets, true, nil
			k.set(nil, reason)
		}
	}
}

// step brings the lease one step nearer to what is wanted.
func (k *keeper) step(ctx context.Context, held *subnet.Held) error {
	attrs, ok := k.wanted()
	if !ok {
		return nil
	}
	if *held == nil {
		got, err := k.store.Acquire(ctx, subnet.Claim{Attrs: attrs, Previous: k.previous, Keep: k.keep, TTL: k.ttl})
		if err != nil {
			k.set(nil, err)
			return err
		}
		*held = got
		lease := got.Lease()
		k.log.Info("lease acquired", "subnet", subnet.KeyOf(lease.Subnets), "rev", lease.Revision)
		k.set(&lease, nil)
		return nil
	}
	if sameAttrs((*held).Lease().Attrs, attrs) {
		return nil
	}
	if err := (*held).Update(ctx, attrs); err != nil {
		return fmt.Errorf("publish lease: %w", err)
	}
	lease := (*held).Lease()
	k.log.Info("lease published", "subnet", subnet.KeyOf(lease.Subnets), "rev", lease.Revision)
	k.set(&lease, nil)
	return nil
}

// sameAttrs compares what this version writes.
func sameAttrs(a, b subnet.Attrs) bool {
	return a.Public == b.Public && a.BackendType == b.BackendType && a.Node == b.Node && a.Instance == b.Instance &&
		bytes.Equal(a.BackendData.V4, b.BackendData.V4) && bytes.Equal(a.BackendData.V6, b.BackendData.V6)
}
