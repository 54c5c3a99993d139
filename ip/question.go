package ip

import (
	"fmt"
	"net/netip"
	"strings"
)

// Question is what a kernel is asked about a packet. With a source, and not Taken, the answer is about the whole route (Answer.Also, Answer.Single).
type Question struct {
	Dst netip.Addr
	Src netip.Addr // zero: as the kernel chooses; without In it must be an address of the host
	In  string     // the interface by which the packet comes in; empty: the host itself sends it
	// Taken asks for the one next hop that this very packet takes, if the route has several.
	Taken bool
	Selector
}

// Selector is what routes and policy rules may ask of packets beside addresses and interfaces. What is zero is not there, or asked for.
type Selector struct {
	Mark             uint32
	TOS              uint8
	Protocol         uint8
	SrcPort, DstPort uint16 // the first, where it is a range
}

func (s Selector) String() string {
	var parts []string
	for _, part := range []struct {
		format string
		value  uint32
	}{{"fwmark %#x", s.Mark}, {"tos %#x", uint32(s.TOS)}, {"ipproto %d", uint32(s.Protocol)}, {"sport %d", uint32(s.SrcPort)}, {"dport %d", uint32(s.DstPort)}} {
		if part.value != 0 {
			parts = append(parts, fmt.Sprintf(part.format, part.value))
		}
	}
	return strings.Join(parts, " ")
}

// Answer is what a kernel would do with a packet.
type Answer struct {
	Path             // zero but for Unicast and Local; Source is zero where the question names one
	Kind   RouteType // zero if the kernel does not say
	Table  uint32    // in which the route is, of Unicast alone
	Also   Path      // where some packets go, if the route has several next hops that differ: by another link if there is one
	Single bool      // the route is for this address alone
}

// RouteType is the type of the route that a packet takes.
type RouteType string

// The types, as ip-route(8) names them.
const (
	Unicast     RouteType = "unicast"     // it is sent
	Local       RouteType = "local"       // it has arrived
	Blackhole   RouteType = "blackhole"   // it is dropped; also an IPv4 packet that comes in where its source is not expected (rp_filter)
	Unreachable RouteType = "unreachable" // its sender is told that there is no way
	Prohibit    RouteType = "prohibit"    // its sender is told that it must not
	Unrouted    RouteType = "unrouted"    // there is no route, or a rule says so
)

// Leads reports whether the packet gets somewhere.
func (a Answer) Leads() bool { return a.Kind == Unicast || a.Kind == Local }

// MainTable is where Tulle's routes are, and most others (rtnetlink(7)).
const MainTable uint32 = 254

// RoutingTable is the name of a table for ip-route(8).
func RoutingTable(table uint32) string {
	if table == MainTable {
		return "main"
	}
	return fmt.Sprint(table)
}

func (a Answer) String() string {
	if a.Kind != Unicast {
		return string(a.Kind)
	}
	text := a.Path.hop() + " table " + RoutingTable(a.Table)
	if a.Also.Link != "" {
		text += ", and some " + a.Also.hop()
	}
	return text
}

// hop is the next hop as ip-route(8) has it.
func (p Path) hop() string {
	text := "dev " + ShellWord(p.Link)
	if p.Gateway.IsValid() {
		text = fmt.Sprintf("via %s %s", p.Gateway, text)
	}
	return text
}

// Condition is what a policy rule, or a route, of another program asks of packets before it decides where they go.
type Condition struct {
	Family   Family
	Src, Dst netip.Prefix // invalid: any
	Selector
	What string // as people call it
	Show string // the command that shows it
	// Before is the priority of rules that come before the rule; nil with a route, or if there is none.
	Before *uint32
}

// Matches reports whether the addresses of a packet are as asked for.
func (c Condition) Matches(q Question) bool {
	return FamilyOf(q.Dst) == c.Family && (!c.Dst.IsValid() || c.Dst.Contains(q.Dst)) && (!c.Src.IsValid() || c.Src.Contains(q.Src))
}

// Others is what on a host decides where packets go, beside Tulle's routes.
type Others struct {
	// Conditions are those for some packets only: by more than their addresses, or by addresses in Scope.Networks.
	Conditions []Condition
	// Into are the destinations in Scope.Networks of policy rules and of routes in any table, sorted.
	Into []netip.Prefix
	// Sum is another one after any change of policy rules, and of routes by which packets to the networks, to hosts that were asked about or to addresses of
	// this one may go.
	Sum uint64
}
