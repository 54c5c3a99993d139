package etcd

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdtransport"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// creation puts a new lease key in place.
//
// One transaction requires that no key has the same IPv4 address, in any mask length, and that nobody holds the owner key of
// either subnet. What these cannot exclude, an overlap in another mask length or a flanneld that knows no owner keys, shows
// in the leases that have come since the view, which the same transaction lists: they are older than ours, so ours
// yields. Who loses the race learns only what stood in the way. A thousand hosts that start at once would otherwise
// all list all leases with each try, and etcd is slow at that.
type creation struct {
	store   *Store
	view    *view
	stale   map[string]*mvccpb.KeyValue // ownerKeys that hold nothing, by key
	learned bool                        // the last lost race showed a reason, so the next try may do better
	// unwelcome reports whether a lease that is older than the new one forbids it, beside overlap.
	unwelcome func(*subnet.Lease) bool
}

func (s *Store) newCreation(v *view) *creation {
	return &creation{store: s, view: v, stale: map[string]*mvccpb.KeyValue{}, unwelcome: func(*subnet.Lease) bool { return false }}
}

// try creates a lease on etcd lease id, in place of the old lease if there is one. It returns nil if the race is lost.
func (c *creation) try(ctx context.Context, subnets subnet.Subnets, attrs subnet.Attrs, id clientv3.LeaseID, old *entry) (*entry, error) {
	value, err := flannel.EncodeLease(subnets, attrs)
	if err != nil {
		return nil, err
	}
	l := c.store.layout
	key := l.lease(subnets)
	from, end := c.keyRange(subnets)
	t := etcdtransport.Txn{
		When: c.conditions(subnets, old),
		Then: []clientv3.Op{clientv3.OpPut(key, value, clientv3.WithLease(id))},
		Else: []clientv3.Op{clientv3.OpGet(from, clientv3.WithRange(end))},
	}
	for _, g := range l.ownerKeys(subnets) {
		t.Then = append(t.Then, clientv3.OpPut(g, subnet.KeyOf(subnets), clientv3.WithLease(id)))
		t.Else = append(t.Else, clientv3.OpGet(g))
	}
	t.Then = append(t.Then, l.recordOwner(subnets, attrs.Node, false)...)
	if old != nil {
		t.Then = append(t.Then, clientv3.OpDelete(l.lease(old.Subnets)))
		for _, f := range ip.Families() {
			if p := old.Subnets.Of(f); p.IsValid() && p != subnets.Of(f) {
				t.Then = append(t.Then, clientv3.OpDelete(l.ownerKey(p)))
			}
		}
	}
	t.Then = append(t.Then, clientv3.OpGet(l.leases(), clientv3.WithPrefix(), clientv3.WithMinCreateRev(c.view.revision+1)))

	r, err := c.store.client.Commit(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("create lease %s: %w", subnet.KeyOf(subnets), err)
	}
	if !r.Succeeded {
		return nil, c.learn(ctx, r, old)
	}
	if old != nil {
		c.view.delete(l.lease(old.Subnets))
	}
	created := &entry{Lease: subnet.Lease{
		Subnets: subnets, Attrs: attrs, Reserved: id == 0,
		Created: subnet.Revision(r.Header.Revision), Revision: subnet.Revision(r.Header.Revision),
	}, id: id}
	if c.welcome(created, r) {
		return created, nil
	}
	c.learned = true
	_, err = c.store.remove(ctx, subnets, "", created.Revision)
	return nil, err
}

// keyRange is the range of keys of which a new lease must be the first: those with its IPv4 address, or its own alone.
func (c *creation) keyRange(subnets subnet.Subnets) (from, end string) {
	if p := subnets.V4; p.IsValid() {
		from = c.store.layout.leases() + p.Addr().String() + "-"
		return from, clientv3.GetPrefixRangeEnd(from)
	}
	from = c.store.layout.lease(subnets)
	return from, from + "\x00"
}

func (c *creation) conditions(subnets subnet.Subnets, old *entry) []clientv3.Cmp {
	l := c.store.layout
	var when []clientv3.Cmp
	absent := func(from, end string) {
		when = append(when, clientv3.Compare(clientv3.Version(from), "=", 0).WithRange(end))
	}
	from, end := c.keyRange(subnets)
	if old == nil {
		absent(from, end)
	} else {
		oldKey := l.lease(old.Subnets)
		when = append(when, unchanged(oldKey, old.Revision))
		if from <= oldKey && oldKey < end {
			absent(from, oldKey)
			from = oldKey + "\x00"
		}
		absent(from, end)
	}
	for _, g := range l.ownerKeys(subnets) {
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

// covers reports whether the lease with the given key holds the subnet of an owner key.
func (c *creation) covers(holder, ownerKey string) bool {
	subnets, err := subnet.ParseKey(holder)
	if err != nil {
		return false
	}
	address, bits, _ := strings.Cut(ownerKey[strings.LastIndex(ownerKey, "/")+1:], "-")
	p, err := netip.ParsePrefix(address + "/" + bits)
	if err != nil {
		return false
	}
	return len(subnet.Overlap(subnets, subnet.Subnets{V4: p, V6: p})) > 0
}

// learn takes in what stood in the way of the last try.
func (c *creation) learn(ctx context.Context, r *clientv3.TxnResponse, old *entry) error {
	c.learned = false
	for _, kv := range r.Responses[0].GetResponseRange().GetKvs() {
		c.addLease(kv)
	}
	for _, op := range r.Responses[1:] {
		for _, ownerKey := range op.GetResponseRange().GetKvs() {
			if err := c.examineOwnerKey(ctx, ownerKey, old); err != nil {
				return err
			}
		}
	}
	return nil
}

// addLease takes in a lease.
func (c *creation) addLease(kv *mvccpb.KeyValue) {
	before := len(c.view.leases)
	c.view.put(kv)
	c.learned = c.learned || len(c.view.leases) > before
}

// examineOwnerKey looks at an owner key that stood in the way: the next try passes over it if the lease that it names is not there.
func (c *creation) examineOwnerKey(ctx context.Context, ownerKey *mvccpb.KeyValue, old *entry) error {
	holder := string(ownerKey.Value)
	ours := old != nil && holder == subnet.KeyOf(old.Subnets)
	if !ours && c.covers(holder, string(ownerKey.Key)) {
		r, err := c.store.client.Get(ctx, c.store.layout.leases()+holder)
		if err != nil {
			return fmt.Errorf("look for the holder of %s: %w", ownerKey.Key, err)
		}
		if len(r.Kvs) > 0 {
			c.addLease(r.Kvs[0])
			return nil
		}
	}
	if seen, again := c.stale[string(ownerKey.Key)]; !again || seen.ModRevision != ownerKey.ModRevision {
		c.stale[string(ownerKey.Key)] = ownerKey
		c.learned = true
	}
	return nil
}

// welcome reports whether no lease that the creating transaction listed stands against the new one.
func (c *creation) welcome(created *entry, r *clientv3.TxnResponse) bool {
	welcome := true
	for _, kv := range r.Responses[len(r.Responses)-1].GetResponseRange().GetKvs() {
		key := string(kv.Key)
		if key == c.store.layout.lease(created.Subnets) {
			continue
		}
		c.view.put(kv)
		other, ok := c.view.leases[key]
		if ok && (len(subnet.Overlap(other.Subnets, created.Subnets)) > 0 || c.unwelcome(&other.Lease)) {
			welcome = false
		}
	}
	c.view.revision = r.Header.Revision
	return welcome
}
