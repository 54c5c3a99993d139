package fabric

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"tulle/ip"
)

const conditionsMost = 500 // that are asked about in a pass

// conditional lists packets to and from one of some peers that a condition of another program matches.
func (c *pathCheck) conditional(cond ip.Condition, peers []routedPeer, want ip.State) []packet {
	var bridges []bridge
	for _, p := range []netip.Prefix{cond.Src, cond.Dst} {
		if b, ok := c.behind(p); ok {
			bridges = append(bridges, b)
		}
	}
	if bridges == nil {
		bridges = c.from.Of(cond.Family).bridges
	}
	network, uplink := c.network.Pools.Of(cond.Family).Network, c.from.Of(cond.Family).uplink
	for _, peer := range peers {
		subnet, host := peer.lease.Subnets.Of(cond.Family), peer.lease.Attrs.Public.Of(cond.Family)
		concerns := func(p netip.Prefix) bool {
			return !p.IsValid() || p.Overlaps(network) || p.Contains(host) || p.Contains(uplink)
		}
		if !concerns(cond.Src) || !concerns(cond.Dst) {
			continue
		}
		r, ok := routeTo(want, subnet)
		if !ok || r.Dst != subnet {
			continue
		}
		addr := inside(subnet)
		for _, p := range []netip.Prefix{cond.Src, cond.Dst} {
			if ip.Contains(subnet, p) {
				addr = inside(p)
			}
		}
		ps := c.with(nil, subnet, addr, bridges)
		if host.IsValid() && uplink.IsValid() {
			ps = append(ps, packet{subnet: subnet, peer: host, way: toHost})
		}
		ps = slices.DeleteFunc(ps, func(p packet) bool { return !cond.Matches(c.question(p, r)) })
		if len(ps) > 0 {
			return ps
		}
	}
	return nil
}

// uncertain tells which conditions lead packets astray that are as they ask for, if it is not known whether there are such; of the others it takes
// note as of those that go astray.
func (c *pathCheck) uncertain(ctx context.Context, kernel ip.Kernel, want ip.State, peers []routedPeer) (texts []string, err error) {
	conditions := c.others.Conditions[:min(len(c.others.Conditions), conditionsMost)]
	for _, cond := range conditions {
		ps := c.conditional(cond, peers, want)
		if cond.Selector == (ip.Selector{}) {
			if _, err := c.ask(ctx, kernel, want, ps); err != nil {
				return nil, err
			}
			continue
		}
		questions := make([]ip.Question, len(ps))
		for i, p := range ps {
			r, _ := routeTo(want, p.subnet)
			questions[i] = c.question(p, r)
			questions[i].Selector = cond.Selector
		}
		answers, err := kernel.Lookup(ctx, questions)
		if err != nil {
			return nil, err
		}
		for i, p := range ps {
			if r, _ := routeTo(want, p.subnet); !c.right(p, answers[i], r) && c.astray[p] == (ip.Answer{}) {
				texts = append(texts, c.describe(cond, questions[i], p, answers[i]))
				break
			}
		}
	}
	if more := len(texts) - strayNamed; more > 0 {
		texts = append(texts[:strayNamed], fmt.Sprintf("and so it is with %d more policy rules and routes", more))
	}
	return texts, nil
}

// describe says what a condition does to packets.
func (c *pathCheck) describe(cond ip.Condition, q ip.Question, p packet, a ip.Answer) string {
	text := fmt.Sprintf("packets from %s to %s with %s %s, by %s (%s)", q.Src, q.Dst, cond.Selector, becomes(a, cond.Family, q.In), cond.What, cond.Show)
	if cond.Before == nil {
		return text + ": take it away, if there may be such packets"
	}
	scope := "to " + c.network.Pools.Of(cond.Family).Network.String()
	if p.way == toHost {
		scope = fmt.Sprintf("from %s to %s", q.Src, q.Dst)
	}
	return fmt.Sprintf("%s: if there may be such packets, have the main table asked before: %s rule add %s priority %d lookup main", text, cond.Family.Command(), scope, *cond.Before)
}
