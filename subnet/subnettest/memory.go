// Package subnettest holds a subnet.Store in memory and the conformance suite that every Store passes.
package subnettest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

const (
	configKey = flannel.ConfigKey
	leasesDir = flannel.LeaseDir
)

// Store is a subnet.Store in memory, as one host sees it. Its clock is package time's, so that a bubble of
// testing/synctest drives it. Keys are relative to the prefix: "config", "subnets/10.5.34.0-24".
type Store struct {
	*world
	connection Connection
	born       time.Time
	slept      time.Duration   // of the time since
	ctx        context.Context // ends with the store
	cancel     context.CancelFunc
	wg         sync.WaitGroup
}

var _ subnet.Store = (*Store)(nil)

// world is what all hosts see.
type world struct {
	mu       sync.Mutex
	revision subnet.Revision
	keys     map[string]*record
	views    []*view // the latest last, as are those that are live
	live     []*held
	coming   []coming
	down     bool          // nobody reaches it
	moved    chan struct{} // closed when the connection of a host changes
	anything chan struct{} // closed when a key changes
	leases   *subnet.Set   // what the keys say, nil if it must be read again
	observer func(subnet.Set)
	history
}

// record is a key's value.
type record struct {
	value             string
	created, modified subnet.Revision
	ttl               time.Duration
	expiry            *time.Timer // nil: never
	expires           time.Time   // when it fires

	lease *subnet.Lease // what the value says; views share it, so it never changes
	err   error         // or why it says nothing
}

// NewStore returns an empty store.
func NewStore() *Store {
	return open(&world{keys: map[string]*record{}, moved: make(chan struct{}), anything: make(chan struct{})})
}

// Open returns the store as another host sees it.
func (s *Store) Open() subnet.Store { return s.Another() }

// Another is Open for tests that also change the connection to the store.
func (s *Store) Another() *Store { return open(s.world) }

// Observe calls fn with the leases and the revision after every change, until there is another fn. It must not call the store.
func (w *world) Observe(fn func(subnet.Set)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.observer = fn
}

func (w *world) observe() {
	if w.observer != nil {
		w.observer(newView().set(w))
	}
}

