package kernel_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"tulle/ip"
)

var (
	podNetwork   = netip.MustParsePrefix("10.50.0.0/16")
	otherNetwork = netip.MustParsePrefix("10.60.0.0/16")
	podScope     = ip.Scope{Links: []string{"flannel.1"}, Networks: []netip.Prefix{podNetwork}}
)

func forwardTable() ip.Table {
	network := ip.Match{Prefix: podNetwork}
	return ip.Table{Family: ip.IPv4, Rules: []ip.Rule{
		{Chain: ip.Postrouting, Src: network, Dst: network, Verdict: ip.Accept},
		{Chain: ip.Forward, Src: network, Verdict: ip.Accept},
		{Chain: ip.Forward, Dst: network, Verdict: ip.Accept},
	}}
}

// nft runs fn as one transaction of another program.
func (w world) nft(t testing.TB, fn func(*nftables.Conn)) *nftables.Conn {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(w.ns.FD()))
	must(t, err)
	fn(c)
	must(t, c.Flush())
	return c
}

func TestTamperedTableIsReplaced(t *testing.T) {
	ours := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: ip.TableName}
	forward := &nftables.Chain{Table: ours, Name: string(ip.Forward)}
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	drop := nftables.ChainPolicyDrop
	rule := func(exprs ...expr.Any) *nftables.Rule {
		return &nftables.Rule{Table: ours, Chain: forward, Exprs: exprs}
	}
	for name, tamper := range map[string]func(c *nftables.Conn, rules []*nftables.Rule){
		"rule added":     func(c *nftables.Conn, _ []*nftables.Rule) { c.AddRule(rule(accept)) },
		"rule unknown":   func(c *nftables.Conn, _ []*nftables.Rule) { c.InsertRule(rule(&expr.Counter{}, accept)) },
		"drop put first": func(c *nftables.Conn, _ []*nftables.Rule) { c.InsertRule(rule(&expr.Verdict{Kind: expr.VerdictDrop})) },
		"rule deleted":   func(c *nftables.Conn, rules []*nftables.Rule) { must(t, c.DelRule(rules[0])) },
		"rules reordered": func(c *nftables.Conn, rules []*nftables.Rule) {
			must(t, c.DelRule(rules[0]))
			c.AddRule(rule(rules[0].Exprs...))
		},
		"rules flushed": func(c *nftables.Conn, _ []*nftables.Rule) { c.FlushTable(ours) },
		"table deleted": func(c *nftables.Conn, _ []*nftables.Rule) { c.DelTable(ours) },
		"chain added":   func(c *nftables.Conn, _ []*nftables.Rule) { c.AddChain(&nftables.Chain{Table: ours, Name: "x"}) },
		"chain deleted": func(c *nftables.Conn, _ []*nftables.Rule) { c.FlushChain(forward); c.DelChain(forward) },
		"policy dropped": func(c *nftables.Conn, _ []*nftables.Rule) {
			c.AddChain(&nftables.Chain{
				Table: ours, Name: string(ip.Forward), Type: nftables.ChainTypeFilter, Policy: &drop,
				Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			theirs := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "theirs"}
			w.nft(t, func(c *nftables.Conn) { c.AddTable(theirs) })
			want := ip.State{Tables: []ip.Table{forwardTable()}}
			must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))

			w.nft(t, func(c *nftables.Conn) {
				rules, err := c.GetRules(ours, forward)
				must(t, err)
				for _, r := range rules {
					r.Chain, r.Table = forward, ours
				}
				tamper(c, rules)
			})
			plan := ip.Diff(snapshot(t, w.Kernel, podScope).Owned, want)
			if len(plan) != 1 {
				t.Fatalf("plan after tampering = %v, want one op", plan)
			}
			must(t, w.Kernel.Apply(t.Context(), plan))
			if plan := ip.Diff(snapshot(t, w.Kernel, podScope).Owned, want); len(plan) != 0 {
				t.Errorf("plan after healing = %v, want none", plan)
			}
			must(t, w.Kernel.Apply(t.Context(), ip.Diff(want, ip.State{})))
			tables, err := w.nft(t, func(*nftables.Conn) {}).ListTables()
			must(t, err)
			if len(tables) != 1 || tables[0].Name != "theirs" {
				t.Errorf("tables left = %+v, want theirs alone", tables)
			}
		})
	}
}

// match is the short form in which nft(8) and iptables-nft compare a prefix of whole bytes.
func match(offset uint32, p netip.Prefix) []expr.Any {
	bytes := p.Bits() / 8
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(bytes)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Addr().AsSlice()[:bytes]},
	}
}

