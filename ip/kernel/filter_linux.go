package kernel

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// placeFamily is the family of a table as ip.Place has it; false for tables that no IP packet comes through.
func placeFamily(f nftables.TableFamily) (ip.Family, bool) {
	switch f {
	case nftables.TableFamilyIPv4:
		return ip.IPv4, true
	case nftables.TableFamilyIPv6:
		return ip.IPv6, true
	case nftables.TableFamilyINet:
		return 0, true
	}
	return 0, false
}

// hookOf is where a base chain filters packets; empty for other chains.
func hookOf(c *nftables.Chain) ip.Hook {
	switch {
	case c.Hooknum == nil || c.Type == nftables.ChainTypeNAT:
		return ""
	case *c.Hooknum == *nftables.ChainHookPrerouting:
		return ip.AtPrerouting
	case *c.Hooknum == *nftables.ChainHookForward:
		return ip.AtForward
	case *c.Hooknum == *nftables.ChainHookInput:
		return ip.AtInput
	case *c.Hooknum == *nftables.ChainHookOutput: // type route, too
		return ip.AtOutput
	}
	return ""
}

// readFilters reads the chains of others that packets come through, and the openings in them. A chain that
// cannot be read is left out, and so left alone: the rest of the host must not depend on what others write into theirs.
func (rd *reading) readFilters(k *Kernel) (complete bool, err error) {
	complete = true
	var places map[ip.Place]*nftables.Chain
	if err := k.nft.use(k, func(c *nftables.Conn) (err error) {
		places, err = foreignChains(c)
		return err
	}); err != nil {
		return false, err
	}
	var next []ip.Place
	for place, chain := range places {
		if hookOf(chain) != "" || chain.Name == ip.DockerUserChain {
			next = append(next, place)
		}
	}
	for len(next) > 0 {
		place := next[0]
		next = next[1:]
		chain := places[place]
		if chain == nil {
			continue
		}
		delete(places, place)
		filter := ip.Filter{Place: place, Hook: hookOf(chain)}
		read := func(c *nftables.Conn) error { return readFilter(c, k.nft.dumps, chain, &filter) }
		err := k.nft.use(k, read)
		if err != nil { // perhaps it changed meanwhile
			err = k.nft.use(k, read)
		}
		if err != nil {
			complete = false
			continue
		}
		rd.addFilter(filter)
		for _, r := range filter.Rules {
			if r.Target != "" {
				place.Chain = r.Target
				next = append(next, place)
			}
		}
	}
	return complete, nil
}

// foreignChains lists the chains in which IP packets may meet rules that are not Tulle's.
func foreignChains(c *nftables.Conn) (map[ip.Place]*nftables.Chain, error) {
	tables, err := c.ListTables()
	if err != nil {
		return nil, err
	}
	active := map[nftables.Table]bool{}
	for _, t := range tables {
		active[nftables.Table{Name: t.Name, Family: t.Family}] = !dormant(t)
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, err
	}
	places := map[ip.Place]*nftables.Chain{}
	for _, chain := range chains {
		family, ok := placeFamily(chain.Table.Family)
		_, _, ours := ip.ParseTable(chain.Table.Name)
		if ok && !ours && active[*chain.Table] {
			places[ip.Place{Engine: ip.NFTables, Family: family, Table: chain.Table.Name, Chain: chain.Name}] = chain
		}
	}
	return places, nil
}

// dormant reports whether the chains of t are switched off. The library does not turn the flags from network byte order.
func dormant(t *nftables.Table) bool {
	flags := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, t.Flags))
	return flags&unix.NFT_TABLE_F_DORMANT != 0
}

// addFilter adds a filter, and the openings in it to what is ours.
func (rd *reading) addFilter(f ip.Filter) {
	rd.Filters = append(rd.Filters, f)
	rd.Owned.Openings = append(rd.Owned.Openings, f.Openings()...)
}

func readFilter(c *nftables.Conn, dumps *socket, chain *nftables.Chain, filter *ip.Filter) error {
	if filter.Hook != "" {
		filter.Policy = ip.Accept
		if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
			filter.Policy = ip.Drop
		}
	}
	elementsOf := func(set string) ([]nftables.SetElement, error) {
		return c.GetSetElements(&nftables.Set{Table: chain.Table, Name: set})
	}
	rules, err := retry(func() (rules []ip.FilterRule, err error) {
		listed := eachRule(dumps, chain, func(r *nftables.Rule) {
			var more []ip.FilterRule
			if err == nil {
				more, err = readRule(filter, r, elementsOf)
			}
			rules = append(rules, more...)
		})
		return rules, cmp.Or(listed, err)
	})
	filter.Rules = slices.Clip(rules)
	return err
}

// readRule returns what a rule in a chain means, as one rule for each element of what it looks up.
func readRule(filter *ip.Filter, r *nftables.Rule, elementsOf func(set string) ([]nftables.SetElement, error)) ([]ip.FilterRule, error) {
	decoded, err := decodeFilterRules(filter.Family, r.Exprs, elementsOf)
	if err != nil {
		return nil, err
	}
	if m := verdictMap(r.Exprs); m != nil {
		elements, err := elementsOf(m.SetName)
		if err != nil {
			return nil, err
		}
		var rules []ip.FilterRule
		for _, one := range decoded {
			rules = append(rules, spread(one, r.Exprs, elements)...)
		}
		return rules, nil
	}
	if len(decoded) == 1 {
		ours := decoded[0]
		ours.Ours = true
		if _, ok := filter.Opening(ours); ok && marked(r) {
			decoded[0] = ours
		}
	}
	return decoded, nil
}

// verdictMap is the lookup with which a rule takes its verdict from a map.
func verdictMap(exprs []expr.Any) *expr.Lookup {
	if len(exprs) == 0 {
		return nil
	}
	m, ok := exprs[len(exprs)-1].(*expr.Lookup)
	if !ok || !m.IsDestRegSet || m.DestRegister != verdictRegister {
		return nil
	}
	return m
}

// spread is a rule with a verdict map as one rule for each element of the map.
func spread(rule ip.FilterRule, exprs []expr.Any, elements []nftables.SetElement) []ip.FilterRule {
	var rules []ip.FilterRule
	load := len(exprs) - 2 // before the lookup of the verdict
	intervals := slices.ContainsFunc(elements, func(e nftables.SetElement) bool { return e.IntervalEnd })
	for _, e := range elements {
		if e.IntervalEnd {
			continue
		}
		r := rule
		setVerdict(&r, decodeVerdict(e.Val))
		if load < 0 || intervals || len(e.KeyEnd) > 0 || !decodeKey(&r, exprs[load], e.Key) {
			r.More = true
		}
		rules = append(rules, r)
	}
	return rules
}
