package kernel_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tulle/ip"
)

// What nft(8) makes of rules is understood as far as it matters, and the rest is known not to be.
func TestReadsRulesOfNFT(t *testing.T) {
	prefix := func(s string) ip.Match { return ip.Match{Prefix: netip.MustParsePrefix(s)} }
	not := func(m ip.Match) ip.Match { m.Not = true; return m }
	for _, test := range []struct {
		rule string
		want ip.FilterRule
	}{
		{"accept", ip.FilterRule{Verdict: ip.Accept}},
		{"counter log prefix \"x\" drop", ip.FilterRule{Verdict: ip.Drop}},
		{"reject with icmpx admin-prohibited", ip.FilterRule{Verdict: ip.Drop}},
		{"jump other", ip.FilterRule{Verdict: ip.Jump, Target: "other"}},
		{"goto other", ip.FilterRule{Verdict: ip.Goto, Target: "other"}},
		{"return", ip.FilterRule{Verdict: ip.Return}},
		{"counter", ip.FilterRule{}},
		{"meta mark set 1", ip.FilterRule{}},
		{"ip saddr 10.0.0.0/8 accept", ip.FilterRule{Family: ip.IPv4, Src: prefix("10.0.0.0/8"), Verdict: ip.Accept}},
		{"ip daddr != 10.5.0.0/17 drop", ip.FilterRule{Family: ip.IPv4, Dst: not(prefix("10.5.0.0/17")), Verdict: ip.Drop}},
		{"ip6 saddr fd50::/44 ip6 daddr fd50:1::/64 accept",
			ip.FilterRule{Family: ip.IPv6, Src: prefix("fd50::/44"), Dst: prefix("fd50:1::/64"), Verdict: ip.Accept}},
		{"iifname eth0 oifname != \"br-*\" drop",
			ip.FilterRule{In: ip.LinkMatch{Name: "eth0"}, Out: ip.LinkMatch{Name: "br-*", Not: true}, Verdict: ip.Drop}},
		{"meta nfproto ipv6 drop", ip.FilterRule{Family: ip.IPv6, Verdict: ip.Drop}},
		{"ct state established,related accept", ip.FilterRule{Known: true, Verdict: ip.Accept}},
		{"ct state invalid drop", ip.FilterRule{Known: true, More: true, Verdict: ip.Drop}},
		{"ct state related accept", ip.FilterRule{Known: true, More: true, Verdict: ip.Accept}},
		{"ct status dnat accept", ip.FilterRule{DNAT: true, Verdict: ip.Accept}},
		{"ct status snat accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"ct state new accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"ct state != established drop", ip.FilterRule{More: true, Verdict: ip.Drop}},
		{"tcp dport 80 accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"ip saddr { 10.0.0.1, 10.0.0.2 } accept", ip.FilterRule{Family: ip.IPv4, More: true, Verdict: ip.Accept}},
		{"ip saddr 10.0.0.1-10.0.0.7 accept", ip.FilterRule{Family: ip.IPv4, More: true, Verdict: ip.Accept}},
		{"ip ttl 1 drop", ip.FilterRule{Family: ip.IPv4, More: true, Verdict: ip.Drop}},
		{"iif lo accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"meta mark 0x2000 accept", ip.FilterRule{Mark: 0x2000, Verdict: ip.Accept}},
		{"meta mark and 0x2000 == 0x2000 accept", ip.FilterRule{Mark: 0x2000, Verdict: ip.Accept}},
		{"meta mark and 0x3 == 0x1 accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"meta mark != 0x1 accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"fib daddr type local accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"socket transparent 1 drop", ip.FilterRule{More: true, Verdict: ip.Drop}},
		{"limit rate 5/second accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"rt ipsec missing drop", ip.FilterRule{More: true, Verdict: ip.Drop}},
		{"iifname vmap { eth0 : jump other, eth1 : drop }", ip.FilterRule{}},
	} {
		w := newWorld(t)
		w.run(t, "table inet fw {\nchain other { }\nchain base {\ntype filter hook prerouting priority 0; policy drop;\n}\n}\n", "nft", "-f", "-")
		if strings.Contains(test.rule, "oifname") {
			w.run(t, "flush ruleset\ntable inet fw {\nchain other { }\nchain base {\ntype filter hook forward priority 0; policy drop;\n}\n}\n", "nft", "-f", "-")
		}
		w.run(t, "add rule inet fw base "+test.rule+"\n", "nft", "-f", "-")
		want := []ip.FilterRule{test.want}
		if strings.Contains(test.rule, "vmap") {
			want = []ip.FilterRule{
				{In: ip.LinkMatch{Name: "eth0"}, Verdict: ip.Jump, Target: "other"},
				{In: ip.LinkMatch{Name: "eth1"}, Verdict: ip.Drop},
			}
		}
		filters := snapshot(t, w.Kernel, podScope).Filters
		i := slices.IndexFunc(filters, func(f ip.Filter) bool { return f.Chain == "base" })
		if i < 0 || filters[i].Family != 0 || filters[i].Policy != ip.Drop {
			t.Fatalf("%s: filters %+v", test.rule, filters)
		}
		got := filters[i].Rules
		slices.SortFunc(got, func(a, b ip.FilterRule) int { return strings.Compare(a.In.Name, b.In.Name) })
		if !slices.Equal(got, want) {
			t.Errorf("%s is read as\n%+v, want\n%+v", test.rule, got, want)
		}
	}
}

// Chains that no forwarded packet comes through are none of our business, nor are those of a dormant table.
func TestReadsOnlyWhatForwardedPacketsPass(t *testing.T) {
	w := newWorld(t)
	w.run(t, `table ip a { chain input { type filter hook input priority 0; policy drop; }
chain unused { drop
}
}
table ip b { flags dormant
chain forward { type filter hook forward priority 0; policy drop; }
}
table bridge c { chain forward { type filter hook forward priority 0; policy drop; }
}
table ip d { chain prerouting { type nat hook prerouting priority 0; }
}
table ip tulle { chain forward { type filter hook forward priority 0; policy drop; }
}
`, "nft", "-f", "-")
	if filters := snapshot(t, w.Kernel, podScope).Filters; len(filters) > 0 {
		t.Errorf("filters %+v, want none", filters)
	}
}

// Programs of iptables go on listing and restoring what they find, and what they restore is still known.
func TestOpeningSurvivesSaveAndRestore(t *testing.T) {
	for _, engine := range []ip.Engine{ip.NFTables, ip.IPTables} {
		for _, f := range ip.Families() {
			w := newWorld(t)
			program := map[ip.Family]string{ip.IPv4: "iptables-", ip.IPv6: "ip6tables-"}[f] +
				map[ip.Engine]string{ip.NFTables: "nft", ip.IPTables: "legacy"}[engine]
			w.restore(t, engine, f, "*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\nCOMMIT\n")
			network := ip.Dual[string]{V4: "10.50.0.0/16", V6: "fd50::/44"}.Of(f)
			subnet := ip.Dual[string]{V4: "10.50.3.128/25", V6: "fd50:0:3::/64"}.Of(f)
			o := ip.Opening{
				Place: ip.Place{Engine: engine, Family: f, Table: "filter", Chain: "FORWARD"},
				Src:   netip.MustParsePrefix(network), Dst: netip.MustParsePrefix(subnet), In: "flannel.1",
			}
			published := ip.Opening{Place: o.Place, Dst: o.Dst, Out: "cni0", DNAT: true}
			want := ip.State{Openings: []ip.Opening{o, published}}
			want.Sort()
			must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))
			saved := w.run(t, "", program+"-save")
			listed := w.run(t, "", program, "-w", "-S")
			for _, rule := range []string{
				fmt.Sprintf("-A FORWARD -s %s -d %s -i flannel.1 -m comment --comment tulle -j ACCEPT\n", network, subnet),
				fmt.Sprintf("-A FORWARD -d %s -o cni0 ", subnet),
				" --ctstate DNAT ",
			} {
				if !strings.Contains(saved, rule) || !strings.Contains(listed, rule) {
					t.Errorf("%s shows\n%s, want\n%s", program, saved, rule)
				}
			}
			w.restore(t, engine, f, saved)
			got := snapshot(t, w.Kernel, podScope).Owned
			if !got.Equal(want) {
				t.Errorf("%s: restored is\n%s, want\n%s", program, got, want)
			}
			must(t, w.Kernel.Apply(t.Context(), ip.Diff(got, ip.State{})))
			if saved := w.run(t, "", program+"-save"); strings.Contains(saved, "tulle") {
				t.Errorf("%s still shows\n%s", program, saved)
			}
		}
	}
}
