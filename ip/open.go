package ip

import (
	"net/netip"
	"slices"
	"strings"
)

// DockerUserChain is where Docker lets others put their rules, before its own.
const DockerUserChain = "DOCKER-USER"

// Blockade is a chain that drops flows and will not be opened.
type Blockade struct {
	At     Place
	Hook   Hook // from which the chain was reached
	Flows  []Flow
	Shared bool // the chain could be opened, were it not for a rule that comes first
	Sure   bool // false: a rule that is not understood may let them pass
	UFW    bool // ufw(8) has chains in the table
}

// Passage is how flows get through the filters of others.
type Passage struct {
	Openings  []Opening
	Marked    []Flow     // need Mark on their packets
	Blockades []Blockade // and where they do not get through
}

// Open finds a passage for the flows. Those within this host are followed where they are forwarded only: before, destinations are not
// translated yet, and what is dropped for coming from a wrong bridge shall be.
//
// Chains of iptables are meant to be shared, and are opened: in DOCKER-USER where that helps, else at the head of the
// base chain. Flows to or from anywhere are let through after the rules that are there, and only before them where none decides about a
// part of what they are. Other chains belong to the program that made them, and an accept anywhere else does not undo their drop. But
// some accept a mark, such as Docker's if told to.
func Open(filters []Filter, flows []Flow) Passage {
	var p Passage
	for _, flow := range flows {
		for _, base := range filters {
			if !flow.comesTo(base) || base.Hook == AtPrerouting && flow.Local {
				continue
			}
			f := flow.at(base.Hook)
			o, ok := open(filters, base.Place, f)
			if o != (Opening{}) && !slices.Contains(p.Openings, o) {
				p.Openings = append(p.Openings, o)
			}
			switch {
			case ok:
			case accepts(filters, base, f):
				p.Marked = append(p.Marked, flow)
			default:
				p.Blockades = block(p.Blockades, filters, base, f)
			}
		}
	}
	return p
}

// OpenLast returns the openings that let out flows to or from anywhere which come to the end of a chain of iptables and would
// be dropped there. Rules that decide about them come first.
func OpenLast(filters []Filter, flows []Flow) []Opening {
	closed := closeAll(filters)
	var openings []Opening
	for _, flow := range flows {
		for _, base := range closed {
			if base.Hook != AtForward || !shared(base.Place) || base.Family != FamilyOf(flow.Src.Addr()) {
				continue
			}
			o := flow.opening(base.Place)
			if outcome, _ := Trace(closed, base, flow); outcome == Passes || slices.Contains(openings, o) {
				continue
			}
			open := with(closed, o)
			if outcome, _ := Trace(open, find(open, base.Place), flow); outcome == Passes {
				openings = append(openings, o)
			}
		}
	}
	return openings
}

// unbounded reports whether the flow is to or from anywhere: a mark on it would be on what nobody asks for here.
func (f Flow) unbounded() bool { return f.Src.Bits() == 0 || f.Dst.Bits() == 0 }

// Blocked is where flows end once the openings are made.
func Blocked(filters []Filter, openings []Opening, flows []Flow) []Blockade {
	filters = closeAll(filters)
	for _, o := range openings {
		filters = with(filters, o)
	}
	var blockades []Blockade
	for _, flow := range flows {
		for _, base := range filters {
			if base.Hook == AtForward && (base.Family == 0 || base.Family == FamilyOf(flow.Src.Addr())) {
				blockades = block(blockades, filters, base, flow)
			}
		}
	}
	return blockades
}

// accepts reports whether the base chain lets the flow pass once it is marked, which Tulle does where it is forwarded.
func accepts(filters []Filter, base Filter, flow Flow) bool {
	if flow.unbounded() {
		return false
	}
	flow.Mark = Mark
	outcome, _ := Trace(filters, base, flow)
	return outcome == Passes && base.Hook == AtForward
}

// block adds the chain in which the flow ends.
func block(blockades []Blockade, filters []Filter, base Filter, flow Flow) []Blockade {
	outcome, at := Trace(filters, base, flow)
	if outcome == Passes {
		return blockades
	}
	i := slices.IndexFunc(blockades, func(b Blockade) bool { return b.At == at && b.Hook == base.Hook })
	if i < 0 {
		i = len(blockades)
		blockades = append(blockades, Blockade{At: at, Hook: base.Hook, Shared: shared(base.Place), UFW: hasUFW(filters, at)})
	}
	blockades[i].Flows = append(blockades[i].Flows, flow)
	blockades[i].Sure = blockades[i].Sure || outcome == Dropped
	return blockades
}

