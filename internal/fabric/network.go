package fabric

import (
	"fmt"

	"tulle/backend"
	"tulle/internal/trouble"
	"tulle/subnet"
)

// configure takes the first valid configuration into force and reports a later one that differs.
func (p *Pass) configure(set subnet.Set) error {
	f := p.fabric
	if set.Network == nil {
		return f.noNetwork(set)
	}
	if f.network == nil {
		b, warnings, err := backend.Open(f.cfg.Backends, *set.Network)
		if err != nil {
			return trouble.Wrap(trouble.ConfigRefused, f.cfg.Keys.Config, fmt.Errorf("network configuration: %w", err))
		}
		f.network, f.backend, f.warnings = set.Network, b, warnings
		f.cfg.Log.Info("network configured", "backend", set.Network.Backend.Type, "network", set.Network.Prefixes(), "rev", set.Network.Revision)
	}
	p.Status.Network = networkStatus(*f.network)
	p.found.problems = append(p.found.problems, f.warned()...)
	if !f.network.Same(*set.Network) {
		p.found.pending = fmt.Sprintf("the configuration at revision %d differs from the one in force: restart tulled on every host to take it over; hosts that have it and hosts that do not may be cut off from each other meanwhile", set.Network.Revision)
	}
	return nil
}

// noNetwork says why there is no configuration, and what to do about it.
func (f *Fabric) noNetwork(set subnet.Set) error {
	for _, p := range set.Problems {
		if p.Key == f.cfg.Keys.Config {
			return trouble.Wrap(trouble.ConfigRefused, p.Key, fmt.Errorf("%w: %s: %s", subnet.ErrNoNetwork, p.Key, p.Reason))
		}
	}
	return trouble.Wrap(trouble.ConfigMissing, f.cfg.Keys.Config,
		fmt.Errorf(`%w at %s: write one, such as: tulle config set '{"Network":"10.5.0.0/16"}'`, subnet.ErrNoNetwork, f.cfg.Keys.Config))
}

// warned reports what the backend found odd in its options.
func (f *Fabric) warned() []subnet.Problem {
	var ps []subnet.Problem
	for _, d := range f.warnings {
		ps = append(ps, subnet.Problem{Key: f.cfg.Keys.Config, Reason: d})
	}
	return ps
}
