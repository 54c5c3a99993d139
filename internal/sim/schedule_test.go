package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// schedule is what a seed decides.
type schedule struct {
	seed    uint64
	hosts   int
	config  string
	ttl     time.Duration
	latency time.Duration // the most that a request takes
	open    bool          // the daemons run with --peer-filter=off
	events  []event
	length  time.Duration
}

// event is something that happens to the fleet.
type event struct {
	at   time.Duration
	text string
	do   func(*fleet)
}

func (s schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d hosts, TTL %v, latency up to %v, peer filter %t, %s\n", s.seed, s.hosts, s.ttl, s.latency, !s.open, s.config)
	for _, e := range s.events {
		fmt.Fprintf(&b, "%9s  %s\n", e.at, e.text)
	}
	return b.String()
}

// dice makes a schedule.
type dice struct {
	*rand.Rand
	*schedule
}

const firstFault = 90 * time.Second // by then all peers are steady

// throws is how many times the dice are thrown for a schedule. What came to be decided later is thrown for apart, so that
// named seeds stay what they are.
const throws = 2

// newSchedule throws the dice, a number of times.
func newSchedule(seed uint64, throws int) schedule {
	s := schedule{seed: seed, open: true}
	s.throwFirst()
	if throws > 1 {
		s.throwSecond()
	}
	slices.SortStableFunc(s.events, func(a, b event) int { return int(a.at - b.at) })
	return s
}

// throwFirst decides on the fleet, which knows no peer filter, and on faults.
func (s *schedule) throwFirst() {
	d := dice{rand.New(rand.NewPCG(s.seed, 0)), s}
	d.hosts = 3 + d.IntN(6)
	faults := 4 + d.IntN(14)
	if d.IntN(40) == 0 {
		d.hosts = 20 + d.IntN(81)
		faults = 6 + d.IntN(10)
	}
	d.config = configs(d.hosts)[d.IntN(len(configs(d.hosts)))]
	d.ttl = []time.Duration{15 * time.Second, 30 * time.Second, time.Minute}[d.IntN(3)]
	d.latency = []time.Duration{0, 20 * time.Millisecond, 400 * time.Millisecond}[d.IntN(3)]
	d.length = firstFault + time.Duration(60+d.IntN(300))*time.Second
	d.add(0, "the first view is saved", (*fleet).backup)
	d.add(firstFault-time.Second, "the store is saved", (*fleet).backup)
	for range faults {
		d.fault(d.firstFaults())
	}
}

// throwSecond decides on the peer filter, and on faults that came later.
func (s *schedule) throwSecond() {
	d := dice{rand.New(rand.NewPCG(s.seed, 2)), s}
	s.open = d.IntN(8) == 0
	for range d.IntN(5) {
		d.fault(d.secondFaults())
	}
}

// configs are networks with hardly more subnets than there are hosts, so that these meet.
func configs(hosts int) []string {
	bits := 1
	for 1<<bits < hosts+hosts/2+2 {
		bits++
	}
	v4 := fmt.Sprintf(`"Network":"10.5.0.0/%d","SubnetMin":"10.5.0.0","SubnetLen":24`, 24-bits)
	v6 := fmt.Sprintf(`"EnableIPv6":true,"IPv6Network":"fc00:5::/%d","IPv6SubnetMin":"fc00:5::","IPv6SubnetLen":64`, 64-bits)
	return []string{
		`{` + v4 + `,"Backend":{"Type":"vxlan"}}`,
		`{` + v4 + `,` + v6 + `,"Backend":{"Type":"vxlan"}}`,
		`{` + v4 + `,` + v6 + `,"Backend":{"Type":"vxlan","DirectRouting":true}}`,
		`{` + v4 + `,"Backend":{"Type":"host-gw"}}`,
		`{"EnableIPv4":false,` + v6 + `,"Backend":{"Type":"vxlan"}}`,
	}
}

func (d dice) add(at time.Duration, text string, do func(*fleet)) {
	d.events = append(d.events, event{at, text, do})
}

// when is a time for a fault.
func (d dice) when() time.Duration {
	return firstFault + time.Duration(d.Int64N(int64(d.length-firstFault))).Round(time.Millisecond)
}

// spell is how long a fault lasts: often longer than a lease.
func (d dice) spell() time.Duration {
	return time.Duration(float64(d.ttl) * (0.05 + 2*d.Float64()*d.Float64())).Round(time.Millisecond)
}

// chance is a fault and how often it is thrown.
type chance struct {
	weight int
	throw  func(at time.Duration, h int)
}

// firstFaults are not to be changed, nor secondFaults: named seeds hang on them.
func (d dice) firstFaults() []chance {
	return []chance{
		{6, d.crash}, {3, d.crashMidway}, {2, d.crashUnanswered}, {3, d.reboot}, {2, d.rebootAlone},
		{6, d.cut}, {4, d.stopped}, {2, d.unreachable}, {2, d.lagging}, {2, d.mute}, {2, d.outage},
		{8, d.tamper}, {3, d.move}, {4, d.poison}, {2, d.wipe}, {2, d.restore}, {1, d.reform}, {1, d.clone}, {2, d.save},
	}
}

func (d dice) secondFaults() []chance {
	return []chance{{3, d.compactedUnseen}, {1, d.compacted}, {3, d.sleep}, {2, d.tamperFilter}}
}

func (d dice) fault(all []chance) {
	sum := 0
	for _, c := range all {
		sum += c.weight
	}
	n := d.IntN(sum)
	for _, c := range all {
		if n -= c.weight; n < 0 {
			c.throw(d.when(), d.IntN(d.hosts))
			return
		}
	}
}
