package agent

import (
	"fmt"

	"tulle/backend"
	"tulle/internal/trouble"
	"tulle/subnet"
)

// configure takes the first valid configuration into force and reports a later one that differs.
func (a *Agent) configure(set subnet.Set, st *Status) error {
	if set.Network == nil {
		return a.noNetwork(set)
	}
	if a.network == nil {
		b, doubts, err := backend.Open(a.cfg.Backends, *set.Network)
		if err != nil {
			return trouble.Wrap(trouble.ConfigRefused, a.cfg.ConfigKey, fmt.Errorf("network configuration: %w", err))
		}
		a.network, a.backend, a.doubts = set.Network, b, doubts
		a.cfg.Log.Info("network configured", "backend", set.Network.Backend.Type, "network", set.Network.Prefixes(), "rev", set.Network.Revision)
	}
	st.Network = networkStatus(*a.network)
	st.found.problems = append(st.found.problems, a.doubtful()...)
	if !a.network.Same(*set.Network) {
		st.found.pending = fmt.Sprintf("the configuration at revision %d differs from the one in force: restart tulled to take it over", set.Network.Revision)
	}
	return nil
}

// noNetwork says why there is no configuration, and what to do about it.
func (a *Agent) noNetwork(set subnet.Set) error {
	for _, p := range set.Problems {
		if p.Key == a.cfg.ConfigKey {
			return trouble.Wrap(trouble.ConfigRefused, p.Key, fmt.Errorf("%w: %s: %s", subnet.ErrNoNetwork, p.Key, p.Reason))
		}
	}
	return trouble.Wrap(trouble.ConfigMissing, a.cfg.ConfigKey,
		fmt.Errorf(`%w at %s: write one, such as: tulle config set '{"Network":"10.5.0.0/16"}'`, subnet.ErrNoNetwork, a.cfg.ConfigKey))
}

// doubtful reports what the backend found odd in its options.
func (a *Agent) doubtful() []subnet.Problem {
	var ps []subnet.Problem
	for _, d := range a.doubts {
		ps = append(ps, subnet.Problem{Key: a.cfg.ConfigKey, Reason: d})
	}
	return ps
}
