package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdtransport"
	"tulle/subnet"
)

// view reads everything, page by page, all at the revision of the first one. The last good configuration survives.
func (s *Store) view(ctx context.Context, last *subnet.Network) (*view, error) {
	retry := etcdtransport.RequestBackoff()
	for {
		v := newView(s.layout)
		v.network = last
		err := s.fill(ctx, v)
		if err == nil {
			return v, nil
		}
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return nil, err
		}
		// Compacted between two pages.
		if err := retry.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// fill reads a view that is empty.
func (s *Store) fill(ctx context.Context, v *view) error {
	from, end := s.layout.span()
	for {
		r, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(s.config.PageSize), clientv3.WithRev(v.revision))
		if err != nil {
			return fmt.Errorf("list leases: %w", err)
		}
		if v.revision == 0 {
			v.moment = momentOf(r.Header)
			v.leases = make(map[string]*entry, r.Count)
		}
		for _, kv := range r.Kvs {
			v.put(kv)
		}
		if !r.More {
			break
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
	if _, configured := v.other[s.layout.config()]; !configured {
		v.unconfigure()
	}
	return nil
}

// latest returns a view as of now. Next to a Watch, it reads only what has changed since the view of that.
func (s *Store) latest(ctx context.Context) (*view, error) {
	if v := s.watched(); v != nil {
		if fresh, err := s.refresh(ctx, v); fresh || err != nil {
			return v, err
		}
	}
	return s.view(ctx, nil)
}

// watched returns a copy of the view of a Watch, nil if there is none.
func (s *Store) watched() *view {
	w := s.watching.Load()
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.listed {
		return nil
	}
	return w.view.clone()
}

// refresh reads what has changed since a view. It reports whether the view is now as a listing would be, which it is not
// if a key was deleted, or if etcd has other data: the number of keys tells of the one, the newest lease of the other.
func (s *Store) refresh(ctx context.Context, v *view) (bool, error) {
	newest, since := v.newest(), v.revision+1
	if newest != nil {
		since = int64(newest.Revision)
	}
	// Most often nothing has changed, and etcd finds keys without their values at a third of the cost.
	now, err := s.changes(ctx, since, clientv3.WithKeysOnly())
	if err != nil || now.More || !v.precedes(momentOf(now.Header)) {
		return false, err
	}
	same, changed := newest == nil, false
	for _, kv := range now.Kvs {
		same = same || subnet.Revision(kv.ModRevision) == newest.Revision && string(kv.Key) == s.layout.lease(newest.Subnets)
		changed = changed || kv.ModRevision > v.revision
	}
	if same && changed {
		now, err = s.changes(ctx, v.revision+1)
		if err != nil || now.More || !v.precedes(momentOf(now.Header)) {
			return false, err
		}
		for _, kv := range now.Kvs {
			v.put(kv)
		}
	}
	v.moment = momentOf(now.Header)
	return same && int64(v.size()) == now.Count && v.stored, nil
}

// changes reads what has changed since a revision; the answer counts all keys.
func (s *Store) changes(ctx context.Context, since int64, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	from, end := s.layout.span()
	r, err := s.client.Get(ctx, from, append(options, clientv3.WithRange(end), clientv3.WithMinModRev(since), clientv3.WithLimit(s.config.PageSize))...)
	if err != nil {
		return nil, fmt.Errorf("list changed leases: %w", err)
	}
	return r, nil
}

// Snapshot implements subnet.Operator.
func (s *Store) Snapshot(ctx context.Context) (subnet.Set, error) {
	v, err := s.view(ctx, nil)
	if err != nil {
		return subnet.Set{}, err
	}
	return v.set(), nil
}