// flannel leaves in the namespace what a flanneld of the network does, in both of its modes.
func (w world) flannel(t *testing.T, network netip.Prefix) {
	t.Helper()
	src := match(12, network)
	accept := append(slices.Clone(src), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
	w.nft(t, func(c *nftables.Conn) {
		own := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "flannel-ipv4"})
		postrtg := c.AddChain(&nftables.Chain{
			Table: own, Name: "postrtg", Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		mark := &expr.Meta{Key: expr.MetaKeyMARK, Register: 1}
		marked := &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 0x40, 0, 0}}
		c.AddRule(&nftables.Rule{Table: own, Chain: postrtg, Exprs: []expr.Any{mark, marked, &expr.Verdict{Kind: expr.VerdictReturn}}})
		c.AddRule(&nftables.Rule{Table: own, Chain: postrtg, Exprs: append(slices.Clone(src), &expr.Masq{FullyRandom: true})})

		filter := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
		forward := c.AddChain(&nftables.Chain{
			Table: filter, Name: "FORWARD", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
		})
		fwd := c.AddChain(&nftables.Chain{Table: filter, Name: "FLANNEL-FWD"})
		c.AddRule(&nftables.Rule{Table: filter, Chain: fwd, Exprs: accept})
		c.AddRule(&nftables.Rule{Table: filter, Chain: forward, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
		c.AddRule(&nftables.Rule{Table: filter, Chain: forward, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictJump, Chain: "FLANNEL-FWD"}}})

		nat := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "nat"})
		c.AddChain(&nftables.Chain{Table: nat, Name: "FLANNEL-POSTRTG"}) // left empty: says nothing of its network
	})
}

func TestLeftoversAreFoundAndDeleted(t *testing.T) {
	w := newWorld(t)
	w.flannel(t, podNetwork)
	want := []ip.Leftover{
		{Engine: ip.NFTables, Family: ip.IPv4, Table: "filter", Chain: "FLANNEL-FWD"},
		{Engine: ip.NFTables, Family: ip.IPv4, Table: "flannel-ipv4"},
	}
	owned := snapshot(t, w.Kernel, podScope).Owned
	if !slices.Equal(owned.Leftovers, want) {
		t.Fatalf("leftovers = %v, want %v", owned.Leftovers, want)
	}
	for range 2 { // the second time, there is nothing to delete
		must(t, w.Kernel.Apply(t.Context(), ip.Diff(owned, ip.State{})))
	}
	if left := snapshot(t, w.Kernel, podScope).Owned.Leftovers; len(left) != 0 {
		t.Errorf("leftovers after deletion = %v", left)
	}
	c := w.nft(t, func(*nftables.Conn) {})
	chains, err := c.ListChains()
	must(t, err)
	var names []string
	for _, chain := range chains {
		names = append(names, chain.Table.Name+" "+chain.Name)
	}
	if want := []string{"filter FORWARD", "nat FLANNEL-POSTRTG"}; !slices.Equal(names, want) {
		t.Errorf("chains left = %q, want %q", names, want)
	}
	rules, err := c.GetRules(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"}, &nftables.Chain{Name: "FORWARD"})
	must(t, err)
	if len(rules) != 1 {
		t.Errorf("%d rules left in FORWARD, want only the one that is not flannel's", len(rules))
	}
}

func TestLeftoversOfAnotherNetworkStay(t *testing.T) {
	w := newWorld(t)
	w.flannel(t, otherNetwork)
	if left := snapshot(t, w.Kernel, podScope).Owned.Leftovers; len(left) != 0 {
		t.Errorf("leftovers = %v, want none: they are of another network", left)
	}
}

func TestFlanneldsTableWithoutRulesIsLeftOver(t *testing.T) {
	w := newWorld(t)
	w.nft(t, func(c *nftables.Conn) {
		own := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv6, Name: "flannel-ipv6"})
		c.AddChain(&nftables.Chain{Table: own, Name: "forward"})
	})
	want := []ip.Leftover{{Engine: ip.NFTables, Family: ip.IPv6, Table: "flannel-ipv6"}}
	if left := snapshot(t, w.Kernel, podScope).Owned.Leftovers; !slices.Equal(left, want) {
		t.Errorf("leftovers = %v, want %v", left, want)
	}
}

// TestPrefixesOfEveryLength has the kernel keep rules with them, and reads these back.
func TestPrefixesOfEveryLength(t *testing.T) {
	w := newWorld(t)
	var want ip.State
	for _, f := range ip.Families() {
		addr := ip.Dual[netip.Addr]{V4: netip.MustParseAddr("10.50.85.170"), V6: netip.MustParseAddr("fd50:1:2:3:4:5:aa55:55aa")}.Of(f)
		table := ip.Table{Family: f}
		for bits := range f.Bits() + 1 {
			m := ip.Match{Prefix: netip.PrefixFrom(addr, bits).Masked()}
			table.Rules = append(table.Rules, ip.Rule{Chain: ip.Forward, In: "cni0", Src: m, Dst: m, Verdict: ip.Accept})
		}
		want.Tables = append(want.Tables, table)
	}
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))
	if got := snapshot(t, w.Kernel, podScope).Owned; !got.Equal(want) {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}
