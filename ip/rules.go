package ip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// TableName is the name of Tulle's nftables table, one in each family that a network uses.
const TableName = "tulle"

// TableOf is the name of a network's own table, TableName or GuardTable with the name of the network, if it has one.
func TableOf(base, net string) string {
	if net == "" {
		return base
	}
	return base + "." + net
}

// ParseTable is the inverse of TableOf. It returns false for the tables of others.
func ParseTable(name string) (base, net string, ok bool) {
	base, net, named := strings.Cut(name, ".")
	return base, net, (base == TableName || base == GuardTable) && named == (net != "")
}

// tableID is the identity of a network's own table of one kind.
type tableID struct {
	net    string
	family Family
}

func compareTableID(a, b tableID) int {
	return cmp.Or(cmp.Compare(a.net, b.net), cmp.Compare(a.family, b.family))
}

// Table is the whole content of a network's nftables table in one family. It is replaced as a whole, in one transaction.
type Table struct {
	Net    string // name of the network on this host; the only one has none
	Family Family
	Rules  []Rule // in the order in which they are tried, within each chain
}

func (t Table) id() tableID { return tableID{t.Net, t.Family} }

// Equal reports whether t and u hold the same rules in the same order within each chain; chains know no order.
func (t Table) Equal(u Table) bool {
	return t.id() == u.id() && slices.Equal(byChain(t.Rules), byChain(u.Rules))
}

// Counts reports whether a rule of the table counts what it drops.
func (t Table) Counts() bool {
	return slices.ContainsFunc(t.Rules, func(r Rule) bool { return r.Verdict == DropSpoof })
}

func byChain(rules []Rule) []Rule {
	return slices.SortedStableFunc(slices.Values(rules), func(a, b Rule) int { return cmp.Compare(a.Chain, b.Chain) })
}

// Chain is a base chain of Tulle's table.
type Chain string

// The chains and the hooks they sit on (nft(8), "Chains").
const (
	Keeping     Chain = "keeping"     // type nat, hook postrouting, priority srcnat - 1: before others masquerade
	Postrouting Chain = "postrouting" // type nat, hook postrouting, priority srcnat
	Forward     Chain = "forward"     // type filter, hook forward, priority filter, policy accept
	Marking     Chain = "marking"     // the same, priority filter - 1: before others look at the mark
)

// Verdict is what a rule does with a packet that it matches.
type Verdict string

// The verdicts, in nft(8) syntax.
const (
	Accept     Verdict = "accept"
	Masquerade Verdict = "masquerade"
	KeepSource Verdict = "snat to its own source"           // of a rule with a Src: once translated, a packet comes to no other chain of type nat
	SetMark    Verdict = "meta mark set meta mark | 0x2000" // Mark
	DropSpoof  Verdict = "counter name spoofed drop"        // CountSpoofed
)

// CountSpoofed is the counter in a Table of what DropSpoof has dropped.
const CountSpoofed = "spoofed"

// Rule matches packets by mark, interface, source and destination. A zero Match matches every packet.
type Rule struct {
	Chain    Chain
	Mark     uint32 // bits that must be set in the firewall mark
	In       string // interface; empty: any
	Src      Match
	Dst      Match
	Unrouted bool // this host would not answer the source by the interface that the packet came in through
	Verdict  Verdict
}

// unrouted is Rule.Unrouted in nft(8) syntax: the reverse path filter of RFC 3704, strict.
const unrouted = "fib saddr . iif oif missing"

// Match is a prefix that an address must lie in, or with Not must not lie in.
type Match struct {
	Prefix netip.Prefix
	Not    bool
}

// Text is the rule in nft(8) syntax, without its table and chain.
func (r Rule) Text() string {
	var parts []string
	if r.Mark != 0 {
		parts = append(parts, fmt.Sprintf("meta mark & %#x == %#x", r.Mark, r.Mark))
	}
	if r.In != "" {
		parts = append(parts, fmt.Sprintf("iifname %q", r.In))
	}
	for _, m := range []struct {
		field string
		Match
	}{{"saddr", r.Src}, {"daddr", r.Dst}} {
		if !m.Prefix.IsValid() {
			continue
		}
		not := ""
		if m.Not {
			not = "!= "
		}
		parts = append(parts, fmt.Sprintf("%s %s %s%s", nftFamily(FamilyOf(m.Prefix.Addr())), m.field, not, m.Prefix))
	}
	if r.Unrouted {
		parts = append(parts, unrouted)
	}
	verdict := string(r.Verdict)
	if r.Verdict == KeepSource {
		verdict = fmt.Sprintf("snat to %s saddr", nftFamily(FamilyOf(r.Src.Prefix.Addr())))
	}
	return strings.Join(append(parts, verdict), " ")
}

func nftFamily(f Family) string {
	if f == IPv4 {
		return "ip"
	}
	return "ip6"
}
