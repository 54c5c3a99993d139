package agent

import (
	"context"
	"slices"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/probe"
)

// complaintsLook is how often what the prober finds is compared with what the store was told.
const complaintsLook = 2 * time.Second

// complain tells others through the store what is wrong with their peers until ctx ends. It works beside the passes.
func (a *Agent) complain(ctx context.Context) error {
	if a.probes.Prober == nil {
		return nil
	}
	all := make([]*fabric.Complainer, len(a.fabrics))
	for i, f := range a.fabrics {
		all[i] = f.Complainer()
	}
	tick := time.NewTicker(complaintsLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		bad := a.probes.allBad()
		for i, g := range a.probes.givenNow() {
			all[i].Step(ctx, g, bad)
		}
	}
}

// allBad is all that is not well.
func (p *probes) allBad() probe.Bad {
	bad := p.Bad()
	if bad.More > 0 {
		bad.Reports, bad.More = p.Reports(), 0
	}
	return bad
}

// givenNow is what was handed on of each network.
func (p *probes) givenNow() []*fabric.Probing {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.given)
}
