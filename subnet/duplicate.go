package subnet

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"tulle/ip"
)

// Duplicate is a lease whose owner stands against a claim if it lives.
type Duplicate struct {
	Lease    *Lease
	Conflict *ConflictError

	// SameMachine tells that the owner was an earlier run on the claim's machine, where two cannot run at once. Its silence makes the
	// lease the claim's; whoever else uses the node id or the public address has come later, or is wrong.
	SameMachine bool
}

// Duplicates returns the owners in leases that stand against a claim if they live: another instance with its node id, and
// other nodes with its public address. A lease without node id has no owner that could be asked.
//
// A claim whose instance has written one of the leases goes on with that one, and has no duplicates: else anybody who may write to
// the store could keep a host from starting again. Those that ran on the claim's machine come first: see Duplicate.SameMachine.
func Duplicates(leases []*Lease, claim Claim) []Duplicate {
	if slices.ContainsFunc(leases, claim.wrote) {
		return nil
	}
	var duplicates []Duplicate
	for _, l := range leases {
		if c := claim.conflict(l); c != nil {
			duplicates = append(duplicates, Duplicate{Lease: l, Conflict: c, SameMachine: l.Attrs.sharesHardware(claim.Attrs)})
		}
	}
	slices.SortStableFunc(duplicates, func(a, b Duplicate) int { return cmp.Compare(a.order(claim), b.order(claim)) })
	return duplicates
}

// conflict is that with the owner of l if it lives, nil if there is none.
func (c Claim) conflict(l *Lease) *ConflictError {
	if l.Attrs.Node == "" {
		return nil
	}
	if l.Attrs.Node == c.Attrs.Node {
		if l.Attrs.Instance == c.Attrs.Instance {
			return nil
		}
		e := conflict(*l, nodeID, l.Attrs.Node)
		e.Elsewhere = l.Attrs.Elsewhere(c.Attrs)
		return e
	}
	for _, f := range ip.Families() {
		addr := c.Attrs.Public.Of(f)
		if addr.IsValid() && !addr.IsUnspecified() && l.Attrs.Public.Of(f) == addr {
			return conflict(*l, publicAddress, addr.String())
		}
	}
	return nil
}

// order is by how much the silence of a duplicate tells.
func (d Duplicate) order(claim Claim) int {
	switch {
	case d.SameMachine && d.Lease.Attrs.Node == claim.Attrs.Node:
		return 0
	case d.SameMachine:
		return 1
	}
	return 2
}

// Unanswered returns what it means that the owner was asked whether it lives, and is silent. On the claim's own hardware
// it cannot live; elsewhere it may be cut off, and believe in its lease until that ends.
func (d Duplicate) Unanswered() error {
	if !d.Conflict.Elsewhere {
		return nil
	}
	silent := *d.Conflict
	silent.Silent = true
	return &silent
}

// Inherit returns leases with the duplicate's as one of the claim's node. A machine that keeps no node id has another one with each
// run, and would leave a lease behind each time.
func (d Duplicate) Inherit(leases []*Lease, claim Claim) []*Lease {
	heir := *d.Lease
	heir.Attrs.Node = claim.Attrs.Node
	leases = slices.Clone(leases)
	for i, l := range leases {
		if l == d.Lease {
			leases[i] = &heir
		}
	}
	return leases
}

// sharesHardware reports whether a and b are known to come from one machine.
func (a Attrs) sharesHardware(b Attrs) bool {
	return slices.ContainsFunc(a.Hardware, func(part string) bool { return slices.Contains(b.Hardware, part) })
}

// Elsewhere reports whether a and b are known to come from two machines, whatever their node ids say.
func (a Attrs) Elsewhere(b Attrs) bool {
	return len(a.Hardware) > 0 && len(b.Hardware) > 0 && !a.sharesHardware(b)
}

func conflict(l Lease, field, value string) *ConflictError {
	return &ConflictError{Field: field, Value: value, Node: l.Attrs.Node, Address: l.Attrs.Address(), Subnets: l.Subnets}
}

// Owns reports whether a lease is the claim's own, and not that of another instance with the same node id.
func (c Claim) Owns(l Lease) bool {
	_, mine := Mine(Set{Leases: []*Lease{&l}}, c)
	return mine && (l.Attrs.Node == "" || l.Attrs.Instance == c.Attrs.Instance)
}

// AbandonedBy reports whether l is a lease that the host which holds mine has abandoned: one of its own, elsewhere, which a restore
// from a backup has brought back. A reservation is the operator's.
func (l Lease) AbandonedBy(mine Lease) bool {
	return l.Subnets != mine.Subnets && !l.Reserved && l.Attrs.Node != "" &&
		l.Attrs.Node == mine.Attrs.Node && l.Attrs.Instance == mine.Attrs.Instance
}

// LostTo returns the loss of subnets to another lease.
func LostTo(subnets Subnets, other Lease) error {
	return fmt.Errorf("%w: %s now belongs to %s, which holds %s: if it should not, run: tulle leases release '%s'", ErrLost, KeyOf(subnets), other.Attrs.Owner(), KeyOf(other.Subnets), KeyOf(other.Subnets))
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
		slices.Equal(a.Hardware, b.Hardware) && a.Probe == b.Probe &&
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
