package etcd

import (
	"bytes"
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdtransport"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

var _ subnet.Operator = (*Store)(nil)

// Config implements subnet.Operator.
func (s *Store) Config(ctx context.Context) (data []byte, revision subnet.Revision, err error) {
	r, err := s.client.Get(ctx, s.layout.config())
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", s.layout.config(), err)
	}
	if len(r.Kvs) == 0 {
		return nil, 0, nil
	}
	return r.Kvs[0].Value, subnet.Revision(r.Kvs[0].ModRevision), nil
}

// SetConfig implements subnet.Operator.
func (s *Store) SetConfig(ctx context.Context, data []byte, expected subnet.Revision) (subnet.Revision, error) {
	if _, _, err := flannel.ParseNetwork(data, 0); err != nil {
		return 0, err
	}
	key := s.layout.config()
	present, revision, err := s.Config(ctx)
	if err != nil {
		return 0, err
	}
	if expected >= 0 && revision != expected {
		return 0, fmt.Errorf("write %s: it is at revision %d, not %d: read it again", key, revision, expected)
	}
	if revision != 0 && bytes.Equal(present, data) {
		return revision, nil
	}
	t := etcdtransport.Txn{Then: []clientv3.Op{clientv3.OpPut(key, string(data))}}
	if expected >= 0 {
		t.When = []clientv3.Cmp{unchanged(key, expected)}
	}
	r, err := s.client.Commit(ctx, t)
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", key, err)
	}
	if !r.Succeeded {
		return 0, fmt.Errorf("write %s: somebody else wrote it meanwhile: read it again", key)
	}
	return subnet.Revision(r.Header.Revision), nil
}

// Reserve implements subnet.Operator.
func (s *Store) Reserve(ctx context.Context, subnets subnet.Subnets, attrs subnet.Attrs) (subnet.Lease, error) {
	name := subnet.KeyOf(subnets)
	if _, err := subnet.ParseKey(name); err != nil {
		return subnet.Lease{}, err
	}
	retry := etcdtransport.RequestBackoff()
	for {
		lease, done, err := s.reserve(ctx, subnets, attrs)
		if done || err != nil {
			return lease, err
		}
		if err := retry.Wait(ctx); err != nil {
			return subnet.Lease{}, err
		}
	}
}

func (s *Store) reserve(ctx context.Context, subnets subnet.Subnets, attrs subnet.Attrs) (lease subnet.Lease, done bool, err error) {
	name := subnet.KeyOf(subnets)
	v, err := s.view(ctx, nil)
	if err != nil {
		return lease, false, err
	}
	for _, e := range v.leases {
		if e.Subnets == subnets && samePublic(e.Attrs, attrs) {
			return s.pin(ctx, *e)
		}
		if len(subnet.Overlap(e.Subnets, subnets)) > 0 {
			return lease, false, fmt.Errorf("reserve %s: %s has %s: release it first", name, e.Attrs.Owner(), subnet.KeyOf(e.Subnets))
		}
	}
	if attrs.Public == (subnet.Attrs{}).Public {
		return lease, false, fmt.Errorf("reserve %s: nobody leases it: give the public address of the host that shall have it", name)
	}
	creation := s.newCreation(v)
	created, err := creation.try(ctx, subnets, attrs, 0, nil)
	if err != nil {
		return lease, false, err
	}
	if created == nil {
		if !creation.learned {
			err = fmt.Errorf("reserve %s: a key with the same address that is no lease is in the way: tulle status names it", name)
		}
		return lease, false, err
	}
	return created.Lease, true, nil
}

// samePublic reports whether attrs mean the owner of a lease; no address means whoever has it.
func samePublic(owner, attrs subnet.Attrs) bool {
	return attrs.Public == (subnet.Attrs{}).Public || attrs.Public == owner.Public
}

// pin takes the etcd lease off a present lease.
func (s *Store) pin(ctx context.Context, e entry) (lease subnet.Lease, done bool, err error) {
	if e.Reserved {
		return e.Lease, true, nil
	}
	value, err := flannel.EncodeLease(e.Subnets, e.Attrs)
	if err != nil {
		return lease, false, err
	}
	r, err := s.rewrite(ctx, &e, value, 0)
	if err != nil || !r.Succeeded {
		return lease, false, err
	}
	e.Reserved, e.Revision = true, subnet.Revision(r.Header.Revision)
	return e.Lease, true, nil
}

// Release implements subnet.Operator.
func (s *Store) Release(ctx context.Context, subnets subnet.Subnets) error {
	key := s.layout.lease(subnets)
	retry := etcdtransport.RequestBackoff()
	for {
		r, err := s.client.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("release %s: %w", subnet.KeyOf(subnets), err)
		}
		if len(r.Kvs) == 0 {
			return fmt.Errorf("release %s: there is no such lease: tulle leases list shows them", subnet.KeyOf(subnets))
		}
		lease, _ := s.layout.decode(r.Kvs[0]) // a value that does not parse tells of no node
		if gone, err := s.remove(ctx, subnets, lease.Attrs.Node, subnet.Revision(r.Kvs[0].ModRevision)); gone || err != nil {
			return err
		}
		if err := retry.Wait(ctx); err != nil {
			return err
		}
	}
}

// remove deletes the lease of a node, its owner keys and what the node complains of, and reports whether it still had the given revision.
func (s *Store) remove(ctx context.Context, subnets subnet.Subnets, node string, revision subnet.Revision) (bool, error) {
	key := s.layout.lease(subnets)
	t := etcdtransport.Txn{
		When: []clientv3.Cmp{unchanged(key, revision)},
		Then: []clientv3.Op{clientv3.OpDelete(key)},
	}
	for _, g := range s.layout.ownerKeys(subnets) {
		t.Then = append(t.Then, clientv3.OpDelete(g))
	}
	t.Then = append(t.Then, s.layout.recordOwner(subnets, node, true)...)
	if node != "" {
		t.Then = append(t.Then, clientv3.OpDelete(s.layout.complaint(node)))
	}
	r, err := s.client.Commit(ctx, t)
	if err != nil {
		return false, fmt.Errorf("delete lease %s: %w", subnet.KeyOf(subnets), err)
	}
	return r.Succeeded, nil
}
