package kernel

import (
	"bytes"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"

	"tulle/ip"
)

// applyOpening puts an opening into its chain, or takes it away. The rule consists of what iptables-nft(8)
// makes of the same match, so that it goes on listing the table.
func applyOpening(c *nftables.Conn, verb ip.Verb, o ip.Opening) error {
	table := &nftables.Table{Family: tableFamily(o.Family), Name: o.Table}
	chain := &nftables.Chain{Table: table, Name: o.Chain}
	if verb == ip.Delete {
		return deleteOpening(c, table, chain, o)
	}
	rule := &nftables.Rule{Table: table, Chain: chain, Exprs: encodeOpening(o), UserData: openingMark()}
	if o.Last() {
		c.AddRule(rule)
	} else {
		c.InsertRule(rule)
	}
	return c.Flush()
}

func deleteOpening(c *nftables.Conn, table *nftables.Table, chain *nftables.Chain, o ip.Opening) error {
	rules, err := c.GetRules(table, chain)
	if err != nil {
		return err
	}
	found := false
	for _, r := range rules {
		rule := decodeFilterRule(o.Family, r.Exprs)
		rule.Ours = true
		if have, ok := (ip.Filter{Place: o.Place}).Opening(rule); ok && have == o && marked(r) {
			r.Table, r.Chain = table, chain
			found = true
			if err := c.DelRule(r); err != nil {
				return err
			}
		}
	}
	if !found {
		return nil
	}
	return c.Flush()
}

// openingMark is the comment as nft(8) and iptables-nft(8) store it.
func openingMark() []byte { return userdata.AppendString(nil, userdata.TypeComment, ip.OpeningComment) }

// marked reports whether a rule carries the mark of an opening, as Tulle writes it or as iptables-restore(8) writes
// back what iptables-save(8) has read.
func marked(r *nftables.Rule) bool {
	if bytes.Equal(r.UserData, openingMark()) {
		return true
	}
	for _, e := range r.Exprs {
		if m, ok := e.(*expr.Match); ok && m.Name == "comment" {
			comment, ok := m.Info.(*xt.Comment)
			return ok && *comment == ip.OpeningComment
		}
	}
	return false
}

func encodeOpening(o ip.Opening) []expr.Any {
	exprs := append(encodeLink(expr.MetaKeyIIFNAME, o.In), encodeLink(expr.MetaKeyOIFNAME, o.Out)...)
	src, dst := addressOffsets(o.Family)
	exprs = append(exprs, encodePrefix(o.Family, o.Src, expr.CmpOpEq, src)...)
	exprs = append(exprs, encodePrefix(o.Family, o.Dst, expr.CmpOpEq, dst)...)
	if o.Known {
		exprs = append(exprs, stateMatch(uint16(expr.CtStateBitRELATED|expr.CtStateBitESTABLISHED)))
	}
	if o.DNAT {
		exprs = append(exprs, stateMatch(stateDNAT))
	}
	return append(exprs, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
}

// Bits that a word of states has in iptables only: the connection's source or destination was translated
// (XT_CONNTRACK_STATE_SNAT and _DNAT in linux/netfilter/xt_conntrack.h).
const stateSNAT, stateDNAT = 1 << 6, 1 << 7

// stateMatch is iptables' "-m conntrack --ctstate".
func stateMatch(states uint16) *expr.Match {
	var info xt.ConntrackMtinfo3
	info.MatchFlags = uint16(xt.ConntrackState)
	info.StateMask = states
	return &expr.Match{Name: conntrackMatch, Rev: 3, Info: &info}
}

// conntrackMatch is the name of the extension of iptables that looks at connections.
const conntrackMatch = "conntrack"

// statesOf returns the states that a match asks for; false if it asks for something else, or for more.
func statesOf(m *expr.Match) (states uint16, ok bool) {
	info, ok := m.Info.(*xt.ConntrackMtinfo3)
	if !ok || m.Name != conntrackMatch || info.InvertFlags != 0 ||
		info.MatchFlags&^uint16(xt.ConntrackStateAlias) != uint16(xt.ConntrackState) {
		return 0, false
	}
	return info.StateMask, true
}

// encodeLink compares the name of an interface, if there is one.
func encodeLink(key expr.MetaKey, name string) []expr.Any {
	if name == "" {
		return nil
	}
	return []expr.Any{
		&expr.Meta{Key: key, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: append([]byte(name), 0)},
	}
}
