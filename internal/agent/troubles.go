package agent

import (
	"errors"
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

// observed are the troubles that a round sees beside the errors that end it.
func observed(d decided, stale, shared, settings, node []string) []trouble.Trouble {
	var ts []trouble.Trouble
	add := func(code trouble.Code, subject func(text string) string, texts []string) {
		for _, text := range texts {
			ts = append(ts, trouble.New(code, subject(text), text))
		}
	}
	none := func(string) string { return "" }
	first := func(text string) string { word, _, _ := strings.Cut(text, " "); return word }
	for _, b := range d.Blocked {
		if !b.Sure { // else it is an error
			ts = append(ts, trouble.New(trouble.ForwardDoubt, b.At.String(), decision.Describe([]ip.Blockade{b})[0]))
		}
	}
	for _, b := range d.Closed {
		ts = append(ts, trouble.New(trouble.OutsideBlocked, b.At.String(), decision.DescribeClosed([]ip.Blockade{b})[0]))
	}
	add(trouble.BridgeStale, first, stale)
	add(trouble.BridgeShared, none, shared)
	add(trouble.SettingAdvised, first, settings)
	add(trouble.NodeRandom, none, node)
	return ts
}

// troubles lists what is wrong after a pass: err is why it is not ready.
func (a *Agent) troubles(st Status, err error) trouble.List {
	var list trouble.List
	list.Add(trouble.Of(err)...)
	if st.Store != "" {
		list.Add(trouble.New(trouble.StoreUnreachable, "", st.Store))
	}
	if st.Degraded != "" && list.Count[trouble.StoreUnconfirmed] == 0 {
		list.Add(trouble.New(trouble.StoreUnconfirmed, "", st.Degraded))
	}
	if st.Pending != "" {
		list.Add(trouble.New(trouble.ConfigPending, a.cfg.ConfigKey, st.Pending))
	}
	for i, p := range st.Problems {
		code := trouble.KeyUnreadable
		switch {
		case i >= len(st.Problems)-st.refused:
			code = trouble.PeerRefused
		case p.Key == a.cfg.LeaseDir:
			code = trouble.StoreSuddenLoss
		case p.Key == a.cfg.ConfigKey && st.Network == nil:
			continue // it is why there is no configuration
		case p.Key == a.cfg.ConfigKey:
			code = trouble.ConfigDoubt
		}
		list.Add(trouble.New(code, p.Key, p.Reason))
	}
	if st.Loss != "" && err == nil {
		list.Add(trouble.New(trouble.LeaseRenumbered, "", st.Loss))
	}
	list.Add(st.observed...)
	for _, what := range st.Contested {
		_, object, _ := strings.Cut(what, ": ")
		list.Add(trouble.New(trouble.KernelContested, object, what))
	}
	for _, v := range st.Violations {
		list.Add(trouble.New(trouble.Fault, v.Invariant, v.String()))
	}
	return list
}