// hasUFW reports whether there are chains of ufw(8) in the table of a place. Their names begin so, also those for IPv6.
func hasUFW(filters []Filter, p Place) bool {
	return slices.ContainsFunc(filters, func(f Filter) bool {
		other := f.Place
		other.Chain = p.Chain
		return other == p && strings.HasPrefix(f.Chain, "ufw")
	})
}

// comesTo reports whether packets of the flow come to a base chain.
func (f Flow) comesTo(base Filter) bool {
	if base.Family != 0 && base.Family != FamilyOf(f.Src.Addr()) {
		return false
	}
	switch base.Hook {
	case AtPrerouting:
		return f.Port == 0 || f.Inbound
	case AtForward:
		return f.Port == 0
	case AtInput:
		return f.Port != 0 && f.Inbound
	case AtOutput:
		return f.Port != 0 && !f.Inbound
	}
	return false
}

// at is the flow as it shows at a hook: before routing, nobody knows where a packet leaves.
func (f Flow) at(h Hook) Flow {
	if h == AtPrerouting {
		f.Out = ""
	}
	return f
}

// open returns the opening that the flow needs to pass the base chain, zero if it passes anyway or none helps; false if
// the flow is dropped all the same. Where somebody has put a rule before an opening, that is how it shall be.
func open(filters []Filter, base Place, flow Flow) (Opening, bool) {
	passes := func(filters []Filter) bool {
		outcome, _ := Trace(filters, find(filters, base), flow)
		return outcome == Passes
	}
	closed := closeAll(filters)
	if passes(closed) {
		return Opening{}, true
	}
	if !shared(base) {
		return Opening{}, false
	}
	user := base
	user.Chain = DockerUserChain
	candidates := []Opening{flow.opening(user), flow.opening(base)}
	if flow.unbounded() {
		if _, _, picked := trace(closed, find(closed, base), flow); picked && !flow.Known {
			candidates = nil
		}
		candidates = append([]Opening{flow.lastOpening(base)}, candidates...)
	}
	for _, o := range candidates {
		if !passes(with(closed, o)) {
			continue
		}
		there := slices.Contains(find(filters, o.Place).Openings(), o)
		return o, !there || passes(filters)
	}
	return Opening{}, false
}

// lastOpening is what lets a flow to or from anywhere pass a chain after the rules that are there.
func (f Flow) lastOpening(at Place) Opening {
	return Opening{Place: at, Src: limited(f.Src), Dst: limited(f.Dst), Known: f.Known, DNAT: f.DNAT}
}

// opening is what lets the flow pass a chain.
func (f Flow) opening(at Place) Opening {
	o := Opening{Place: at, Src: limited(f.Src), Dst: limited(f.Dst), Known: f.Known, DNAT: f.DNAT}
	switch {
	case f.Inbound, f.Local && f.In != "" && f.In != f.Out: // wherever to
		o.In = f.In
	case f.Local:
		o.In, o.Out = f.In, f.Out
	default:
		o.Out = f.Out
	}
	return o
}

// limited is the prefix as rules have it, which do not name that of all addresses.
func limited(p netip.Prefix) netip.Prefix {
	if p.Bits() == 0 {
		return netip.Prefix{}
	}
	return p
}

// shared reports whether the base chain is one of iptables', to which anybody may add.
func shared(p Place) bool {
	return p.iptables() && slices.Contains([]string{"PREROUTING", "FORWARD"}, p.Chain)
}

// closeAll returns the filters without any opening.
func closeAll(filters []Filter) []Filter {
	out := slices.Clone(filters)
	for i, f := range out {
		out[i].Rules = without(f.Rules, func(r FilterRule) bool { return r.Ours })
	}
	return out
}

// with returns the filters with o in its chain.
func with(filters []Filter, o Opening) []Filter {
	out := slices.Clone(filters)
	for i, f := range out {
		if f.Place == o.Place {
			out[i].Rules = o.PutInto(f.Rules)
		}
	}
	return out
}

func find(filters []Filter, p Place) Filter {
	for _, f := range filters {
		if f.Place == p {
			return f
		}
	}
	return Filter{Place: p}
}
