package agent

import (
	"tulle/internal/invariant"
	"tulle/ip"
)

// violations holds what a round decided against the invariants that one host can check. At rest, little is left to look at.
func (a *Agent) violations(v view, d decided, have ip.State, plan ip.Plan) []invariant.Violation {
	if len(plan) == 0 && v.unchanged {
		if v.set.past {
			return nil // what a view of the past would take away is left
		}
		return invariant.AtRest(have, d.Want)
	}
	vs := invariant.Owned(plan, v.scope)
	vs = append(vs, invariant.Seen(plan, !v.set.past)...)
	vs = append(vs, invariant.Usable(*a.network, v.self.Subnets, d.usable)...)
	vs = append(vs, invariant.Filtered(d.Want, a.cfg.PeerFilter, d.usable)...)
	return append(vs, invariant.Whole(d.Want)...)
}
