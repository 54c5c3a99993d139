package kernel_test

import (
	"cmp"
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
		{"ct state new accept", ip.FilterRule{New: true, Verdict: ip.Accept}},
		{"ct state != established drop", ip.FilterRule{More: true, Verdict: ip.Drop}},
		{"tcp dport 80 accept", ip.FilterRule{Protocol: 6, Ports: ip.Ports{First: 80, Last: 80}, Verdict: ip.Accept}},
		{"ip protocol udp accept", ip.FilterRule{Family: ip.IPv4, Protocol: 17, Verdict: ip.Accept}},
		{"ip6 nexthdr udp accept", ip.FilterRule{Family: ip.IPv6, Protocol: 17, Verdict: ip.Accept}},
		{"meta l4proto icmp accept", ip.FilterRule{Protocol: 1, Verdict: ip.Accept}},
		{"meta l4proto != udp drop", ip.FilterRule{More: true, Verdict: ip.Drop}},
		{"udp dport 8000-9000 accept", ip.FilterRule{Protocol: 17, Ports: ip.Ports{First: 8000, Last: 9000}, Verdict: ip.Accept}},
		{"udp dport != 8000-9000 accept", ip.FilterRule{Protocol: 17, More: true, Verdict: ip.Accept}},
		{"udp dport < 1024 drop", ip.FilterRule{Protocol: 17, More: true, Verdict: ip.Drop}},
		{"udp dport <= 1024 drop", ip.FilterRule{Protocol: 17, Ports: ip.Ports{Last: 1024}, Verdict: ip.Drop}},
		{"udp sport 53 accept", ip.FilterRule{Protocol: 17, More: true, Verdict: ip.Accept}},
		{"ct state new udp dport 8472 accept", ip.FilterRule{New: true, Protocol: 17, Ports: ip.Ports{First: 8472, Last: 8472}, Verdict: ip.Accept}},
		{"udp dport != { 53, 8472 } drop", ip.FilterRule{Protocol: 17, More: true, Verdict: ip.Drop}},
		{"ip saddr . udp dport { 10.0.0.1 . 8472 } accept", ip.FilterRule{Family: ip.IPv4, Protocol: 17, More: true, Verdict: ip.Accept}},
		{"ip saddr { 10.0.0.1, 10.0.0.2 } accept", ip.FilterRule{Family: ip.IPv4, More: true, Verdict: ip.Accept}},
		{"ip saddr 10.0.0.1-10.0.0.7 accept", ip.FilterRule{Family: ip.IPv4, More: true, Verdict: ip.Accept}},
		{"ip ttl 1 drop", ip.FilterRule{Family: ip.IPv4, More: true, Verdict: ip.Drop}},
		{"iif lo accept", ip.FilterRule{In: ip.LinkMatch{Name: "lo"}, Verdict: ip.Accept}},
		{"meta mark 0x2000 accept", ip.FilterRule{Mark: 0x2000, Verdict: ip.Accept}},
		{"meta mark and 0x2000 == 0x2000 accept", ip.FilterRule{Mark: 0x2000, Verdict: ip.Accept}},
		{"meta mark and 0x3 == 0x1 accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"meta mark != 0x1 accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"fib daddr type local accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"socket transparent 1 drop", ip.FilterRule{More: true, Verdict: ip.Drop}},
		{"limit rate 5/second accept", ip.FilterRule{More: true, Verdict: ip.Accept}},
		{"rt ipsec missing drop", ip.FilterRule{More: true, Verdict: ip.Drop}},
		{"tcp dport >= 8000 tcp option maxseg size <= 9000 drop", ip.FilterRule{Protocol: 6, Ports: ip.Ports{First: 8000, Last: 65535}, More: true, Verdict: ip.Drop}},
		{"notrack accept", ip.FilterRule{Verdict: ip.Accept}},
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

// A rule with sets of ports or protocols is read as one for each of their elements.
func TestReadsSetsOfNFT(t *testing.T) {
	with := func(carries uint8, first, last uint16) ip.FilterRule {
		return ip.FilterRule{Protocol: carries, Ports: ip.Ports{First: first, Last: last}, Verdict: ip.Accept}
	}
	const tcp, udp = 6, 17
	var odd strings.Builder
	odd.WriteString("{ 1") // more ports than are told apart
	for port := 3; port < 2100; port += 2 {
		odd.WriteString(fmt.Sprint(", ", port))
	}
	odd.WriteString(" }")
	drop := with(udp, 53, 53)
	drop.Verdict = ip.Drop
	for rule, want := range map[string][]ip.FilterRule{
		"udp dport { 53, 8472 } accept":                      {with(udp, 53, 53), with(udp, 8472, 8472)},
		"udp dport { 53, 8000-9000, 65000-65535 } accept":    {with(udp, 53, 53), with(udp, 8000, 9000), with(udp, 65000, 65535)},
		"udp dport @named accept":                            {with(udp, 8472, 8472)},
		"meta l4proto { tcp, udp } th dport 8472 accept":     {with(tcp, 8472, 8472), with(udp, 8472, 8472)},
		"meta l4proto { tcp, udp } th dport { 1, 2 } accept": {with(tcp, 1, 1), with(tcp, 2, 2), with(udp, 1, 1), with(udp, 2, 2)},
		"udp dport vmap { 53 : drop, 8472 : accept }":        {drop, with(udp, 8472, 8472)},
		"udp dport vmap { 8000-9000 : accept }":              {{Protocol: udp, More: true, Verdict: ip.Accept}},
		"udp dport " + odd.String() + " accept":              {{Protocol: udp, More: true, Verdict: ip.Accept}},
	} {
		w := newWorld(t)
		w.run(t, "table inet fw {\nset named { type inet_service; elements = { 8472 }; }\nchain base {\ntype filter hook input priority 0; policy drop;\n"+rule+"\n}\n}\n", "nft", "-f", "-")
		filters := snapshot(t, w.Kernel, podScope).Filters
		if len(filters) != 1 || filters[0].Hook != ip.AtInput {
			t.Fatalf("%s: filters %+v, want one at input", rule, filters)
		}
		got := filters[0].Rules
		slices.SortFunc(got, func(a, b ip.FilterRule) int {
			return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Ports.First, b.Ports.First))
		})
		if !slices.Equal(got, want) {
			t.Errorf("%s is read as\n%+v, want\n%+v", rule, got, want)
		}
	}
}

