package ip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Engine is a packet filter of the kernel. A packet passes all of them, and each can drop it.
type Engine string

// The engines.
const (
	NFTables Engine = "nft"             // written to by nft(8) and by iptables-nft(8)
	IPTables Engine = "iptables-legacy" // written to by iptables-legacy(8) only; tables exist once somebody has used them
)

// Place is a chain of a packet filter.
type Place struct {
	Engine Engine
	Family Family // zero for a table of both families, inet in nft(8)
	Table  string
	Chain  string
}

// String names the place as the operator's program does.
func (p Place) String() string {
	if p.Engine == IPTables {
		return p.program() + " table " + ShellWord(p.Table) + " chain " + ShellWord(p.Chain)
	}
	return "nft table " + p.space() + " " + ShellWord(p.Table) + " chain " + ShellWord(p.Chain)
}

// program is the one that writes to the tables of iptables.
func (p Place) program() string {
	name := nftFamily(p.Family) + "tables"
	if p.Engine == IPTables {
		name += "-legacy"
	}
	return name
}

// List is the command that lists the chain.
func (p Place) List() string {
	if p.iptables() {
		return p.program() + " -t " + p.Table + " -S " + ShellWord(p.Chain)
	}
	return "nft list chain " + p.nft()
}

// Accept is the command that lets packets from src to dst through at the head of an nft chain.
func (p Place) Accept(src, dst netip.Prefix) string {
	r := Rule{Src: Match{Prefix: src}, Dst: Match{Prefix: dst}, Verdict: Accept}
	return "nft insert rule " + p.nft() + " " + r.Text()
}

// AcceptPort is the command that lets packets to a UDP port through at the head of the chain.
func (p Place) AcceptPort(port uint16) string {
	if p.iptables() {
		return fmt.Sprintf("%s -t %s -I %s -p udp --dport %d -j ACCEPT", p.program(), p.Table, ShellWord(p.Chain), port)
	}
	return fmt.Sprintf("nft insert rule %s udp dport %d accept", p.nft(), port)
}

// nft is how nft(8) addresses the chain, for a shell.
func (p Place) nft() string {
	return p.space() + " " + nftWord(p.Table) + " " + nftWord(p.Chain)
}

// nftWord quotes a name for nft(8) and a shell. nft(8) joins its arguments and reads them anew, so that a name with a semicolon would
// begin a command of its own. It knows no way to write such a name, but refuses the whole line if one stands in quotes.
func nftWord(name string) string {
	for i, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '_' || r == '.'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789/-", r)) {
			return ShellWord(`"` + strings.ReplaceAll(name, `"`, "?") + `"`)
		}
	}
	return name
}

// space is nft(8)'s word for the family of a table.
func (p Place) space() string {
	if p.Family == 0 {
		return "inet"
	}
	return nftFamily(p.Family)
}

// iptables reports whether p is in a table that iptables-nft(8) writes to, or iptables-legacy(8).
func (p Place) iptables() bool {
	return p.Family != 0 && slices.Contains([]string{"raw", "mangle", "nat", "filter", "security"}, p.Table)
}

// Hook is a point in the way of a packet at which chains are called.
type Hook string

// The hooks that a packet between containers of two hosts passes on its way through one of them, and those for the packets of a tunnel, which the
// hosts themselves send and receive.
const (
	AtPrerouting Hook = "prerouting"
	AtForward    Hook = "forward"
	AtInput      Hook = "input"
	AtOutput     Hook = "output"
)

// Filter is a chain that is not Tulle's and that packets between containers, or those of a tunnel, may come through.
type Filter struct {
	Place
	Hook   Hook    // empty: only reached from other chains
	Policy Verdict // Accept or Drop, of what no rule decides; empty without a hook
	Rules  []FilterRule
}

// FilterRule is what Tulle understands of a rule.
type FilterRule struct {
	Family   Family // zero: both
	Src      Match
	Dst      Match
	In       LinkMatch
	Out      LinkMatch
	Mark     uint32  // bits that must be set in the firewall mark
	Known    bool    // matches packets of known connections only
	New      bool    // matches first packets of connections only
	DNAT     bool    // matches packets of connections only whose destination was translated
	Protocol uint8   // of what the packets carry (IANA protocol numbers); zero: any
	Ports    Ports   // of the destination
	More     bool    // has conditions that are not understood
	Verdict  Verdict // empty: the next rule is tried
	Target   string  // chain to Jump or Goto
	Ours     bool    // an Opening
}

