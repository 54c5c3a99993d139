package web

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"tulle/subnet"
)

// Bounds on what is sent of who cannot reach whom: whoever may write to the store can write any number of complaints.
const (
	mostPairs    = 100_000
	mostRows     = 200
	mostSuspects = 20
)

// How bad it is between two hosts.
const (
	narrowPair = 1 // large packets do not arrive
	silentPair = 2 // none does
)

// reach is who cannot reach whom.
type reach struct {
	Asked    int       `json:"asked"`    // hosts that can be asked whether packets arrive
	Pairs    [][3]int  `json:"pairs"`    // who, whom, by their places among the hosts, and how bad it is
	Rows     []badWay  `json:"rows"`     // the worst
	Ways     int       `json:"ways"`     // of which Rows are some
	Suspects []suspect `json:"suspects"` // hosts that several others do not reach
	More     int       `json:"more"`     // peers that hosts count and do not name
	Odd      int       `json:"odd"`      // complaints that no host can have, or about no host: passed over
}

// badWay is one way on which packets do not arrive.
type badWay struct {
	From   int    `json:"from"` // place among the hosts
	To     int    `json:"to"`
	Family string `json:"family"`
	Way    string `json:"way"`
	State  string `json:"state"`
	Size   int    `json:"size"` // bytes of the largest packet that arrives; 0: not known
	Full   int    `json:"full"`
	Since  string `json:"since"`
}

// suspect is a host that others do not reach.
type suspect struct {
	Host   int  `json:"host"` // place among the hosts
	Hosts  int  `json:"hosts"`
	Silent bool `json:"silent"` // and that says nothing of others
}

// reachOf also counts in hosts what they say of each other.
func reachOf(f facts, hosts []host) reach {
	r := reach{Pairs: [][3]int{}, Rows: []badWay{}, Suspects: []suspect{}}
	for _, l := range f.set.Leases {
		if l.Attrs.Probe.Port != 0 {
			r.Asked++
		}
	}
	places := make(map[string]int, len(hosts))
	for i, h := range hosts {
		places[h.Lease] = i
	}
	ways := map[badWay]badWay{} // by who, whom, family and way
	for _, c := range f.complaints {
		from, ok := places[c.Lease]
		if !ok || f.set.Leases[from].Attrs.Node != c.Node {
			r.Odd++ // the host has left, or never was
			continue
		}
		r.More += max(0, min(c.More, math.MaxInt32))
		for _, p := range c.Peers {
			to, ok := places[p.Lease]
			w := badWay{from, to, p.Family, p.Way, p.State, p.Size, p.Full, shownTime(p.Since)}
			if !ok || from == to || !w.sound() {
				r.Odd++
				continue
			}
			ways[w.id()] = w
		}
	}
	for _, w := range ownWays(f, hosts, places) {
		ways[w.id()] = w // of what this host sees itself, its complaint is the older word
	}
	all := make([]badWay, 0, len(ways))
	pairs := map[[2]int]int{}
	for _, w := range ways {
		all = append(all, w)
		pair := [2]int{w.From, w.To}
		pairs[pair] = max(pairs[pair], w.level())
	}
	for pair, level := range pairs {
		hosts[pair[0]].Tells++
		hosts[pair[1]].Told++
		r.Pairs = append(r.Pairs, [3]int{pair[0], pair[1], level})
	}
	slices.SortFunc(r.Pairs, func(a, b [3]int) int { return cmp.Or(cmp.Compare(b[2], a[2]), slices.Compare(a[:], b[:])) })
	slices.SortFunc(all, func(a, b badWay) int {
		return cmp.Or(cmp.Compare(b.level(), a.level()), cmp.Compare(hosts[b.To].Told, hosts[a.To].Told), cmp.Compare(a.To, b.To), cmp.Compare(a.From, b.From),
			strings.Compare(a.Family, b.Family), strings.Compare(b.Way, a.Way))
	})
	r.Ways = len(all)
	r.Rows = append(r.Rows, all[:min(len(all), mostRows)]...)
	r.Pairs = r.Pairs[:min(len(r.Pairs), mostPairs)]
	r.Suspects = append(r.Suspects, suspectsOf(hosts)...)
	return r
}

func suspectsOf(hosts []host) (s []suspect) {
	for i, h := range hosts {
		if h.Told > 1 {
			s = append(s, suspect{i, h.Told, h.Tells == 0})
		}
	}
	slices.SortFunc(s, func(a, b suspect) int { return cmp.Or(cmp.Compare(b.Hosts, a.Hosts), cmp.Compare(a.Host, b.Host)) })
	return s[:min(len(s), mostSuspects)]
}

// ownWays are those of this host, as its tulled has them.
func ownWays(f facts, hosts []host, places map[string]int) (ways []badWay) {
	from := slices.IndexFunc(hosts, func(h host) bool { return h.Here })
	if from < 0 {
		return nil
	}
	for _, p := range f.here.peers.Peers {
		to, ok := places[p.Lease]
		for _, v := range p.Verdicts {
			if w := (badWay{from, to, v.Family, v.Way, v.State, v.Size, v.Full, shownTime(v.Since)}); ok && from != to && w.sound() {
				ways = append(ways, w)
			}
		}
	}
	return ways
}

// id is what tells ways apart.
func (w badWay) id() badWay { return badWay{From: w.From, To: w.To, Family: w.Family, Way: w.Way} }

func (w badWay) level() int {
	if w.State == subnet.PeerUnreachable {
		return silentPair
	}
	return narrowPair
}

// sound reports whether a way can be, and is a bad one.
func (w badWay) sound() bool {
	const largest = math.MaxUint16 // an IPv4 packet (RFC 791, section 3.1), and no probe is larger
	return (w.Family == "ipv4" || w.Family == "ipv6") && (w.Way == "underlay" || w.Way == "fabric") && (w.State == subnet.PeerUnreachable || w.State == subnet.PeerNarrow) &&
		w.Size >= 0 && w.Size <= largest && w.Full >= 0 && w.Full <= largest
}

func shownTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