// What iptables(8) makes of ports is understood, by both engines.
func TestReadsPortsOfIPTables(t *testing.T) {
	udp := func(first, last uint16) ip.FilterRule {
		return ip.FilterRule{Protocol: 17, Ports: ip.Ports{First: first, Last: last}, Verdict: ip.Accept}
	}
	for _, engine := range []ip.Engine{ip.NFTables, ip.IPTables} {
		for _, f := range ip.Families() {
			for rule, want := range map[string][]ip.FilterRule{
				"-p udp":                                    {{Protocol: 17, Verdict: ip.Accept}},
				"-p udp -m udp --dport 8472":                {udp(8472, 8472)},
				"-p udp -m udp --dport 8000:9000":           {udp(8000, 9000)},
				"-p udp -m udp ! --dport 8472":              {{Protocol: 17, More: true, Verdict: ip.Accept}},
				"-p udp -m udp --sport 8472":                {{Protocol: 17, More: true, Verdict: ip.Accept}},
				"! -p udp":                                  {{More: true, Verdict: ip.Accept}},
				"-p udp -m multiport --dports 53,8000:9000": {udp(53, 53), udp(8000, 9000)},
				"-p udp -m multiport --ports 53,54":         {{Protocol: 17, More: true, Verdict: ip.Accept}},
				"-p udp -m conntrack --ctstate NEW":         {{New: true, Protocol: 17, Verdict: ip.Accept}},
			} {
				w := newWorld(t)
				w.restore(t, engine, f, "*filter\n:INPUT DROP\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n-A INPUT "+rule+" -j ACCEPT\nCOMMIT\n")
				filters := snapshot(t, w.Kernel, podScope).Filters
				i := slices.IndexFunc(filters, func(f ip.Filter) bool { return f.Hook == ip.AtInput })
				if i < 0 || filters[i].Policy != ip.Drop {
					t.Fatalf("%s, %s: filters %+v, want one at input that drops", engine, f, filters)
				}
				if got := filters[i].Rules; !slices.Equal(got, want) {
					t.Errorf("%s, %s: %s is read as\n%+v, want\n%+v", engine, f, rule, got, want)
				}
			}
		}
	}
}

// Chains that no IP packet comes through are none of our business, nor are those of a dormant table.
func TestReadsOnlyWhatPacketsPass(t *testing.T) {
	w := newWorld(t)
	w.run(t, `table ip a { chain postrouting { type filter hook postrouting priority 0; policy drop; }
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
