package subnettest

import (
	"slices"

	"tulle/subnet"
)

// coming is a host that has written a lease and does not hold it yet: whoever asks waits long enough for its answer.
type coming struct {
	session        *Store
	instance, node string
}

// acquired ends the time in which a host is coming.
func (s *Store) acquired(claim subnet.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	here := coming{s, claim.Attrs.Instance, claim.Attrs.Node}
	s.coming = slices.DeleteFunc(s.coming, func(c coming) bool { return c == here })
}

// lives reports whether a host with the given node id holds a lease, or is about to, and can speak for itself.
func (w *world) lives(node string) bool {
	for _, c := range w.coming {
		if c.node == node && c.session.open() && !c.session.connection.Stopped {
			return true
		}
	}
	for _, h := range w.live {
		if h.claim.Attrs.Node == node && h.session.open() && !h.session.connection.Stopped {
			return true
		}
	}
	return false
}

// tellClaimant tells who holds the lease of a node that another host claims what is its own.
func (w *world) tellClaimant(node string, claim subnet.Claim) {
	for _, h := range w.live {
		if h.claim.Attrs.Node == node {
			h.claimants.Asked(subnet.Claimant{Node: claim.Attrs.Node, Address: claim.Attrs.Address()})
		}
	}
}