func open(w *world) *Store {
	s := &Store{world: w, born: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close stops keeping this host's leases alive, as the death of the host would, and waits for that.
func (s *Store) Close() error {
	s.cancel()
	s.wg.Wait()
	return nil
}

// Put writes a key as any program with access to the store can. With ttl 0 it never expires.
func (w *world) Put(key, value string, ttl time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.put(key, value, ttl)
}

// Delete deletes a key, if it is there.
func (w *world) Delete(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delete(key)
}

// Get returns a key's value and whether it would expire.
func (w *world) Get(key string) (value string, expires, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.keys[key]
	if !ok {
		return "", false, false
	}
	return r.value, r.expiry != nil, true
}

// Keys returns all keys, in no order.
func (w *world) Keys() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var keys []string
	for key := range w.keys {
		keys = append(keys, key)
	}
	return keys
}

// put writes a key. s.mu is held, here and below.
func (w *world) put(key, value string, ttl time.Duration) {
	w.revision++
	r, ok := w.keys[key]
	if !ok {
		r = &record{created: w.revision}
		w.keys[key] = r
	}
	if r.expiry != nil {
		r.expiry.Stop()
		r.expiry = nil
	}
	r.value, r.modified, r.ttl = value, w.revision, ttl
	if ttl > 0 {
		w.expireAfter(key, r, ttl)
	}
	lease, err := decode(key, r)
	r.lease, r.err = &lease, err
	w.changed(key)
}

func (w *world) expireAfter(key string, r *record, ttl time.Duration) {
	r.expires = time.Now().Add(ttl)
	r.expiry = time.AfterFunc(ttl, func() { w.expire(key, r) })
	if w.down {
		r.expiry.Stop()
	}
}

// renew puts off the expiry of a key.
func (w *world) renew(key string, ttl time.Duration) {
	if r, ok := w.keys[key]; ok && r.expiry != nil {
		r.ttl = ttl
		r.lastFor(ttl)
	}
}

func (r *record) lastFor(left time.Duration) {
	r.expires = time.Now().Add(left)
	r.expiry.Reset(left)
}

func (w *world) expire(key string, r *record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keys[key] == r && !w.down {
		w.delete(key)
	}
}

func (w *world) delete(key string) {
	r, ok := w.keys[key]
	if !ok {
		return
	}
	if r.expiry != nil {
		r.expiry.Stop()
	}
	w.revision++
	delete(w.keys, key)
	w.changed(key)
}

// changed tells all watchers of a key.
func (w *world) changed(key string) {
	w.leases = nil
	defer w.observe()
	if key == configKey {
		w.remember()
	}
	for _, v := range w.views {
		signal(v.changed)
	}
	for _, h := range w.live {
		if leasesDir+subnet.KeyOf(h.mine.Subnets) == key {
			h.notify()
		}
		h.hear(key)
	}
	w.tellAskers()
}

// tellAskers has all who wait for an answer look.
func (w *world) tellAskers() {
	close(w.anything)
	w.anything = make(chan struct{})
}

// notify tells that the key has changed, if the host can hear it.
func (h *held) notify() {
	if !h.session.connection.NoEvents {
		signal(h.wake)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Acquire implements subnet.Store.
func (s *Store) Acquire(ctx context.Context, claim subnet.Claim) (subnet.Held, error) {
	if err := claim.CheckIdentity(); err != nil {
		return nil, fmt.Errorf("acquire lease: %w", err)
	}
	if err := s.request(ctx); err != nil {
		return nil, fmt.Errorf("acquire lease: %w", err)
	}
	set := s.look()
	// The read and the write are two requests.
	if err := s.request(ctx); err != nil {
		return nil, fmt.Errorf("acquire lease: %w", err)
	}
	defer s.acquired(claim)
	mine, err := s.claim(claim, set)
	if err == nil {
		err = s.answer(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("acquire lease: %w", err)
	}
	return s.hold(ctx, claim, mine), nil
}

// look reads everything.
func (s *Store) look() subnet.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all()
}

// all is everything that there is. The lock is held.
func (w *world) all() subnet.Set {
	v := newView()
	v.read(w)
	set := v.set(w)
	set.FormerOwners = w.formerOwners()
	return set
}

// claim writes the lease that the claim gets. If the store is not as it was in set, it is looked at again.
func (s *Store) claim(claim subnet.Claim, set subnet.Set) (subnet.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set.Revision != s.revision {
		set = s.all()
	}
	for _, duplicate := range subnet.Duplicates(set.Leases, claim) {
		if s.lives(duplicate.Lease.Attrs.Node) {
			s.tellClaimant(duplicate.Lease.Attrs.Node, claim)
			return subnet.Lease{}, duplicate.Conflict
		}
		if err := duplicate.Unanswered(); err != nil {
			return subnet.Lease{}, err
		}
		if duplicate.SameMachine {
			set.Leases = duplicate.Inherit(set.Leases, claim)
			break
		}
	}
	for {
		assigned, err := subnet.Assign(set, claim)
		if errors.Is(err, subnet.ErrNoNetwork) {
			return subnet.Lease{}, fmt.Errorf("%w: write key config", err)
		}
		if err != nil {
			return subnet.Lease{}, err
		}
		if blocked, ok := s.blocked(assigned); ok {
			set.Leases = append(set.Leases, &blocked)
			continue
		}
		mine, err := s.writeLease(claim, assigned)
		if err == nil {
			s.coming = append(s.coming, coming{s, claim.Attrs.Instance, claim.Attrs.Node})
		}
		return mine, err
	}
}

// blocked returns what a new place would collide with though it does not parse as a lease.
func (w *world) blocked(assigned subnet.Assignment) (subnet.Lease, bool) {
	if assigned.Held && assigned.Subnets == assigned.Mine.Subnets {
		return subnet.Lease{}, false
	}
	key := leasesDir + subnet.KeyOf(assigned.Subnets)
	address := key
	if assigned.Subnets.V4.IsValid() {
		address = leasesDir + assigned.Subnets.V4.Addr().String() + "-"
	}
	own := leasesDir + subnet.KeyOf(assigned.Mine.Subnets)
	for present := range w.keys {
		if (present == key || strings.HasPrefix(present, address)) && !(assigned.Held && present == own) {
			unseen := subnet.Lease{Subnets: assigned.Subnets, Created: subnet.Unwritten}
			for _, f := range ip.Families() {
				if assigned.Subnets.Of(f) == assigned.Mine.Subnets.Of(f) {
					unseen.Subnets.Set(f, netip.Prefix{})
				}
			}
			return unseen, true
		}
	}
	return subnet.Lease{}, false
}

// writeLease writes the lease, unless it is as it should be.
func (w *world) writeLease(claim subnet.Claim, assigned subnet.Assignment) (subnet.Lease, error) {
	mine := subnet.Lease{Subnets: assigned.Subnets, Attrs: claim.Attrs, Reserved: claim.TTL == subnet.Forever}
	ttl := ttlOf(claim)
	if assigned.Held {
		mine.Attrs = claim.Attrs.Over(assigned.Mine.Attrs)
		mine.Reserved = mine.Reserved || assigned.Mine.Reserved
	}
	if mine.Reserved {
		ttl = 0
	}
	value, err := flannel.EncodeLease(mine.Subnets, mine.Attrs)
	if err != nil {
		return mine, err
	}
	key := leasesDir + subnet.KeyOf(mine.Subnets)
	if assigned.Held && assigned.Mine.Attrs.Probe != (subnet.Probe{}) && claim.Attrs.Probe == (subnet.Probe{}) {
		w.delete(ComplaintOf(claim.Attrs.Node))
	}
	if assigned.Held && assigned.Subnets != assigned.Mine.Subnets {
		w.delete(leasesDir + subnet.KeyOf(assigned.Mine.Subnets))
	}
	if r, ok := w.keys[key]; ok && r.value == value && (ttl == 0) == (r.expiry == nil) {
		w.renew(key, ttl)
	} else {
		if !ok {
			w.recordOwner(mine.Subnets, claim.Attrs.Node, false)
		}
		w.put(key, value, ttl)
	}
	mine.Created, mine.Revision = w.keys[key].created, w.keys[key].modified
	return mine, nil
}

// ttlOf is a claim's TTL as Put takes it.
func ttlOf(claim subnet.Claim) time.Duration {
	if claim.TTL == subnet.Forever {
		return 0
	}
	if claim.TTL == 0 {
		return subnet.DefaultTTL
	}
	return claim.TTL
}
