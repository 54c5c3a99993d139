//go:build linux

package bench

import "fmt"

// limits are what Control should keep to, on two cores. Durations are in seconds, sizes in bytes, CPU in parts of one core.
// A limit of 0 is none.
type limits struct {
	cold, coldDual, warm float64
	change, changeP99    float64
	churn, idle, rss     float64
	foreignRoutes        float64 // a thousand changes per second
	vethChurn            float64 // fifty pairs per second
}

// foreignRules is what ten thousand rules of others may cost more at rest, as a part of a core.
const foreignRules = 0.01

// pace is how much longer than the kernel's floor changes to the kernel may take.
const pace = 1.5

// enough is the part of the changes that another program was to make that it must have made for the load to count.
const enough = 0.9

// A load must be measured for so many seconds to be held against its limit: there is a resync every 30 s.
const leastChurn, leastIdle = 5, 30

// targets are the limits by the number of peers. Other numbers have none.
func targets(peers int) (limits, bool) {
	const ms, percent, mb = 1e-3, 1e-2, 1e6
	l, ok := map[int]limits{
		1_000:  {cold: 0.25, coldDual: 0.4, warm: 0.15, change: 5 * ms, changeP99: 20 * ms, churn: 5 * percent, idle: 0.1 * percent, rss: 32 * mb},
		10_000: {cold: 0.8, coldDual: 1.6, warm: 0.4, change: 8 * ms, changeP99: 40 * ms, churn: 15 * percent, idle: 0.5 * percent, rss: 64 * mb},
		50_000: {cold: 4, coldDual: 9, warm: 2, change: 20 * ms, changeP99: 100 * ms, idle: 2 * percent, rss: 220 * mb},
	}[peers]
	l.foreignRoutes, l.vethChurn = 3*percent, 3*percent
	return l, ok
}

// Missed says which targets were not met. The targets are for one family; only that of the start is for both.
func (c Control) Missed() []string {
	l, ok := targets(c.Peers)
	if !ok {
		return nil
	}
	m := misses{what: fmt.Sprintf("%s, %s, %d peers", c.Backend, c.Family, c.Peers)}
	dual := len(c.Families) > 1
	if dual {
		l = limits{cold: l.coldDual}
	}
	m.most("cold start", c.Cold.Median, l.cold)
	m.most("kernel changes by the floor", c.Cold.Apply.Median/c.Floor.Median, pace)
	m.most("warm restart", c.Warm.Median, l.warm)
	m.most("lease to route, p50", c.Change.Median, l.change)
	m.most("lease to route, p99", c.Change.P99, l.changeP99)
	if c.Churn.Seconds >= leastChurn {
		m.most("CPU under churn", c.Churn.CPU, l.churn)
	}
	if c.Idle.Seconds >= leastIdle {
		rest := l.idle
		if c.ForeignRules > 0 {
			rest += foreignRules
		}
		m.most("CPU at rest", c.Idle.CPU, rest)
	}
	for _, load := range []struct {
		what      string
		measured  *Load
		perSecond int
		limit     float64
	}{{"foreign routes", c.Foreign, min(c.ForeignRoutes, 1000), l.foreignRoutes}, {"veth churn", c.Veths, min(c.VethChurn, 50), l.vethChurn}} {
		if load.measured != nil && load.measured.Seconds >= leastIdle {
			m.most("CPU under "+load.what, load.measured.CPU, load.limit)
			m.least("changes per second under "+load.what, load.measured.Others, enough*float64(load.perSecond))
		}
	}
	m.most("resident memory", float64(c.RSS), l.rss)
	m.none("kernel changes by a warm restart", c.Warm.Changes)
	m.none("kernel changes at rest", c.Idle.Changes)
	m.none("bytes of log at rest", float64(c.Idle.LogBytes))
	if c.Spawned {
		m.none("programs started", 1)
	}
	m.most("watches per start", c.Cold.Requests["Watch"], 1)
	for method, count := range c.Idle.Requests {
		if method != "LeaseKeepAlive" {
			m.none("requests at rest: "+method, count)
		}
	}
	return m.list
}

// Missed says which targets were not met by a fleet of 1,000.
func (f Fleet) Missed() []string {
	const hosts = 1000
	if f.Hosts != hosts {
		return nil
	}
	m := misses{what: fmt.Sprintf("%d hosts", hosts)}
	m.none("hosts without a lease", float64(f.Failed))
	m.none("hosts that did not learn of all others", float64(hosts-f.Known.Samples))
	m.none("hosts that did not learn of one change", float64(hosts-f.Change.Samples))
	m.none("hosts that did not come back", float64(hosts-f.Restart.Samples))
	m.most("all hold a lease", f.Leased.Most, 10)
	m.most("transactions per host", f.Known.Requests["Txn"]/hosts, 3)
	m.most("one change to all, p99", f.Change.P99, 1)
	m.most("converged after a restart of etcd", f.Restart.Most, 10)
	for method, count := range f.Steady.Requests {
		if method != "LeaseKeepAlive" {
			m.none("requests at rest: "+method, count)
		}
	}
	return m.list
}

type misses struct {
	what string
	list []string
}

func (m *misses) most(name string, got, limit float64) {
	if limit > 0 && got > limit {
		m.list = append(m.list, fmt.Sprintf("%s: %s is %.4g, want at most %.4g", m.what, name, got, limit))
	}
}

func (m *misses) least(name string, got, limit float64) {
	if got < limit {
		m.list = append(m.list, fmt.Sprintf("%s: %s is %.4g, want at least %.4g", m.what, name, got, limit))
	}
}

func (m *misses) none(name string, got float64) {
	if got != 0 {
		m.list = append(m.list, fmt.Sprintf("%s: %s: %.4g, want none", m.what, name, got))
	}
}
