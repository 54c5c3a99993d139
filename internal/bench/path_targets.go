//go:build linux

package bench

import (
	"fmt"
	"math"
	"slices"
)

// leastRounds is how many rounds must be measured for medians to be held against their targets.
const leastRounds = 5

// Missed says which targets were not met, on two cores. They are ratios within one run: machines differ.
func (p Path) Missed() []string {
	if p.Rounds < leastRounds || len(p.Targets) > 0 {
		return nil
	}
	segments := "packets of 64 KB"
	if !p.Offloads {
		segments = "real segments"
	}
	m := misses{what: fmt.Sprintf("%s, %s, %d rules, %s", p.Backend, p.Family, p.Rules, segments)}
	trips, bulk := []string{"tcp-rr", "udp-rr"}, []string{"bulk-1", "bulk-4"}
	ofFlannel := func(c PathCost) float64 { return c.OfFlannel }
	ofPlain := func(c PathCost) float64 { return c.OfPlain }
	vxlan := p.Backend == "vxlan" && p.Family == "ipv4"
	switch {
	case p.Rules > 0 && vxlan && p.Offloads:
		p.most(&m, Fast, trips, "flannel", ofFlannel, 0.60)
	case p.Rules > 0:
	case vxlan && !p.Offloads:
		p.most(&m, Fast, bulk, "flannel", ofFlannel, 0.85)
	case vxlan:
		p.closes(&m, trips, 0.75)
		p.closes(&m, []string{"udp-64"}, 0.65)
		p.most(&m, Fast, []string{"tcp-connect"}, "flannel", ofFlannel, 1.00)
		p.most(&m, Fast, bulk, "flannel", ofFlannel, 0.65)
	case p.Backend == "host-gw" && p.Family == "ipv4" && p.Offloads:
		p.most(&m, Fast, trips, "plain", ofPlain, 0.83)
	case p.Backend == "vxlan" && p.Family == "ipv6" && p.Offloads:
		p.most(&m, Fast, trips, "plain", ofPlain, 0.80)
		p.most(&m, Fast, bulk, "plain", ofPlain, 0.70)
	}
	if p.Rules == 0 && p.Offloads {
		p.most(&m, Never, trips, "plain", ofPlain, 1.08)
		p.most(&m, Never, []string{"tcp-connect"}, "plain", ofPlain, 1.15)
		p.equal(&m, Off, trips, 0.02)
	}
	return m.list
}

// each calls check for figures that were measured on a path.
func (p Path) each(path string, figures []string, check func(name string, c PathCost)) {
	for _, r := range p.Results {
		if c, ok := r.Paths[path]; ok && slices.Contains(figures, r.Name) {
			check(path+", "+r.Name, c)
		}
	}
}

// most has a limit for the ratio to another path, if that was measured.
func (p Path) most(m *misses, path string, figures []string, of string, ratio func(PathCost) float64, limit float64) {
	p.each(path, figures, func(name string, c PathCost) { m.most(name+", of "+of, ratio(c), limit) })
}

// closes has a limit for the part of flannel's gap that the fast path closes.
func (p Path) closes(m *misses, figures []string, limit float64) {
	p.each(Fast, figures, func(name string, c PathCost) {
		if c.Closed != nil && c.OfFlannel > 0 {
			m.least(name+", gap closed", *c.Closed, limit)
		}
	})
}

// equal has a limit for how far a path is from the plain one, either way.
func (p Path) equal(m *misses, path string, figures []string, limit float64) {
	p.each(path, figures, func(name string, c PathCost) {
		if c.OfPlain > 0 && math.Abs(c.OfPlain-1) > limit {
			m.list = append(m.list, fmt.Sprintf("%s: %s, of plain is %.4g, want 1 ± %g", m.what, name, c.OfPlain, limit))
		}
	})
}
