package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdtransport"
	"tulle/subnet"
)

// said is what a held lease's host knows of its complaint in etcd. What it does not know it looks up before it writes.
type said struct {
	asked bool              // somebody complains, or would: without, there is nothing to know
	known bool              // what follows is
	what  *subnet.Complaint // nil: there is none
	on    clientv3.LeaseID  // that it hangs on
	again time.Time         // when it is to be written anew, lest it go; zero: it goes with the lease
}

var (
	errStopped  = errors.New("the lease is not kept any more")
	errNotOwned = errors.New("the lease is not as this host wrote it")
)

// Complain implements subnet.Held.
func (h *held) Complain(ctx context.Context, c *subnet.Complaint) error {
	if err := h.take(ctx); err != nil {
		return err
	}
	defer h.give()
	if err := h.lossNow(); err != nil {
		return fmt.Errorf("complain: %w", err)
	}
	select {
	case <-h.done:
		return fmt.Errorf("complain: %w", errStopped)
	default:
	}
	h.said.asked = true
	if err := h.complain(ctx, c); err != nil {
		h.said.known = false
		return fmt.Errorf("complain: %w", err)
	}
	return nil
}

func (h *held) complain(ctx context.Context, c *subnet.Complaint) error {
	mine := h.entry()
	if c != nil {
		own := *c
		own.Node, own.Lease = mine.Attrs.Node, subnet.KeyOf(mine.Subnets)
		c = &own
	}
	if h.said.known && h.said.lasts(mine.id) && h.said.what.Says(c) {
		return nil
	}
	if !h.said.known {
		r, err := h.store.client.Get(ctx, h.complaint())
		if err != nil {
			return err
		}
		h.said.found(mine.Attrs.Node, r.Kvs)
		if h.said.lasts(mine.id) && h.said.what.Says(c) {
			return nil
		}
		if len(r.Kvs) == 0 && c == nil {
			return nil
		}
	}
	return h.write(ctx, mine, c)
}

// lasts reports whether a complaint goes when the lease does, or is there for some time yet.
func (s *said) lasts(id clientv3.LeaseID) bool {
	if id == 0 {
		return s.what == nil || time.Now().Before(s.again)
	}
	return s.what == nil || s.on == id
}

// found takes in what is in etcd. What makes no sense, or hangs on nothing, says something else than anything.
func (s *said) found(node string, kvs []*mvccpb.KeyValue) {
	was := *s
	s.known, s.what, s.on, s.again = true, nil, 0, time.Time{}
	for _, kv := range kvs {
		c, _ := subnet.ParseComplaint(node, kv.Value)
		if s.what, s.on = &c, clientv3.LeaseID(kv.Lease); s.on == was.on {
			s.again = was.again
		}
	}
}

// write has the complaint be there, or none if it is nil, while the lease is this host's own.
func (h *held) write(ctx context.Context, mine entry, c *subnet.Complaint) error {
	now := said{asked: true, known: true, what: c, on: mine.id}
	op := clientv3.OpDelete(h.complaint())
	if c != nil {
		value, err := c.Encode()
		if err != nil {
			return err
		}
		if mine.id == 0 {
			if now.on, _, err = h.store.grant(ctx, subnet.ComplaintTime); err != nil {
				return err
			}
			now.again = time.Now().Add(subnet.ComplaintTime / 2)
		}
		op = clientv3.OpPut(h.complaint(), value, clientv3.WithLease(now.on))
	}
	key := h.store.layout.lease(mine.Subnets)
	r, err := h.store.client.Commit(ctx, etcdtransport.Txn{
		When: []clientv3.Cmp{unchanged(key, mine.Revision), clientv3.Compare(clientv3.LeaseValue(key), "=", mine.id)},
		Then: []clientv3.Op{op},
	})
	if err == nil && !r.Succeeded {
		err = errNotOwned
	}
	if err != nil && now.on != mine.id {
		h.store.client.Revoke(ctx, now.on)
	}
	if err == nil {
		h.said = now
	}
	return err
}

// withdraw ends a complaint that would stay though the lease is not this host's any more, or not in use.
func (h *held) withdraw(ctx context.Context) {
	if h.take(ctx) != nil {
		return
	}
	defer h.give()
	if !h.said.asked || h.said.known && h.said.what == nil {
		return
	}
	on := h.said.on
	if on == 0 {
		on = h.entry().id // that of an earlier run, of which this one knows nothing
	}
	_, err := h.store.client.Commit(ctx, etcdtransport.Txn{
		When: []clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue(h.complaint()), "=", on)},
		Then: []clientv3.Op{clientv3.OpDelete(h.complaint())},
	})
	if err != nil && ctx.Err() == nil {
		h.store.log.Debug("complaint stays until its etcd lease ends", "err", err)
	}
	h.said.known = false
}

// forget has what is in etcd looked up before the next complaint: others may have changed it.
func (h *held) forget(ctx context.Context) error {
	if err := h.take(ctx); err != nil {
		return err
	}
	defer h.give()
	h.said.known = false
	return nil
}

func (h *held) complaint() string { return h.store.layout.complaint(h.claim.Attrs.Node) }

// Complaints implements subnet.Operator.
func (s *Store) Complaints(ctx context.Context) (list []subnet.Complaint, unreadable []subnet.Problem, err error) {
	first := s.layout.complaints()
	from, end := first, clientv3.GetPrefixRangeEnd(first)
	broken := map[string]string{}
	revision, read := int64(0), 0
	for more := true; more; {
		r, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(min(s.config.PageSize, int64(subnet.MostComplaints-read))), clientv3.WithRev(revision))
		if err != nil {
			return nil, nil, fmt.Errorf("list complaints: %w", err)
		}
		revision = r.Header.Revision
		for _, kv := range r.Kvs {
			from = string(kv.Key) + "\x00"
			c, err := s.layout.decodeComplaint(kv)
			if err != nil {
				broken[string(kv.Key)] = err.Error()
				continue
			}
			list = append(list, c)
		}
		if read += len(r.Kvs); r.More && read >= subnet.MostComplaints {
			unreadable = append(unreadable, subnet.Problem{Key: first, Reason: fmt.Sprintf("there are %d complaints besides: the first %d are read", r.Count-int64(len(r.Kvs)), read)})
			break
		}
		more = r.More
	}
	listed, unlisted := subnet.ListBroken(func(yield func(string, string) bool) {
		for key, reason := range broken {
			if !yield(key, reason) {
				return
			}
		}
	})
	unreadable = append(unreadable, listed...)
	if unlisted > 0 {
		unreadable = append(unreadable, subnet.Problem{Key: first, Reason: fmt.Sprintf("%d keys besides that make no sense", unlisted)})
	}
	return list, unreadable, nil
}

// decodeComplaint reads a complaint.
func (l layout) decodeComplaint(kv *mvccpb.KeyValue) (subnet.Complaint, error) {
	if kv.Lease == 0 {
		return subnet.Complaint{}, errors.New("it hangs on no etcd lease, as what a host writes does: delete it")
	}
	return subnet.ParseComplaint(strings.TrimPrefix(string(kv.Key), l.complaints()), kv.Value)
}
