package subnet

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"tulle/ip"
)

// Rivals returns the owners in leases that stand against a claim if they live: another instance with its node id, and
// other nodes with its public address. A lease without node id has no owner that could be asked.
func Rivals(leases []*Lease, claim Claim) []*ConflictError {
	var rivals []*ConflictError
	for _, l := range leases {
		if l.Attrs.Node == "" {
			continue
		}
		if l.Attrs.Node == claim.Attrs.Node {
			if l.Attrs.Instance != claim.Attrs.Instance {
				c := conflict(*l, "node id", l.Attrs.Node)
				c.Elsewhere = l.Attrs.Elsewhere(claim.Attrs)
				rivals = append(rivals, c)
			}
			continue
		}
		for _, f := range ip.Families() {
			addr := claim.Attrs.Public.Of(f)
			if addr.IsValid() && !addr.IsUnspecified() && l.Attrs.Public.Of(f) == addr {
				rivals = append(rivals, conflict(*l, "public address", addr.String()))
				break
			}
		}
	}
	return rivals
}

// Unanswered returns what it means that the owner was asked whether it lives, and is silent. On the claim's own hardware
// it cannot live; elsewhere it may be cut off, and believe in its lease until that ends.
func (e *ConflictError) Unanswered() error {
	if !e.Elsewhere {
		return nil
	}
	silent := *e
	silent.Silent = true
	return &silent
}

// Elsewhere reports whether a and b are known to come from two machines, whatever their node ids say.
func (a Attrs) Elsewhere(b Attrs) bool {
	return len(a.Hardware) > 0 && len(b.Hardware) > 0 &&
		!slices.ContainsFunc(a.Hardware, func(part string) bool { return slices.Contains(b.Hardware, part) })
}

func conflict(l Lease, field, value string) *ConflictError {
	return &ConflictError{Field: field, Value: value, Node: l.Attrs.Node, Address: l.Attrs.Address(), Subnets: l.Subnets}
}

// Owns reports whether a lease is the claim's own, and not that of another instance with the same node id.
func (c Claim) Owns(l Lease) bool {
	_, mine := Mine(Set{Leases: []*Lease{&l}}, c)
	return mine && (l.Attrs.Node == "" || l.Attrs.Instance == c.Attrs.Instance)
}

// Left reports whether l is a lease that the host which holds mine has left: one of its own, elsewhere, which a restore
// from a backup has brought back. A reservation is the operator's.
func (l Lease) Left(mine Lease) bool {
	return l.Subnets != mine.Subnets && !l.Reserved && l.Attrs.Node != "" &&
		l.Attrs.Node == mine.Attrs.Node && l.Attrs.Instance == mine.Attrs.Instance
}

// LostTo returns the loss of subnets to another lease.
func LostTo(subnets Subnets, other Lease) error {
	return fmt.Errorf("%w: %s now belongs to %s, which holds %s", ErrLost, KeyOf(subnets), other.Attrs.Owner(), KeyOf(other.Subnets))
}

// Address returns the public address by which a host is named: the IPv4 one if it has any.
func (a Attrs) Address() netip.Addr {
	if a.Public.V4.IsValid() {
		return a.Public.V4
	}
	return a.Public.V6
}

// Owner names the host for people.
func (a Attrs) Owner() string {
	if a.Node == "" && !a.Address().IsValid() {
		return "a key that names no host"
	}
	if a.Node == "" {
		return fmt.Sprintf("the host at %s", a.Address())
	}
	return fmt.Sprintf("node %s at %s", a.Node, a.Address())
}

// Equal reports whether a and b say the same in the fields that this version writes.
func (a Attrs) Equal(b Attrs) bool {
	return a.Public == b.Public && a.BackendType == b.BackendType && a.Node == b.Node && a.Instance == b.Instance &&
		slices.Equal(a.Hardware, b.Hardware) &&
		bytes.Equal(a.BackendData.V4, b.BackendData.V4) && bytes.Equal(a.BackendData.V6, b.BackendData.V6)
}

// Over returns a with the unknown fields of old beside its own, so that rewriting a lease loses nothing.
func (a Attrs) Over(old Attrs) Attrs {
	if len(old.Extra) == 0 {
		return a
	}
	extra := maps.Clone(old.Extra)
	maps.Copy(extra, a.Extra)
	a.Extra = extra
	return a
}
