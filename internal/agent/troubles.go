package agent

import (
	"errors"
	"strings"

	"tulle/internal/decision"
	"tulle/internal/invariant"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// leaseCode is the code of what keeps the lease away.
func leaseCode(err error) trouble.Code {
	var conflict *subnet.ConflictError
	switch {
	case errors.Is(err, errAcquiring):
		return trouble.LeaseWaiting
	case errors.Is(err, errRanOut):
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

// findings are what a pass finds wrong beside the error that keeps the host from being ready.
type findings struct {
	pending    string // what waits for a restart
	problems   []subnet.Problem
	refused    []subnet.Problem // leases
	blocked    []ip.Blockade    // where packets between containers are, or may be, dropped
	closed     []ip.Blockade    // where those to and from the world outside are
	stale      []string         // bridges that hold a subnet of the past
	shared     []string         // bridges that hold this host's subnet beside each other
	settings   []string         // that would help, and cannot be set here
	contested  []string         // what others undo again and again, and who
	violations []invariant.Violation
}

// troubles lists what is wrong after a pass: err is why the host is not ready.
func (a *Agent) troubles(st Status, err error) trouble.List {
	var list trouble.List
	list.Add(trouble.Of(err)...)
	list = a.storeTrouble(list)
	if st.Degraded != "" && !list.Has(trouble.StoreUnconfirmed) {
		list.Add(trouble.New(trouble.StoreUnconfirmed, "", st.Degraded))
	}
	f := st.found
	if f.pending != "" {
		list.Add(trouble.New(trouble.ConfigPending, a.cfg.ConfigKey, f.pending))
	}
	for _, p := range f.problems {
		switch {
		case p.Key == a.cfg.LeaseDir:
			list.Add(trouble.New(trouble.StoreSuddenLoss, p.Key, p.Reason))
		case p.Key != a.cfg.ConfigKey:
			list.Add(trouble.New(trouble.KeyUnreadable, p.Key, p.Reason))
		case st.Network != nil: // else it is why there is no configuration
			list.Add(trouble.New(trouble.ConfigDoubt, p.Key, p.Reason))
		}
	}
	for _, p := range f.refused {
		list.Add(trouble.New(trouble.PeerRefused, p.Key, p.Reason))
	}
	if loss := a.keeper.lastLoss(); loss != "" && err == nil {
		list.Add(trouble.New(trouble.LeaseRenumbered, "", loss))
	}
	for _, b := range f.blocked {
		if !b.Sure { // else it is an error
			list.Add(trouble.New(trouble.ForwardDoubt, b.At.String(), decision.Describe(b)))
		}
	}
	for _, b := range f.closed {
		list.Add(trouble.New(trouble.OutsideBlocked, b.At.String(), decision.DescribeClosed(b)))
	}
	for _, text := range f.stale {
		list.Add(trouble.New(trouble.BridgeStale, firstWord(text), text))
	}
	for _, text := range f.shared {
		list.Add(trouble.New(trouble.BridgeShared, "", text))
	}
	for _, text := range f.settings {
		list.Add(trouble.New(trouble.SettingAdvised, firstWord(text), text))
	}
	if a.cfg.NewNode {
		list.Add(trouble.New(trouble.NodeRandom, a.cfg.Node, a.randomNode()))
	}
	for _, what := range f.contested {
		_, object, _ := strings.Cut(what, ": ")
		list.Add(trouble.New(trouble.KernelContested, object, what))
	}
	for _, v := range f.violations {
		list.Add(trouble.New(trouble.Fault, v.Invariant, v.String()))
	}
	return list
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}

// storeTrouble returns a list with what is wrong with the store now, which comes and goes between passes.
func (a *Agent) storeTrouble(list trouble.List) trouble.List {
	list = list.Without(trouble.StoreUnreachable)
	if a.cfg.Trouble == nil {
		return list
	}
	if err := a.cfg.Trouble(); err != nil {
		list = list.With(trouble.New(trouble.StoreUnreachable, "", err.Error()))
	}
	return list
}
