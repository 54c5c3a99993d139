package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdtransport"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// heal makes the lease anew after its key vanished: deleted, expired while etcd was out of reach, or lost with all of
// etcd's data. That is a loss only if another host has the subnet by now.
func (h *held) heal(ctx context.Context) error {
	mine := h.entry()
	v, err := h.store.view(ctx, nil)
	if err != nil {
		return err
	}
	for _, e := range v.leases {
		if e.Subnets == mine.Subnets {
			return errChanged // it is back
		}
		if e.Takes(mine.Subnets, v.network) {
			return subnet.LostTo(mine.Subnets, e.Lease)
		}
	}
	id, t, err := h.etcdLease(ctx, mine.id)
	if err != nil {
		return err
	}
	created, err := h.recreate(ctx, v, id)
	if created == nil {
		if id != mine.id && id != 0 {
			h.store.client.Revoke(ctx, id)
		}
		return err
	}
	h.set(*created)
	h.confirm(t)
	h.store.log.Warn("lease had vanished and was made anew", "subnet", subnet.KeyOf(mine.Subnets))
	if err := h.removeAbandoned(ctx, v); err != nil {
		return err
	}
	return errChanged
}

// etcdLease returns the etcd lease for a key that is made anew: the one that it had, if that still lives. A reservation
// that was deleted while in use goes on as the claim has it.
func (h *held) etcdLease(ctx context.Context, had clientv3.LeaseID) (clientv3.LeaseID, term, error) {
	if h.claim.TTL == subnet.Forever {
		return 0, term{}, nil
	}
	if had != 0 {
		if t, err := h.store.renew(ctx, had); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return had, t, err
		}
	}
	return h.store.grant(ctx, h.claim.TTL)
}

// removeAbandoned ends the leases that this host has left: the subnets may be others' by now, who cannot have them as long as
// these last.
func (h *held) removeAbandoned(ctx context.Context, v *view) error {
	mine := h.Lease()
	for _, e := range v.leases {
		if !e.AbandonedBy(mine) {
			continue
		}
		gone, err := h.store.remove(ctx, e.Subnets, "", e.Revision)
		if err != nil {
			return err
		}
		if gone {
			h.store.log.Warn("lease that this host has left was there again and is ended", "subnet", subnet.KeyOf(e.Subnets))
		}
	}
	return nil
}

func (h *held) recreate(ctx context.Context, v *view, id clientv3.LeaseID) (*entry, error) {
	mine := h.entry()
	creation := h.store.newCreation(v)
	retry := etcdtransport.RequestBackoff()
	for {
		created, err := creation.try(ctx, mine.Subnets, mine.Attrs, id, nil)
		if created != nil || err != nil {
			return created, err
		}
		if !creation.learned || creation.taken(mine.Subnets) {
			return nil, fmt.Errorf("make lease %s anew: another key is in its place", subnet.KeyOf(mine.Subnets))
		}
		if err := retry.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// reclaim reacts to a change of the key by somebody else.
func (h *held) reclaim(ctx context.Context, kv *mvccpb.KeyValue) error {
	mine := h.entry()
	now, err := h.store.layout.decode(kv)
	if err == nil && !h.present().Owns(now) {
		return subnet.LostTo(mine.Subnets, now)
	}
	// A value that does not parse has no owner, and stops every flanneld until it is put right.
	seen := entry{now, mine.id}
	if kv.Lease == 0 {
		seen.id = 0 // it was made a reservation, and a reservation that got an etcd lease from flanneld becomes one again
	}
	seen.Subnets, seen.Revision, seen.Created, seen.Reserved = mine.Subnets, subnet.Revision(kv.ModRevision), subnet.Revision(kv.CreateRevision), seen.id == 0
	seen.Attrs = mine.Attrs.Over(now.Attrs)
	value, err := flannel.EncodeLease(mine.Subnets, seen.Attrs)
	if err != nil {
		return err
	}
	if value != string(kv.Value) || int64(seen.id) != kv.Lease {
		r, err := h.store.rewrite(ctx, &seen, value, seen.id)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			var t term
			if seen.id, t, err = h.store.grant(ctx, h.claim.TTL); err != nil {
				return err
			}
			h.confirm(t)
			r, err = h.store.rewrite(ctx, &seen, value, seen.id)
		}
		if err != nil {
			return err
		}
		if !r.Succeeded {
			return errChanged
		}
		seen.Revision = subnet.Revision(r.Header.Revision)
	}
	h.set(seen)
	if seen.id != mine.id {
		return errChanged
	}
	return nil
}

// present is the claim with the attributes as last published.
func (h *held) present() subnet.Claim { return subnet.Claim{Attrs: h.Lease().Attrs} }

// owns reports whether a lease key is still this host's.
func (h *held) owns(kv *mvccpb.KeyValue) bool {
	l, err := h.store.layout.decode(kv)
	return err != nil || h.present().Owns(l)
}

// wrote reports whether a lease key says what this host has published. Its revision does not tell: after a restore from a
// backup the same one may be of another host, or of another time.
func (h *held) wrote(kv *mvccpb.KeyValue) bool {
	l, err := h.store.layout.decode(kv)
	return err == nil && l.Attrs.Equal(h.Lease().Attrs)
}

// taken reports whether a lease is known that has a part of subnets.
func (c *creation) taken(subnets subnet.Subnets) bool {
	for _, e := range c.view.leases {
		if e.Takes(subnets, c.view.network) {
			return true
		}
	}
	return false
}
