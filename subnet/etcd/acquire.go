package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdtransport"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// Acquire implements subnet.Store.
func (s *Store) Acquire(ctx context.Context, claim subnet.Claim) (subnet.Held, error) {
	if err := claim.CheckIdentity(); err != nil {
		return nil, fmt.Errorf("acquire lease: %w", err)
	}
	a := &acquisition{store: s, claim: claim, creation: s.newCreation(nil), dead: map[string]bool{}}
	a.creation.unwelcome = a.disputes
	mine, err := a.run(ctx)
	if err != nil {
		if a.granted != 0 {
			s.client.Revoke(ctx, a.granted)
		}
		return nil, fmt.Errorf("acquire lease: %w", err)
	}
	if a.outdated != 0 {
		s.client.Revoke(ctx, a.outdated)
	}
	return s.hold(ctx, claim, mine, a.term), nil
}

// acquisition is one Acquire under way.
type acquisition struct {
	store      *Store
	claim      subnet.Claim
	creation   *creation            // without a view: read the leases first
	former     []subnet.FormerOwner // nil: not read yet
	lostRaces  int
	blocked    []*subnet.Lease  // subnets that are not to be had, though nothing that parses as a lease shows why
	dead       map[string]bool  // duplicates that did not answer
	undisputed bool             // the claim goes on with the lease of an earlier run: nobody disputes it
	granted    clientv3.LeaseID // for this claim, to be revoked on failure
	term       term             // of the etcd lease in use
	outdated   clientv3.LeaseID // of an earlier run, to be revoked on success
}

