package kernel

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"tulle/ip"
)

func guardTable(net string, f ip.Family) *nftables.Table {
	return &nftables.Table{Family: tableFamily(f), Name: ip.TableOf(ip.GuardTable, net)}
}

// guardChains are the chains of a guard, those first that others jump to. What comes in for this host, whatever its address, is seen before connection tracking
// remembers it; what goes out, before anybody gives it another source.
func guardChains(t *nftables.Table) []*nftables.Chain {
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
		policy := nftables.ChainPolicyAccept
		return &nftables.Chain{Table: t, Name: name, Type: typ, Hooknum: hook, Priority: &priority, Policy: &policy}
	}
	return []*nftables.Chain{
		{Table: t, Name: ip.GuardIncoming}, {Table: t, Name: ip.GuardForwarded},
		chain(ip.GuardInput, nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityRaw),
		chain(ip.GuardForward, nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityRaw),
		chain(ip.GuardPost, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, -199),
	}
}

// guardSets are the sets of a guard: that of the peers, and with subnets that of what they may send.
func guardSets(g ip.Guard) []nftables.Set {
	addr := nftables.TypeIPAddr
	if g.Family == ip.IPv6 {
		addr = nftables.TypeIP6Addr
	}
	sets := []nftables.Set{{Name: ip.GuardPeers, KeyType: addr}}
	if g.Bits > 0 {
		number := nftables.TypeInteger
		number.Bytes = addr.Bytes
		sets = append(sets, nftables.Set{Name: ip.GuardSources, KeyType: nftables.MustConcatSetType(addr, number)})
	}
	return sets
}

// sameSets compares sets that were read.
func sameSets(have []*nftables.Set, want []nftables.Set) bool {
	return slices.EqualFunc(have, want, func(h *nftables.Set, w nftables.Set) bool {
		s := *h
		s.Table, s.ID = nil, 0
		return s == w
	})
}

// replaceGuard makes the table of the guard with all its peers, or deletes it, in one transaction.
func replaceGuard(c *nftables.Conn, verb ip.Verb, g ip.Guard) error {
	table := guardTable(g.Net, g.Family)
	c.AddTable(table) // deleting needs something to delete
	c.DelTable(table)
	if verb == ip.Delete {
		return c.Flush()
	}
	c.AddTable(table)
	for i, set := range guardSets(g) {
		set.Table, set.ID = table, uint32(i+1)
		if err := c.AddSet(&set, nil); err != nil {
			return err
		}
	}
	for peers := range slices.Chunk(g.Peers, maxElements) {
		if err := changeElements(c.SetAddElements, table, peers); err != nil {
			return err
		}
	}
	for _, name := range []string{ip.CountStrangers, ip.CountForged, ip.CountInjected} {
		addCounter(c, table, name)
	}
	rules := encodeGuard(g)
	for _, chain := range guardChains(table) {
		chain = c.AddChain(chain)
		for _, rule := range rules[chain.Name] {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
		}
	}
	return c.Flush()
}

func addCounter(c *nftables.Conn, t *nftables.Table, name string) {
	c.AddObj(&nftables.NamedObj{Table: t, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
}

// readGuard reads the guard that a table is. One that somebody changed guards nothing: it differs from every wanted
// one, and so is replaced.
func (rd *reading) readGuard(c *nftables.Conn, dumps *socket, net string, f ip.Family, t *nftables.Table) error {
	g, err := readGuardRules(c, f, t)
	g.Net = net
	if err == nil && g.Tunnel() != (ip.Tunnel{}) {
		err = readPeers(dumps, &g)
	}
	if err != nil {
		return err
	}
	rd.Owned.Guards = append(rd.Owned.Guards, g)
	return nil
}

func readGuardRules(c *nftables.Conn, f ip.Family, t *nftables.Table) (ip.Guard, error) {
	none := ip.Guard{Family: f}
	chains, err := chainsOf(c, t)
	want := guardChains(t)
	if err != nil || t.Flags != 0 || len(chains) != len(want) {
		return none, err
	}
	rules := map[string][][]expr.Any{}
	for _, w := range want {
		i := slices.IndexFunc(chains, func(h *nftables.Chain) bool { return h.Name == w.Name })
		if i < 0 || w.Hooknum != nil && !sameHook(chains[i], w) || w.Hooknum == nil && chains[i].Hooknum != nil {
			return none, nil
		}
		list, err := c.GetRules(t, chains[i])
		if err != nil {
			return none, err
		}
		for _, r := range list {
			rules[w.Name] = append(rules[w.Name], r.Exprs)
		}
	}
	g, ok := decodeGuard(f, rules)
	if !ok {
		return none, nil
	}
	sets, err := c.GetSets(t)
	if err != nil || !sameSets(sets, guardSets(g)) {
		return none, err
	}
	return g, nil
}

// readPeers reads what is in the sets of a guard.
func readPeers(dumps *socket, g *ip.Guard) error {
	peers, err := dumpPeers(dumps, *g)
	if err != nil {
		return err
	}
	if slices.Contains(peers, ip.Peer{}) { // the element that stands for all addresses
		*g = ip.Guard{Net: g.Net, Family: g.Family}
		return nil
	}
	g.Peers = peers
	return nil
}
