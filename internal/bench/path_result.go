//go:build linux

package bench

// Path is what one run of the path benchmark found.
type Path struct {
	PathConfig
	Accounting string             `json:"accounting"`          // whose CPU time it is
	FastShare  map[string]float64 `json:"fastShare,omitempty"` // part of the bytes between containers that went fast, of both hosts, by path
	Results    []PathResult       `json:"figures"`
}

// PathResult is what was found of one kind of traffic.
type PathResult struct {
	Name  string              `json:"name"`
	Unit  string              `json:"unit"`
	Paths map[string]PathCost `json:"paths"`
}

// PathCost is what it costs on one path. Ratios are medians of those of the rounds, in each of which the paths were measured shortly one after the other; 0: there is
// nothing to compare with.
type PathCost struct {
	CPU       Figure    `json:"cpu"`    // of both ends, for a unit, seconds
	Rate      Figure    `json:"rate"`   // units per second
	Rounds    []float64 `json:"rounds"` // CPU of each
	OfBare    float64   `json:"ofBare,omitempty"`
	OfPlain   float64   `json:"ofPlain,omitempty"`
	OfFlannel float64   `json:"ofFlannel,omitempty"`
	// Closed is the part of flannel's extra cost over that of bare hosts which it does without; without a flannel, of that of the plain path.
	Closed *float64 `json:"closed,omitempty"`
}

func pathResult(k pathKind, samples map[string][]sample) PathResult {
	r := PathResult{Name: k.name, Unit: k.unit, Paths: map[string]PathCost{}}
	costs := map[string][]float64{}
	for path, of := range samples {
		var rates []float64
		for _, s := range of {
			costs[path], rates = append(costs[path], s.cost), append(rates, s.rate)
		}
		r.Paths[path] = PathCost{CPU: figure(costs[path]), Rate: figure(rates), Rounds: costs[path]}
	}
	worst := Flannel
	if costs[Flannel] == nil {
		worst = Plain
	}
	for path, c := range r.Paths {
		c.OfBare, c.OfPlain, c.OfFlannel = ratio(costs[path], costs[Bare]), ratio(costs[path], costs[Plain]), ratio(costs[path], costs[Flannel])
		if costs[worst] != nil && costs[Bare] != nil && path != worst && path != Bare {
			closed := gapClosed(costs[path], costs[Bare], costs[worst])
			c.Closed = &closed
		}
		r.Paths[path] = c
	}
	return r
}

// ratio is the median of the rounds' ratios; 0 if there are none. A clock of few ticks may say that something cost nothing.
func ratio(a, b []float64) float64 {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return figure(ratios).Median
}

// gapClosed is the median of the rounds' (worst − cost) / (worst − best).
func gapClosed(cost, best, worst []float64) float64 {
	var parts []float64
	for i := range min(len(cost), len(best), len(worst)) {
		if worst[i] != best[i] {
			parts = append(parts, (worst[i]-cost[i])/(worst[i]-best[i]))
		}
	}
	return figure(parts).Median
}
