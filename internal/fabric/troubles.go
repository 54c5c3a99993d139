package fabric

import (
	"errors"
	"fmt"
	"strings"

	"tulle/internal/decision"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// leaseCode is the code of what keeps the lease away.
func leaseCode(err error) trouble.Code {
	var conflict *subnet.ConflictError
	switch {
	case errors.Is(err, ErrAcquiring):
		return trouble.LeaseWaiting
	case errors.Is(err, ErrUnconfirmed):
		return trouble.StoreUnconfirmed
	case errors.As(err, &conflict):
		return trouble.LeaseConflict
	case errors.Is(err, subnet.ErrExhausted):
		return trouble.LeaseExhausted
	case errors.Is(err, subnet.ErrLost):
		return trouble.LeaseLost
	case errors.Is(err, subnet.ErrNoNetwork):
		return trouble.ConfigMissing
	}
	return trouble.LeaseUnavailable
}

// findings are what a pass finds wrong beside the error that keeps the network from being ready.
type findings struct {
	pending   string // what waits for a restart
	oversize  string // how the configured MTU exceeds that of the uplink
	problems  []subnet.Problem
	blocked   []ip.Blockade // where packets between containers are, or may be, dropped
	closed    []ip.Blockade // where those to and from the world outside are
	tunnels   []ip.Blockade // where those that hosts exchange through a tunnel are
	stale     []string      // bridges that hold an earlier subnet
	shared    []string      // bridges that hold this host's subnet beside each other
	uncertain []string      // what leads packets astray if there are such
	overlaps  []string      // networks of this host that share addresses with this one
}

// troubles lists what is wrong with the network after a pass. What is wrong with the host is the host's to tell.
func (p *Pass) troubles(host error) (list trouble.List) {
	f := p.fabric
	list.Add(f.ours(trouble.Of(p.err))...)
	add := func(code trouble.Code, subject, text string) {
		t := trouble.New(code, subject, text)
		t.Network = f.cfg.Name
		list.Add(t)
	}
	if p.Status.Degraded != "" && !list.Has(trouble.StoreUnconfirmed) {
		add(trouble.StoreUnconfirmed, "", p.Status.Degraded)
	}
	found := p.found
	if found.pending != "" {
		add(trouble.ConfigPending, f.cfg.Keys.Config, found.pending)
	}
	if used, today := p.facts.host.Uplink.Link, p.facts.today; today != "" {
		add(trouble.UplinkOther, used, fmt.Sprintf("traffic between hosts goes over %s, in use so far, and without that it would be %s: start tulled with --iface %s to move it there, or with --iface %s to keep it and this silent",
			used, today, today, used))
	}
	if found.oversize != "" {
		add(trouble.UplinkNarrow, p.facts.host.Uplink.Link, found.oversize)
	}
	for _, problem := range found.problems {
		switch {
		case problem.Key == f.cfg.Keys.Leases:
			add(trouble.StoreSuddenLoss, problem.Key, problem.Reason)
		case problem.Key != f.cfg.Keys.Config:
			add(trouble.KeyUnreadable, problem.Key, problem.Reason)
		case p.Status.Network != nil: // else it is why there is no configuration
			add(trouble.ConfigWarning, problem.Key, problem.Reason)
		}
	}
	list.AddUnlisted(trouble.KeyUnreadable, p.set.Unlisted)
	for _, problem := range p.problems {
		add(trouble.PeerRefused, f.cfg.Keys.Leases+problem.Key, problem.Reason)
	}
	if loss := f.keeper.lastLoss(); loss != "" && p.err == nil && host == nil {
		add(trouble.LeaseRenumbered, "", loss)
	}
	uncertain := func(code trouble.Code, blocked []ip.Blockade) {
		for _, b := range blocked {
			if !b.Sure { // else it is an error
				add(code, b.At.String(), decision.Describe(b))
			}
		}
	}
	uncertain(trouble.ForwardUncertain, found.blocked)
	uncertain(trouble.TunnelUncertain, found.tunnels)
	for _, b := range found.closed {
		add(trouble.OutsideBlocked, b.At.String(), decision.DescribeClosed(b))
	}
	for _, text := range found.stale {
		bridge, _, _ := strings.Cut(text, " ")
		add(trouble.BridgeStale, bridge, text)
	}
	for _, text := range found.shared {
		add(trouble.BridgeShared, "", text)
	}
	for _, text := range found.uncertain {
		add(trouble.RouteUncertain, "", text)
	}
	for _, text := range found.overlaps {
		link, _, _ := strings.Cut(text, " ")
		add(trouble.NetworkOverlaps, link, text)
	}
	return list
}

// MomentaryCodes are those of MomentaryTroubles.
func MomentaryCodes() []trouble.Code {
	return []trouble.Code{trouble.StoreUnreachable, trouble.LeaseClaimed}
}

// MomentaryTroubles come and go between passes: what is wrong with the store now, and who claims what is this host's.
func (f *Fabric) MomentaryTroubles() []trouble.Trouble {
	var ts []trouble.Trouble
	if f.cfg.Trouble != nil {
		if err := f.cfg.Trouble(); err != nil {
			ts = append(ts, trouble.New(trouble.StoreUnreachable, "", err.Error()))
		}
	}
	for _, r := range f.keeper.claimants() {
		ts = append(ts, trouble.New(trouble.LeaseClaimed, r.Node, r.Describe(f.cfg.Host.Node)))
	}
	return f.ours(ts)
}

// ours says which network the troubles are of.
func (f *Fabric) ours(ts []trouble.Trouble) []trouble.Trouble {
	for i := range ts {
		ts[i].Network = f.cfg.Name
	}
	return ts
}
