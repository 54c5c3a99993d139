package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/ip"
	"tulle/subnet"
)

// creation puts a new lease key in place. What it learns from a lost race it keeps in its view, so that many hosts that
// start at once need not list all leases again and again.
//
// One transaction requires that no key has the same IPv4 address, in any mask length, and that nobody holds the guard of
// either subnet. What these cannot exclude, an overlap in another mask length or a flanneld that knows no guards, shows
// in the leases that the same transaction lists: those are older than ours, so ours yields.
type creation struct {
	store   *Store
	view    *view
	stale   map[string]*mvccpb.KeyValue // guards that hold nothing, by key
	learned bool                        // the last lost race showed a reason, so the next try may do better
	// unwelcome reports whether a lease that is older than the new one forbids it, beside overlap.
	unwelcome func(subnet.Lease) bool
}

func (s *Store) newCreation(v *view) *creation {
	return &creation{store: s, view: v, stale: map[string]*mvccpb.KeyValue{}, unwelcome: func(subnet.Lease) bool { return false }}
}

// try creates a lease on etcd lease id, in place of the old lease if there is one. It returns nil if the race is lost.
func (c *creation) try(ctx context.Context, subnets subnet.Subnets, attrs subnet.Attrs, id clientv3.LeaseID, old *entry) (*entry, error) {
	value, err := json.Marshal(attrs)
	if err != nil {
		return nil, fmt.Errorf("encode lease %s: %w", subnet.KeyOf(subnets), err)
	}
	l := c.store.layout
	key := l.lease(subnets)
	newer := clientv3.OpGet(l.leases(), clientv3.WithPrefix(), clientv3.WithMinCreateRev(c.view.revision+1))
	t := txn{
		when:      c.conditions(subnets, old),
		then:      []clientv3.Op{clientv3.OpPut(key, string(value), clientv3.WithLease(id))},
		otherwise: []clientv3.Op{newer},
	}
	guards := l.guards(subnets)
	for _, g := range guards {
		t.then = append(t.then, clientv3.OpPut(g, subnet.KeyOf(subnets), clientv3.WithLease(id)))
		t.otherwise = append(t.otherwise, clientv3.OpGet(g))
	}
	if old != nil {
		t.then = append(t.then, clientv3.OpDelete(l.lease(old.Subnets)))
		for _, f := range ip.Families() {
			if p := old.Subnets.Of(f); p.IsValid() && p != subnets.Of(f) {
				t.then = append(t.then, clientv3.OpDelete(l.guard(p)))
			}
		}
	}
	t.then = append(t.then, newer)

	r, err := c.store.commit(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("create lease %s: %w", subnet.KeyOf(subnets), err)
	}
	if !r.Succeeded {
		c.learn(r, old)
		return nil, nil
	}
	if old != nil {
		c.view.delete(l.lease(old.Subnets))
	}
	created := &entry{Lease: subnet.Lease{
		Subnets: subnets, Attrs: attrs, Reserved: id == 0,
		Created: r.Header.Revision, Revision: r.Header.Revision,
	}, id: id}
	if c.welcome(created, r) {
		return created, nil
	}
	c.learned = true
	return nil, c.undo(ctx, created)
}

func (c *creation) conditions(subnets subnet.Subnets, old *entry) []clientv3.Cmp {
	l := c.store.layout
	var when []clientv3.Cmp
	absent := func(from, end string) {
		when = append(when, clientv3.Compare(clientv3.Version(from), "=", 0).WithRange(end))
	}
	from := l.lease(subnets)
	end := from + "\x00"
	if p := subnets.V4; p.IsValid() {
		from = l.leases() + p.Addr().String() + "-"
		end = clientv3.GetPrefixRangeEnd(from)
	}
	if old == nil {
		absent(from, end)
	} else {
		oldKey := l.lease(old.Subnets)
		when = append(when, clientv3.Compare(clientv3.ModRevision(oldKey), "=", old.Revision))
		if from <= oldKey && oldKey < end {
			absent(from, oldKey)
			from = oldKey + "\x00"
		}
		absent(from, end)
	}
	for _, g := range l.guards(subnets) {
		stale, ok := c.stale[g]
		if !ok {
			when = append(when, clientv3.Compare(clientv3.Version(g), "=", 0))
			continue
		}
		when = append(when, clientv3.Compare(clientv3.ModRevision(g), "=", stale.ModRevision))
		if holder := string(stale.Value); holder != "" && (old == nil || holder != subnet.KeyOf(old.Subnets)) && c.covers(holder, g) {
			when = append(when, clientv3.Compare(clientv3.Version(l.leases()+holder), "=", 0))
		}
	}
	return when
}

// covers reports whether the lease with the given key holds the subnet of a guard.
func (c *creation) covers(holder, guard string) bool {
	subnets, err := subnet.ParseKey(holder)
	if err != nil {
		return false
	}
	address, bits, _ := strings.Cut(guard[strings.LastIndex(guard, "/")+1:], "-")
	p, err := netip.ParsePrefix(address + "/" + bits)
	if err != nil {
		return false
	}
	return len(subnet.Overlap(subnets, subnet.Subnets{V4: p, V6: p})) > 0
}

// learn takes in why a race was lost.
func (c *creation) learn(r *clientv3.TxnResponse, old *entry) {
	c.learned = false
	for i, op := range r.Responses {
		for _, kv := range op.GetResponseRange().GetKvs() {
			if i == 0 {
				_, known := c.view.leases[string(kv.Key)]
				c.learned = c.learned || !known
				c.view.put(kv)
				continue
			}
			holder := c.store.layout.leases() + string(kv.Value)
			_, held := c.view.leases[holder]
			ours := old != nil && string(kv.Value) == subnet.KeyOf(old.Subnets)
			seen, again := c.stale[string(kv.Key)]
			if (ours || !held || !c.covers(string(kv.Value), string(kv.Key))) && !(again && seen.ModRevision == kv.ModRevision) {
				c.stale[string(kv.Key)] = kv
				c.learned = true
			}
		}
	}
	c.view.revision = r.Header.Revision
}

// welcome reports whether no lease that the creating transaction listed stands against the new one.
func (c *creation) welcome(created *entry, r *clientv3.TxnResponse) bool {
	good := true
	listed := r.Responses[len(r.Responses)-1].GetResponseRange().GetKvs()
	for _, kv := range listed {
		if string(kv.Key) == c.store.layout.lease(created.Subnets) {
			continue
		}
		c.view.put(kv)
		other, ok := c.view.leases[string(kv.Key)]
		if ok && (len(subnet.Overlap(other.Subnets, created.Subnets)) > 0 || c.unwelcome(other.Lease)) {
			good = false
		}
	}
	c.view.revision = r.Header.Revision
	return good
}

// undo takes a lease back, if it is still as it was created.
func (c *creation) undo(ctx context.Context, created *entry) error {
	_, err := c.store.remove(ctx, created.Subnets, created.Revision)
	return err
}
