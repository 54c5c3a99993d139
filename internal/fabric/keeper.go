package fabric

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
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
	answer   subnet.Answer
	renumber bool   // a subnet that was lost is not waited for
	changed  func() // asks the loop for a pass
	wake     chan struct{}

	mu    sync.Mutex
	want  *subnet.Attrs  // nil until the loop knows
	avoid []netip.Prefix // what a new subnet is not to overlap
	keep  bool           // previous is in use by this run
	loss  *loss          // the last one; nil if none, or if the subnet was got back
	held  subnet.Held    // nil while none is held; written by run alone
	err   error          // why none is held, or why it does not announce what is wanted
}

// loss is how a subnet was lost.
type loss struct {
	subnets subnet.Subnets
	reason  error
	time    time.Time
}

// ErrAcquiring tells that the store has not given a lease yet.
var ErrAcquiring = errors.New("acquiring a lease")

func newKeeper(cfg Config, previous subnet.Subnets, changed func()) *keeper {
	for _, f := range ip.Families() {
		if !previous.Of(f).IsValid() {
			previous.Set(f, cfg.Lease.Previous.Of(f))
		}
	}
	return &keeper{store: cfg.Store, log: cfg.Log, ttl: cfg.Lease.TTL, previous: previous, answer: cfg.Answer, renumber: cfg.Lease.Renumber, changed: changed, wake: make(chan struct{}, 1), err: ErrAcquiring}
}

// ErrUnconfirmed tells that this host cannot know whether the lease is still its own.
var ErrUnconfirmed = errors.New("the store has not confirmed the lease for as long as it lasts: another host may have the subnet")

// publish says what the lease should announce, and what a new one is to avoid.
func (k *keeper) publish(attrs subnet.Attrs, avoid []netip.Prefix) {
	k.mu.Lock()
	same := k.want != nil && k.want.Equal(attrs) && (k.held != nil || slices.Equal(k.avoid, avoid))
	k.want, k.avoid = &attrs, avoid
	k.mu.Unlock()
	if same {
		return
	}
	k.hurry()
}

// withdraw says that nothing is to be acquired.
func (k *keeper) withdraw() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.want = nil
}

// hurry has the lease acquired or published now.
func (k *keeper) hurry() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// inUse says that containers may use the previous subnets from now on.
func (k *keeper) inUse() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keep = true
}

// insists reports whether no other subnet will do.
func (k *keeper) insists() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keep && !k.renumber
}

// lastLoss says how the subnet that this host had was lost, until it has it again.
func (k *keeper) lastLoss() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.loss == nil {
		return ""
	}
	return fmt.Sprintf("%v, noticed at %s", k.loss.reason, k.loss.time.UTC().Format(time.RFC3339))
}

// state returns the lease, if one is held. The error is why none is, or why it does not announce what it should.
func (k *keeper) state() (lease subnet.Lease, held bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held == nil {
		return subnet.Lease{}, false, k.err
	}
	if k.held.Remaining() <= 0 {
		return k.held.Lease(), false, ErrUnconfirmed
	}
	return k.held.Lease(), true, k.err
}

// remaining is for how long the lease is held without another word from the store; zero if it is not, or has no end.
func (k *keeper) remaining() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held == nil {
		return 0
	}
	if left := k.held.Remaining(); left != subnet.Forever {
		return max(left, 0)
	}
	return 0
}

// claimants are the hosts that claim what is this one's.
func (k *keeper) claimants() []subnet.Claimant {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held == nil {
		return nil
	}
	return k.held.Claimants()
}

// holds reports whether this host may say that it holds its lease.
func (k *keeper) holds() bool {
	_, held, _ := k.state()
	return held
}

// complain has the store hold what this host says of its peers.
func (k *keeper) complain(ctx context.Context, c *subnet.Complaint) error {
	k.mu.Lock()
	held := k.held
	k.mu.Unlock()
	if held == nil {
		return errNoLease
	}
	return held.Complain(ctx, c)
}

func (k *keeper) set(held subnet.Held, err error) {
	k.mu.Lock()
	k.held, k.err = held, err
	k.mu.Unlock()
	k.changed()
}

func (k *keeper) wanted() (attrs subnet.Attrs, avoid []netip.Prefix, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.want == nil {
		return subnet.Attrs{}, nil, false
	}
	return *k.want, k.avoid, true
}

// run keeps a lease until ctx ends, and then leaves it in place. Failures and losses that follow one another are spaced
// out: a lease that is lost whenever it has been acquired must not keep the store busy.
func (k *keeper) run(ctx context.Context) error {
	retry := backoff.Backoff{First: RetryFirst, Most: RetryMost}
	var failed time.Time
	pause := func() <-chan time.Time {
		if time.Since(failed) > 2*RetryMost {
			retry.Reset()
		}
		failed = time.Now()
		return time.After(retry.Next())
	}
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case reason := <-k.lost():
			k.lose(reason)
			again = pause()
			continue
		case <-k.wake:
		case <-again:
		}
		again = nil
		if err := k.step(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			k.set(k.held, err)
			again = pause()
		}
	}
}

func (k *keeper) lost() <-chan error {
	if k.held == nil {
		return nil
	}
	return k.held.Lost()
}

func (k *keeper) lose(reason error) {
	k.previous = k.held.Lease().Subnets
	k.inUse()
	k.mu.Lock()
	k.loss = &loss{subnets: k.previous, reason: reason, time: time.Now()}
	k.mu.Unlock()
	k.log.Warn("lease lost", "subnet", subnet.KeyOf(k.previous), "err", reason)
	k.set(nil, reason)
}

// step brings the lease one step nearer to what is wanted.
func (k *keeper) step(ctx context.Context) error {
	attrs, avoid, ok := k.wanted()
	if !ok {
		return nil
	}
	if k.held == nil {
		held, err := k.store.Acquire(ctx, subnet.Claim{Attrs: attrs, Previous: k.previous, Only: k.insists(), Avoid: avoid, TTL: k.ttl, Answer: k.answer})
		if err != nil {
			return err
		}
		k.report("lease acquired", held)
		return nil
	}
	if k.held.Lease().Attrs.Equal(attrs) {
		k.set(k.held, nil)
		return nil
	}
	if err := k.held.Update(ctx, attrs); err != nil {
		return fmt.Errorf("publish lease: %w", err)
	}
	k.report("lease published", k.held)
	return nil
}

func (k *keeper) report(what string, held subnet.Held) {
	lease := held.Lease()
	k.mu.Lock()
	if k.loss != nil && k.loss.subnets == lease.Subnets {
		k.loss = nil
	}
	k.mu.Unlock()
	k.log.Info(what, "subnet", subnet.KeyOf(lease.Subnets), "rev", lease.Revision)
	k.set(held, nil)
}