// LinkMatch compares the name of an interface, of which a final * stands for anything. Empty matches every interface.
type LinkMatch struct {
	Name string
	Not  bool
}

// Ports are those from the first to the last. The zero value stands for all.
type Ports struct{ First, Last uint16 }

// Verdicts of rules that are not Tulle's.
const (
	Drop   Verdict = "drop" // or reject
	Return Verdict = "return"
	Jump   Verdict = "jump"
	Goto   Verdict = "goto"
)

// Opening is a rule of Tulle's in a chain of somebody else: it accepts packets that the chain would drop. It carries
// OpeningComment.
type Opening struct {
	Place
	Src   netip.Prefix // zero: any
	Dst   netip.Prefix // zero: any
	In    string       // interface; empty: any
	Out   string       // interface; empty: any
	Known bool         // packets of known connections only
	DNAT  bool         // packets of connections only whose destination was translated
}

// Last reports whether the opening comes after the rules that are there, and not before: one that lets containers out
// of the network through an interface, or answers in, leaves what may be reached there to others.
func (o Opening) Last() bool {
	return !o.Dst.IsValid() && o.In == "" || !o.Src.IsValid() && o.Out == ""
}

// OpeningComment marks openings, together with their form.
const OpeningComment = "tulle"

// Rule is the opening as it shows in a Filter.
func (o Opening) Rule() FilterRule {
	return FilterRule{
		Src: Match{Prefix: o.Src}, Dst: Match{Prefix: o.Dst}, In: LinkMatch{Name: o.In}, Out: LinkMatch{Name: o.Out},
		Known: o.Known, DNAT: o.DNAT, Verdict: Accept, Ours: true,
	}
}

// PutInto returns the rules of a chain with the opening among them.
func (o Opening) PutInto(rules []FilterRule) []FilterRule {
	if o.Last() {
		return append(slices.Clone(rules), o.Rule())
	}
	return slices.Insert(slices.Clone(rules), 0, o.Rule())
}

// Opening returns the opening that rule is, if it is one, in the chain f.
func (f Filter) Opening(rule FilterRule) (Opening, bool) {
	o := Opening{
		Place: f.Place, Src: rule.Src.Prefix, Dst: rule.Dst.Prefix, In: rule.In.Name, Out: rule.Out.Name,
		Known: rule.Known, DNAT: rule.DNAT,
	}
	return o, f.iptables() && rule == o.Rule()
}

// Openings lists those in the chain, each once.
func (f Filter) Openings() []Opening {
	var all []Opening
	for _, r := range f.Rules {
		if o, ok := f.Opening(r); ok && !slices.Contains(all, o) {
			all = append(all, o)
		}
	}
	return all
}

// Reachable picks the filters at a hook and those that their rules lead to. DOCKER-USER is among them in any case: an
// opening may be in it that has outlived Docker.
func Reachable(filters []Filter) []Filter {
	var picked []Filter
	seen := map[Place]bool{}
	var visit func(p Place)
	visit = func(p Place) {
		i := slices.IndexFunc(filters, func(f Filter) bool { return f.Place == p })
		if i < 0 || seen[p] {
			return
		}
		seen[p] = true
		picked = append(picked, filters[i])
		for _, r := range filters[i].Rules {
			p.Chain = r.Target
			visit(p)
		}
	}
	for _, f := range filters {
		if f.Hook != "" || f.Chain == DockerUserChain {
			visit(f.Place)
		}
	}
	return picked
}

func comparePlace(a, b Place) int {
	return cmp.Or(cmp.Compare(a.Engine, b.Engine), cmp.Compare(a.Family, b.Family),
		cmp.Compare(a.Table, b.Table), cmp.Compare(a.Chain, b.Chain))
}

func compareOpening(a, b Opening) int {
	one := func(set bool) int {
		if set {
			return 1
		}
		return 0
	}
	return cmp.Or(comparePlace(a.Place, b.Place), ComparePrefix(a.Src, b.Src), ComparePrefix(a.Dst, b.Dst),
		cmp.Compare(a.In, b.In), cmp.Compare(a.Out, b.Out), one(a.Known)-one(b.Known), one(a.DNAT)-one(b.DNAT))
}

// SortFilters puts filters in canonical order.
func SortFilters(filters []Filter) {
	slices.SortFunc(filters, func(a, b Filter) int { return comparePlace(a.Place, b.Place) })
}
