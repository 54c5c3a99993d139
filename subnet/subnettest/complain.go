package subnettest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tulle/subnet"
)

// ComplaintOf is the key at which a node complains of peers.
func ComplaintOf(node string) string { return "claims/complaints/" + node }

var errNotOwned = errors.New("the lease is not as this host wrote it")

// Complain implements subnet.Held.
func (h *held) Complain(ctx context.Context, c *subnet.Complaint) error {
	if err := h.session.request(ctx); err != nil {
		return fmt.Errorf("complain: %w", err)
	}
	if err := h.complain(c); err != nil {
		return fmt.Errorf("complain: %w", err)
	}
	return h.session.answer(ctx)
}

func (h *held) complain(c *subnet.Complaint) error {
	select {
	case <-h.done:
		return errors.New("the lease is not kept any more")
	default:
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	lease, ok := h.store.keys[h.key()]
	if !ok || lease.modified != h.mine.Revision || !h.wrote(lease) {
		return errNotOwned
	}
	key := ComplaintOf(h.claim.Attrs.Node)
	r, there := h.store.keys[key]
	if c == nil {
		h.store.delete(key)
		return nil
	}
	own := *c
	own.Node, own.Lease = h.claim.Attrs.Node, subnet.KeyOf(h.mine.Subnets)
	value, err := own.Encode()
	if err != nil {
		return err
	}
	ttl := ttlOf(h.claim)
	if h.mine.Reserved {
		ttl = subnet.ComplaintTime
	}
	if there && r.expiry != nil && !(h.mine.Reserved && time.Until(r.expires) < ttl/2) {
		if was, err := subnet.ParseComplaint(own.Node, []byte(r.value)); err == nil && was.Says(&own) {
			return nil
		}
	}
	h.store.put(key, value, ttl)
	return nil
}

// withdraw ends the complaint of a lease that is not this host's any more, or not in use. The store's lock is held, here and below.
func (h *held) withdraw() { h.store.delete(ComplaintOf(h.claim.Attrs.Node)) }

// renewComplaint has the complaint last as long as the lease.
func (h *held) renewComplaint() {
	if !h.mine.Reserved {
		h.store.renew(ComplaintOf(h.claim.Attrs.Node), ttlOf(h.claim))
	}
}
