package kernel

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"tulle/ip"
)

// leftovers are the objects that a flanneld makes in nf_tables in family f, and the chains in which its rules are.
func leftovers(f ip.Family) map[ip.Leftover][]string {
	own := ip.Leftover{Engine: ip.NFTables, Family: f, Table: "flannel-" + f.String()}
	chains := map[ip.Leftover][]string{own: {"postrtg", "forward"}}
	for table, chain := range flannelChains() {
		chains[ip.Leftover{Engine: ip.NFTables, Family: f, Table: table, Chain: chain}] = []string{chain}
	}
	return chains
}

// flannelChains are the chains of flanneld's iptables mode, by their tables.
func flannelChains() map[string]string {
	return map[string]string{"nat": "FLANNEL-POSTRTG", "filter": "FLANNEL-FWD"}
}

// readLeftovers finds the leftovers in table t that name one of our networks: others belong to a flanneld of another
// network, which may be running. A table of flanneld's own without any rule serves nobody: an IPv4-only flanneld makes
// one for IPv6.
func (rd *reading) readLeftovers(c *nftables.Conn, f ip.Family, t *nftables.Table) error {
	for leftover, chains := range leftovers(f) {
		if leftover.Table != t.Name {
			continue
		}
		var rules []*nftables.Rule
		for _, chain := range chains {
			more, err := c.GetRules(t, &nftables.Chain{Name: chain})
			if err != nil {
				return err
			}
			rules = append(rules, more...)
		}
		unused := leftover.Chain == "" && len(rules) == 0
		if unused || slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return rd.namesNetwork(decodeFilterRule(f, r.Exprs)) }) {
			rd.Owned.Leftovers = append(rd.Owned.Leftovers, leftover)
		}
	}
	return nil
}

// deleteLeftover deletes a table, or a chain and the jumps to it, in one transaction.
func deleteLeftover(c *nftables.Conn, l ip.Leftover) error {
	table := &nftables.Table{Family: tableFamily(l.Family), Name: l.Table}
	if l.Chain == "" {
		c.DelTable(table)
		return c.Flush()
	}
	chains, err := chainsOf(c, table)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		rules, err := c.GetRules(table, chain)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if jumpsTo(r, l.Chain) {
				r.Table, r.Chain = table, chain
				if err := c.DelRule(r); err != nil {
					return err
				}
			}
		}
	}
	chain := &nftables.Chain{Table: table, Name: l.Chain}
	c.FlushChain(chain)
	c.DelChain(chain)
	return c.Flush()
}

func jumpsTo(r *nftables.Rule, chain string) bool {
	return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		v, ok := e.(*expr.Verdict)
		return ok && v.Chain == chain && (v.Kind == expr.VerdictJump || v.Kind == expr.VerdictGoto)
	})
}