func (a *acquisition) run(ctx context.Context) (*entry, error) {
	races, overloads := etcdtransport.RequestBackoff(), etcdtransport.ConnectBackoff()
	for patience := overloadTries; ; {
		mine, err := a.attempt(ctx)
		retry := races
		if patience > 0 && a.store.client.Overloaded(err) {
			// Whether the last request took effect is unknown. If so, the lease is found as this host's own.
			patience--
			a.creation.view, err, retry = nil, nil, overloads
		}
		if err != nil || mine != nil {
			return mine, err
		}
		if err := retry.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// listAfter is how many races are lost before all leases are listed again: a nearly full pool is not found free by guessing.
const listAfter = 4

// overloadTries is how often an acquisition puts up with an etcd that is too busy: with hosts that all start at once.
const overloadTries = 6

// attempt returns no lease if another host was faster.
func (a *acquisition) attempt(ctx context.Context) (*entry, error) {
	var err error
	if a.creation.view == nil {
		if a.creation.view, err = a.store.latest(ctx); err != nil {
			return nil, err
		}
	}
	v := a.creation.view
	set := v.set()
	set.Leases = append(slices.Clip(set.Leases), a.blocked...)
	if set.Leases, err = a.resolveDuplicates(ctx, set.Leases); err != nil {
		return nil, err
	}
	if set.FormerOwners, err = a.formerOwners(ctx, set); err != nil {
		return nil, err
	}
	assigned, err := subnet.AssignAgain(set, a.claim, a.lostRaces)
	if errors.Is(err, subnet.ErrNoNetwork) {
		return nil, a.store.noNetwork(v)
	}
	if err != nil {
		return nil, err
	}
	attrs := a.claim.Attrs
	var old *entry
	if assigned.Held {
		old = v.leases[v.layout.lease(assigned.Mine.Subnets)]
		attrs = attrs.Over(old.Attrs)
	}
	id, err := a.etcdLease(ctx, old)
	if err != nil {
		return nil, err
	}
	if assigned.Held && assigned.Subnets == assigned.Mine.Subnets {
		return a.adopt(ctx, old, attrs, id)
	}
	created, err := a.creation.try(ctx, assigned.Subnets, attrs, id, old)
	if created == nil && err == nil {
		a.lostRaces++
	}
	if created == nil && !a.creation.learned {
		a.block(assigned)
	}
	if created == nil && (assigned.Held && !a.creation.learned || a.lostRaces%listAfter == 0) {
		a.creation.view = nil
	}
	return created, err
}

// formerOwners returns what has been leased before, unless the claim has a lease and needs no other.
func (a *acquisition) formerOwners(ctx context.Context, set subnet.Set) ([]subnet.FormerOwner, error) {
	if mine, held := subnet.Mine(set, a.claim); a.former != nil || held && set.Network != nil && set.Network.Fits(mine.Subnets) {
		return a.former, nil
	}
	var err error
	a.former, err = a.store.formerOwners(ctx)
	return a.former, err
}

// block excludes what place would newly have got.
func (a *acquisition) block(assigned subnet.Assignment) {
	unseen := subnet.Lease{Subnets: assigned.Subnets, Created: subnet.Unwritten}
	for _, f := range ip.Families() {
		if assigned.Subnets.Of(f) == assigned.Mine.Subnets.Of(f) {
			unseen.Subnets.Set(f, netip.Prefix{})
		}
	}
	a.blocked = append(a.blocked, &unseen)
}

// disputes reports whether another host, which may live, uses the claim's identity in l.
func (a *acquisition) disputes(l *subnet.Lease) bool {
	duplicates := subnet.Duplicates([]*subnet.Lease{l}, a.claim)
	return len(duplicates) > 0 && !a.undisputed && !a.dead[duplicateKey(l)]
}

func duplicateKey(l *subnet.Lease) string { return l.Attrs.Node + "\x00" + l.Attrs.Instance }

// resolveDuplicates asks all hosts that use the claim's identity whether they live. It returns the conflict with the first that does, else the
// leases, of which one may have become the claim's.
func (a *acquisition) resolveDuplicates(ctx context.Context, leases []*subnet.Lease) ([]*subnet.Lease, error) {
	a.undisputed = false
	duplicates := subnet.Duplicates(leases, a.claim)
	alive := map[string]bool{} // by node id, of those who have been asked
	for i, duplicate := range duplicates {
		if !a.dead[duplicateKey(duplicate.Lease)] {
			if _, asked := alive[duplicate.Lease.Attrs.Node]; !asked {
				if err := a.store.askAll(ctx, a.claim, a.disputed(duplicates[i:]), alive); err != nil {
					return nil, err
				}
			}
			if err := a.challenge(duplicate, alive[duplicate.Lease.Attrs.Node]); err != nil {
				return nil, err
			}
		}
		if duplicate.SameMachine {
			a.undisputed = true
			return duplicate.Inherit(leases, a.claim), nil
		}
	}
	return leases, nil
}

// disputed returns the node ids to ask next: that of the first duplicate if its silence settles the matter, else all others' too.
func (a *acquisition) disputed(duplicates []subnet.Duplicate) []string {
	if duplicates[0].SameMachine {
		duplicates = duplicates[:1]
	}
	var nodes []string
	for _, r := range duplicates {
		if node := r.Lease.Attrs.Node; !a.dead[duplicateKey(r.Lease)] && !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// challenge returns the conflict with one duplicate that was asked, if it lives, or may live.
func (a *acquisition) challenge(duplicate subnet.Duplicate, alive bool) error {
	owner := duplicate.Lease.Attrs
	if alive {
		return duplicate.Conflict
	}
	if err := duplicate.Unanswered(); err != nil {
		return err
	}
	a.dead[duplicateKey(duplicate.Lease)] = true
	switch name := subnet.KeyOf(duplicate.Lease.Subnets); {
	case owner.Node == a.claim.Attrs.Node:
	case duplicate.SameMachine:
		a.store.log.Warn("lease of an earlier run on this machine, which had another node id, is taken over",
			"subnet", name, "node", owner.Node)
	default:
		a.store.log.Warn("public address was another node's, whose subnet stays leased until it expires",
			"address", duplicate.Conflict.Value, "node", owner.Node, "subnet", name)
	}
	return nil
}

// etcdLease returns the etcd lease for the claim's key: none for one that never expires, that of this host's earlier run if it
// still lives and has the right length, else a new one.
func (a *acquisition) etcdLease(ctx context.Context, old *entry) (clientv3.LeaseID, error) {
	if old != nil && old.Reserved {
		return 0, nil
	}
	if a.claim.TTL == subnet.Forever {
		if old != nil && old.Attrs.Node == a.claim.Attrs.Node {
			a.outdated = old.id
		}
		return 0, nil
	}
	if a.granted != 0 {
		return a.granted, nil
	}
	if old != nil && old.Attrs.Node != "" && old.Attrs.Node != a.claim.Attrs.Node {
		a.outdated = old.id // of an earlier run under another node id
	}
	if old != nil && old.Attrs.Node == a.claim.Attrs.Node {
		renewed, err := a.store.renew(ctx, old.id)
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return 0, err
		}
		if err == nil && renewed.seconds == seconds(a.claim.TTL) {
			a.term = renewed
			return old.id, nil
		}
		a.outdated = old.id
	}
	var err error
	a.granted, a.term, err = a.store.grant(ctx, a.claim.TTL)
	return a.granted, err
}

// adopt makes a present lease this claim's.
func (a *acquisition) adopt(ctx context.Context, old *entry, attrs subnet.Attrs, id clientv3.LeaseID) (*entry, error) {
	before, err := flannel.EncodeLease(old.Subnets, old.Attrs)
	if err != nil {
		return nil, err
	}
	value, err := flannel.EncodeLease(old.Subnets, attrs)
	if err != nil {
		return nil, err
	}
	mine := &entry{old.Lease, id}
	mine.Attrs, mine.Reserved = attrs, id == 0
	if before == value && id == old.id {
		return mine, nil
	}
	var with []clientv3.Op
	if old.Attrs.Probe != (subnet.Probe{}) && attrs.Probe == (subnet.Probe{}) {
		with = append(with, clientv3.OpDelete(a.store.layout.complaint(attrs.Node))) // nobody will look whether that of the earlier run still holds
	}
	r, err := a.store.rewrite(ctx, old, value, id, with...)
	if err != nil {
		return nil, err
	}
	if !r.Succeeded {
		a.creation.view = nil
		return nil, nil
	}
	mine.Revision = subnet.Revision(r.Header.Revision)
	return mine, nil
}

// rewrite gives a lease key that is as it was seen another value and etcd lease, and its owner keys with it. with is done, too.
func (s *Store) rewrite(ctx context.Context, old *entry, value string, id clientv3.LeaseID, with ...clientv3.Op) (*clientv3.TxnResponse, error) {
	key := s.layout.lease(old.Subnets)
	t := etcdtransport.Txn{
		When: []clientv3.Cmp{unchanged(key, old.Revision)},
		Then: append([]clientv3.Op{clientv3.OpPut(key, value, clientv3.WithLease(id))}, with...),
	}
	for _, g := range s.layout.ownerKeys(old.Subnets) {
		t.Then = append(t.Then, clientv3.OpPut(g, subnet.KeyOf(old.Subnets), clientv3.WithLease(id)))
	}
	r, err := s.client.Commit(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("write lease %s: %w", subnet.KeyOf(old.Subnets), err)
	}
	return r, nil
}

// noNetwork says how to end the lack of a configuration.
func (s *Store) noNetwork(v *view) error {
	const fix = `write one with: tulle config set '{"Network":"10.5.0.0/16"}'`
	for _, problem := range v.problems {
		return fmt.Errorf("%w: %s does not hold a valid one (%s): %s", subnet.ErrNoNetwork, s.layout.config(), problem.Reason, fix)
	}
	return fmt.Errorf("%w at %s: %s", subnet.ErrNoNetwork, s.layout.config(), fix)
}
