//go:build linux

package lab

import (
	"context"
	"sync"
	"time"

	"tulle/ip"
)

// matrixTimeout is how long a pair may take to reach each other. What is ready
// does so at once; the rest of the time is for a busy machine.
const matrixTimeout = 5 * time.Second

// Matrix tells of every ordered pair of containers whether the first reaches
// the second, with its source address preserved and at full MTU.
type Matrix struct {
	// Pass is whether every pair does.
	Pass  bool   `json:"pass"`
	Pairs []Pair `json:"pairs"`
}

// Pair is one cell of a matrix.
type Pair struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Family string `json:"family"`
	// Path is how the host of From sends to To.
	Path Path `json:"path"`
	OK   bool `json:"ok"`
	// RTTMillis is the median of some round trips.
	RTTMillis float64 `json:"rtt_ms,omitempty"`
	// Reason says why From does not reach To.
	Reason string `json:"reason,omitempty"`
}

// Matrix measures all pairs that the backend connects, and gives those that fail time to come right.
func (l *Lab) Matrix(ctx context.Context) (Matrix, error) {
	stop, err := l.startResponders()
	if err != nil {
		return Matrix{}, err
	}
	defer stop()

	containers := l.Containers()
	matrix := Matrix{Pass: true}
	type trial struct {
		from, to *Container
		family   ip.Family
	}
	var trials []trial
	for _, family := range l.Config.Families {
		for _, from := range containers {
			for _, to := range containers {
				if from != to && (from.Host == to.Host || l.forwards()) {
					trials = append(trials, trial{from, to, family})
				}
			}
		}
	}
	matrix.Pairs = make([]Pair, len(trials))
	trips := l.roundTrips(len(trials))
	until := time.Now().Add(matrixTimeout)
	// Reachability is tried everywhere at once, so that all failures together
	// cost one timeout. Round trips are timed one by one.
	var timing sync.Mutex
	var running sync.WaitGroup
	for i, t := range trials {
		running.Go(func() { matrix.Pairs[i] = measure(ctx, t.from, t.to, t.family, trips, until, &timing) })
	}
	running.Wait()
	if ctx.Err() != nil {
		return Matrix{}, context.Cause(ctx)
	}
	for _, pair := range matrix.Pairs {
		matrix.Pass = matrix.Pass && pair.OK
	}
	return matrix, nil
}

// forwards reports whether the backend carries traffic between hosts, which
// alloc leaves to others.
func (l *Lab) forwards() bool { return l.Config.Backend["Type"] != "alloc" }

// roundTrips is how many are timed of each pair. The first packet of a flow is never fast, so of few hardly any are; of many pairs there are many all the same.
func (l *Lab) roundTrips(pairs int) int {
	const few, many, all = 3, 50, 10000
	if l.Config.FastPath == "off" {
		return few
	}
	return max(few, min(many, all/max(pairs, 1)))
}

func measure(ctx context.Context, from, to *Container, family ip.Family, trips int, until time.Time, timing *sync.Mutex) Pair {
	pair := Pair{From: from.Name, To: to.Name, Family: family.String()}
	rtt, err := func() (time.Duration, error) {
		prober, err := newProber(from, to, family)
		if err != nil {
			return 0, err
		}
		defer prober.conn.Close()
		for {
			if err := prober.reach(ctx, until); err != nil {
				return 0, err
			}
			timing.Lock()
			rtt, err := prober.median(trips)
			timing.Unlock()
			if err == nil || time.Now().After(until) {
				return rtt, err
			}
		}
	}()
	path, pathErr := pathOf(from.Host, to, family)
	switch {
	case err != nil:
		pair.Reason = err.Error()
	case pathErr != nil:
		pair.Reason = pathErr.Error()
	default:
		pair.OK = true
		pair.RTTMillis = float64(rtt.Microseconds()) / 1000
	}
	pair.Path = path
	return pair
}
