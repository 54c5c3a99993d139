package agent

import (
	"slices"

	"tulle/subnet"
)

// judgement is the last one: most passes see the same leases, and judging ten thousand takes as long as reading the kernel.
type judgement struct {
	network *subnet.Network
	leases  []*subnet.Lease
	self    subnet.Self
	usable  []*subnet.Lease
	refused []subnet.Problem
}

// judge is subnet.Judge. What it returns must not be changed.
func (j *judgement) judge(n *subnet.Network, leases []*subnet.Lease, self subnet.Self) ([]*subnet.Lease, []subnet.Problem) {
	same := j.network == n && j.self.Node == self.Node && j.self.Instance == self.Instance && j.self.Subnets == self.Subnets && slices.Equal(j.self.Underlay, self.Underlay)
	if !same || !slices.Equal(j.leases, leases) {
		*j = judgement{network: n, leases: leases, self: self}
		j.usable, j.refused = subnet.Judge(*n, leases, self)
	}
	return j.usable, j.refused
}
