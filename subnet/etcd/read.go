package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/subnet"
)

// listing is all keys of the layout's span at one revision.
type listing struct {
	kvs      []*mvccpb.KeyValue
	revision int64
	cluster  uint64
	term     uint64
}

// list reads page by page, all at the revision of the first one.
func (s *Store) list(ctx context.Context) (listing, error) {
	retry := requestBackoff()
	for {
		l, err := s.listOnce(ctx)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return l, err
		}
		// Compacted between two pages.
		if err := retry.Wait(ctx); err != nil {
			return listing{}, err
		}
	}
}

func (s *Store) listOnce(ctx context.Context) (listing, error) {
	from, end := s.layout.span()
	var l listing
	for {
		r, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(s.config.PageSize), clientv3.WithRev(l.revision))
		if err != nil {
			return listing{}, fmt.Errorf("list leases: %w", err)
		}
		if l.revision == 0 {
			l.revision, l.cluster, l.term = r.Header.Revision, r.Header.ClusterId, r.Header.RaftTerm
		}
		l.kvs = append(l.kvs, r.Kvs...)
		if !r.More {
			return l, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

func (s *Store) view(ctx context.Context) (*view, error) {
	l, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	v := newView(s.layout)
	v.replace(l.kvs, l.revision)
	return v, nil
}

// Snapshot returns the store's present content.
func (s *Store) Snapshot(ctx context.Context) (subnet.Set, error) {
	v, err := s.view(ctx)
	if err != nil {
		return subnet.Set{}, err
	}
	return v.set(), nil
}
