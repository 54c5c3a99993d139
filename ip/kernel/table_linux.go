package kernel

import (
	"fmt"

	"github.com/google/nftables"

	"tulle/ip"
)

// baseChains are the chains that Tulle's table may hold.
func baseChains(t *nftables.Table) map[ip.Chain]*nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return map[ip.Chain]*nftables.Chain{
		ip.Keeping: {
			Table: t, Name: string(ip.Keeping), Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: new(*nftables.ChainPriorityNATSource - 1), Policy: &policy,
		},
		ip.Postrouting: {
			Table: t, Name: string(ip.Postrouting), Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &policy,
		},
		ip.Forward: {
			Table: t, Name: string(ip.Forward), Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy,
		},
		ip.Marking: {
			Table: t, Name: string(ip.Marking), Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: new(*nftables.ChainPriorityFilter - 1), Policy: &policy,
		},
	}
}

func tableFamily(f ip.Family) nftables.TableFamily {
	if f == ip.IPv4 {
		return nftables.TableFamilyIPv4
	}
	return nftables.TableFamilyIPv6
}

// replaceTable makes the table t, or deletes it, in one transaction.
func replaceTable(c *nftables.Conn, verb ip.Verb, t ip.Table) error {
	table := &nftables.Table{Family: tableFamily(t.Family), Name: ip.TableOf(ip.TableName, t.Net)}
	var rules []*nftables.Rule
	chains := baseChains(table)
	for _, r := range t.Rules {
		exprs, err := encodeRule(t.Family, r)
		if err != nil {
			return err
		}
		if chains[r.Chain] == nil {
			return fmt.Errorf("rule %q: unknown chain %q", r.Text(), r.Chain)
		}
		rules = append(rules, &nftables.Rule{Table: table, Chain: chains[r.Chain], Exprs: exprs})
	}
	c.AddTable(table) // deleting needs something to delete
	c.DelTable(table)
	if verb == ip.Delete {
		return c.Flush()
	}
	c.AddTable(table)
	if t.Counts() {
		addCounter(c, table, ip.CountSpoofed)
	}
	added := map[*nftables.Chain]bool{}
	for _, r := range rules {
		if !added[r.Chain] {
			added[r.Chain] = true
			c.AddChain(r.Chain)
		}
		c.AddRule(r)
	}
	return c.Flush()
}

// readTables reads our tables in each family, and what a flanneld left behind.
func (rd *reading) readTables(c *nftables.Conn, dumps *socket) error {
	for _, f := range ip.Families() {
		tables, err := c.ListTablesOfFamily(tableFamily(f))
		if err != nil {
			return err
		}
		for _, t := range tables {
			var err error
			switch base, net, ours := ip.ParseTable(t.Name); {
			case !ours:
				err = rd.readLeftovers(c, f, t)
			case base == ip.TableName:
				err = rd.readTable(c, net, f, t)
			default:
				err = rd.readGuard(c, dumps, net, f, t)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// foreign is the verdict of a rule that stands for anything in our table that is not ours: with it the table differs
// from every wanted one, and so is replaced.
const foreign ip.Verdict = "continue comment \"not Tulle's\""

func (rd *reading) readTable(c *nftables.Conn, net string, f ip.Family, t *nftables.Table) error {
	table := ip.Table{Net: net, Family: f}
	if t.Flags != 0 { // dormant, say
		table.Rules = append(table.Rules, ip.Rule{Verdict: foreign})
	}
	chains, err := chainsOf(c, t)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		rules, err := c.GetRules(t, chain)
		if err != nil {
			return err
		}
		name := ip.Chain(chain.Name)
		if len(rules) == 0 || !sameHook(chain, baseChains(t)[name]) {
			table.Rules = append(table.Rules, ip.Rule{Chain: name, Verdict: foreign})
		}
		for _, r := range rules {
			rule, ok := decodeRule(f, r.Exprs)
			if !ok {
				rule.Verdict = foreign
			}
			rule.Chain = name
			table.Rules = append(table.Rules, rule)
		}
	}
	rd.Owned.Tables = append(rd.Owned.Tables, table)
	return nil
}

func chainsOf(c *nftables.Conn, t *nftables.Table) ([]*nftables.Chain, error) {
	all, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return nil, err
	}
	var chains []*nftables.Chain
	for _, chain := range all {
		if chain.Table.Name == t.Name {
			chains = append(chains, chain)
		}
	}
	return chains, nil
}

func sameHook(a, b *nftables.Chain) bool {
	return a != nil && b != nil && a.Type == b.Type && same(a.Hooknum, b.Hooknum) && same(a.Priority, b.Priority) && same(a.Policy, b.Policy)
}

func same[T comparable](a, b *T) bool { return a != nil && b != nil && *a == *b }
