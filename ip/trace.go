package ip

import (
	"net/netip"
	"slices"
	"strings"
)

// Flow is the first packets of all connections from Src to Dst that come in through one interface and leave through
// another, or with Known the packets after the first. An empty name stands for an interface that is not known.
type Flow struct {
	Src netip.Prefix
	Dst netip.Prefix
	In  string
	Out string

	Known   bool
	DNAT    bool   // the destination was translated on this host, to Dst
	Inbound bool   // In leads to other hosts; else Out does
	Local   bool   // neither does: In and Out, where named, lead to containers of this host
	Mark    uint32 // that Tulle has put on the packets

	// UDP destination port of a tunnel's packets, which hosts exchange; else zero. Each of them looks like the first of a connection, for answers come to no port that
	// packets came from.
	Port uint16
}

// Outcome is what becomes of a flow.
type Outcome uint8

// The outcomes.
const (
	Passes  Outcome = iota
	Unsure          // dropped, unless a rule that is not understood accepts it
	Dropped         // wholly, or for some addresses in it
)

// dockerChain is where Docker decides about packets to its bridges. Docker 28.0 asks an ipset whether they go there,
// which those to this host's containers do.
const dockerChain = "DOCKER"

// maxDepth bounds how deep chains are followed; the kernel allows 16 jumps (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// Trace follows flow through the base chain base, whose table's chains are among filters. If the flow does not pass, at
// is the chain in which it ends.
//
// Rules that name ports, marks and the like decide about packets that nobody asks for here, unless the flow is a tunnel's: they are passed over. So are
// drops for a part of the flow's addresses, which somebody wanted, except in the form in which Docker keeps others than
// the bridge from a container: address of the container, any interface but the bridge.
func Trace(filters []Filter, base Filter, flow Flow) (outcome Outcome, at Place) {
	outcome, at, _ = trace(filters, base, flow)
	return outcome, at
}

// trace is Trace, and tells whether a rule drops a part of the flow that was passed over.
func trace(filters []Filter, base Filter, flow Flow) (outcome Outcome, at Place, picked bool) {
	t := tracing{filters: filters, flow: flow}
	switch t.walk(base, 0) {
	case Drop:
		outcome, at = Dropped, t.at
	case Accept:
		return Passes, Place{}, t.picked
	default:
		if base.Policy != Drop {
			return Passes, Place{}, t.picked
		}
		outcome, at = Dropped, base.Place
	}
	if t.unsure {
		outcome = Unsure
	}
	return outcome, at, t.picked
}

type tracing struct {
	filters []Filter
	flow    Flow
	unsure  bool // a rule that is not understood might have accepted
	picked  bool // a rule drops a part of the flow
	at      Place
}

// walk returns Accept or Drop, or an empty verdict if the chain leaves the decision to its caller.
func (t *tracing) walk(chain Filter, depth int) Verdict {
	if depth > maxDepth {
		return ""
	}
	for _, r := range chain.Rules {
		hit := t.hits(r)
		if hit == never {
			continue
		}
		switch r.Verdict {
		case Accept:
			if hit == always {
				return Accept
			}
			t.unsure = t.unsure || hit == perhaps
		case Drop:
			if hit == always || hit == partly && r.In.Not {
				t.at = chain.Place
				return Drop
			}
			t.picked = true
		case Return:
			if hit == always {
				return ""
			}
			t.unsure = t.unsure || hit == perhaps
		case Jump, Goto:
			if r.Target == dockerChain {
				hit = always
			}
			v := t.follow(chain, r.Target, depth)
			t.unsure = t.unsure || v == Accept && hit == perhaps
			if hit == always && (v != "" || r.Verdict == Goto) {
				return v
			}
		}
	}
	return ""
}

func (t *tracing) follow(from Filter, target string, depth int) Verdict {
	place := from.Place
	place.Chain = target
	i := slices.IndexFunc(t.filters, func(f Filter) bool { return f.Place == place })
	if i < 0 {
		return ""
	}
	return t.walk(t.filters[i], depth+1)
}

// hit is how many packets of a flow a rule matches.
type hit uint8

const (
	never   hit = iota
	perhaps     // it depends on what is not understood
	partly      // those to or from some addresses
	always
)

func (t *tracing) hits(r FilterRule) hit {
	h := always
	if r.Known && !t.flow.Known || r.DNAT && !t.flow.DNAT || r.Family != 0 && r.Family != FamilyOf(t.flow.Src.Addr()) {
		return never
	}
	for _, m := range []hit{
		r.Src.hits(t.flow.Src), r.Dst.hits(t.flow.Dst), r.In.hits(t.flow.In), r.Out.hits(t.flow.Out),
	} {
		h = min(h, m)
	}
	if r.More || r.Mark&^t.flow.Mark != 0 {
		h = min(h, perhaps)
	}
	if t.flow.Port == 0 {
		if r.New || r.Protocol != 0 || r.Ports != (Ports{}) {
			h = min(h, perhaps)
		}
		return h
	}
	if r.Protocol != 0 && r.Protocol != udp || !r.Ports.contain(t.flow.Port) {
		return never
	}
	return h
}

// udp is its number in the IP header (RFC 768).
const udp = 17

func (p Ports) contain(port uint16) bool { return p == Ports{} || p.First <= port && port <= p.Last }

func (m Match) hits(p netip.Prefix) hit {
	h := partly
	switch {
	case !m.Prefix.IsValid():
		return always
	case Contains(m.Prefix, p):
		h = always
	case !m.Prefix.Overlaps(p):
		h = never
	}
	if m.Not {
		h = always - h
		if h != always && h != never {
			h = partly
		}
	}
	return h
}

func (m LinkMatch) hits(name string) hit {
	if m.Name == "" {
		return always
	}
	if name == "" {
		return perhaps
	}
	prefix, wild := strings.CutSuffix(m.Name, "*")
	if (m.Name == name || wild && strings.HasPrefix(name, prefix)) != m.Not {
		return always
	}
	return never
}
