package ip_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tulle/ip"
	"tulle/ip/iptest"
)

var (
	network = netip.MustParsePrefix("10.5.0.0/16")
	own     = netip.MustParsePrefix("10.5.1.0/24")
	inbound = ip.Flow{Src: network, Dst: own, In: "flannel.1", Out: "docker0", Inbound: true}
	outward = ip.Flow{Src: own, Dst: network, In: "docker0", Out: "flannel.1"}
)

// The chains as Docker makes them for docker0 with one container, which publishes port 80.
const (
	docker20 = `*filter
:INPUT ACCEPT
:FORWARD DROP
:OUTPUT ACCEPT
:DOCKER -
:DOCKER-ISOLATION-STAGE-1 -
:DOCKER-ISOLATION-STAGE-2 -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 10.5.1.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
`
	docker28 = `*raw
:PREROUTING ACCEPT
:OUTPUT ACCEPT
-A PREROUTING -d 10.5.1.2/32 ! -i docker0 -j DROP
COMMIT
*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:DOCKER -
:DOCKER-BRIDGE -
:DOCKER-CT -
:DOCKER-FORWARD -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 10.5.1.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
`
	// Docker 28.0 asks a set which bridge a packet goes to.
	docker28set = `*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:DOCKER -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -m set --match-set docker-ext-bridges-v4 dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m set --match-set docker-ext-bridges-v4 dst -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
COMMIT
`
	save = `*filter
:INPUT ACCEPT
:FORWARD DROP
:OUTPUT ACCEPT
COMMIT
`
)

func TestOpen(t *testing.T) {
	const (
		in   = " -s 10.5.0.0/16 -d 10.5.1.0/24 -i flannel.1"
		out  = " -s 10.5.1.0/24 -d 10.5.0.0/16 -o flannel.1"
		user = "-t filter -I DOCKER-USER"
		base = "-t filter -I FORWARD"
		raw  = "-t raw -I PREROUTING"
	)
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"nothing":             {"", nil},
		"policy accept":       {strings.Replace(save, "DROP", "ACCEPT", 1), nil},
		"policy drop":         {save, []string{base + in, base + out}},
		"Docker 20.10":        {docker20, []string{user + in}},
		"Docker 28":           {docker28, []string{user + in, raw + in}},
		"Docker 28.0":         {docker28set, []string{user + in}},
		"Docker has left":     {strings.Replace(docker20, "-A FORWARD -j DOCKER-USER\n", "", 1), []string{base + in}},
		"drop before Docker":  {strings.Replace(docker20, "-A FORWARD", "-A FORWARD -i flannel.1 -j DROP\n-A FORWARD", 1), []string{base + in}},
		"reject at the end":   {strings.Replace(save, "FORWARD DROP\n:OUTPUT ACCEPT\n", "FORWARD ACCEPT\n:OUTPUT ACCEPT\n-A FORWARD -j REJECT\n", 1), []string{base + in, base + out}},
		"accepted already":    {strings.Replace(save, "COMMIT", "-A FORWARD -s 10.0.0.0/8 -j ACCEPT\nCOMMIT", 1), nil},
		"accepted in part":    {strings.Replace(save, "COMMIT", "-A FORWARD -s 10.5.1.0/24 -j ACCEPT\nCOMMIT", 1), []string{base + in}},
		"accepted, perhaps":   {strings.Replace(save, "COMMIT", "-A FORWARD -m mark --mark 1 -j ACCEPT\nCOMMIT", 1), []string{base + in, base + out}},
		"one address dropped": {strings.Replace(docker28, "! -i docker0 -j DROP", "-j DROP", 1), []string{user + in}},
		"one port dropped":    {strings.Replace(save, ":OUTPUT ACCEPT\n", ":OUTPUT ACCEPT\n-A FORWARD -p tcp -m tcp --dport 25 -j DROP\n-A FORWARD -j ACCEPT\n", 1), nil},
		"one port rejected elsewhere": {
			strings.Replace(strings.Replace(save, ":OUTPUT ACCEPT\n", ":OUTPUT ACCEPT\n:NO -\n-A FORWARD -p tcp --dport 25 -j NO\n-A FORWARD -j ACCEPT\n-A NO -j REJECT\n", 1), "DROP", "ACCEPT", 1), nil,
		},
		"other interfaces": {strings.Replace(save, "FORWARD DROP\n:OUTPUT ACCEPT\n", "FORWARD ACCEPT\n:OUTPUT ACCEPT\n-A FORWARD -i eth0 -j DROP\n-A FORWARD -o virbr+ -j DROP\n", 1), nil},
		"goto":             {strings.Replace(save, "COMMIT", "-A FORWARD -g ON\n-A FORWARD -j ACCEPT\nCOMMIT", 1), []string{base + in, base + out}},
		"loop":             {strings.Replace(save, ":OUTPUT ACCEPT\n", ":OUTPUT ACCEPT\n:A -\n:B -\n-A FORWARD -j A\n-A A -j B\n-A B -j A\n", 1), []string{base + in, base + out}},
	} {
		for _, engine := range []ip.Engine{ip.NFTables, ip.IPTables} {
			filters := iptest.ParseSave(engine, ip.IPv4, test.text)
			passage := ip.Open(filters, []ip.Flow{inbound, outward})
			openings, blockades := passage.Openings, passage.Blockades
			if got := commands(openings); !slices.Equal(got, test.want) {
				t.Errorf("%s: openings of %s\n%q, want\n%q", name, engine, got, test.want)
			}
			if len(blockades) > 0 {
				t.Errorf("%s: blocked at %v", name, blockades)
			}
			// Once they are in place, the same are wanted, and nothing drops.
			k := iptest.New()
			k.SetFilters(filters...)
			for _, o := range openings {
				if err := k.Apply(t.Context(), ip.Plan{{Verb: ip.Add, New: o}}); err != nil {
					t.Fatal(err)
				}
			}
			snap, err := k.Snapshot(t.Context(), ip.Scope{})
			if err != nil {
				t.Fatal(err)
			}
			again := ip.Open(snap.Filters, []ip.Flow{inbound, outward})
			if got := commands(again.Openings); !slices.Equal(got, test.want) || len(again.Blockades) > 0 {
				t.Errorf("%s: openings of %s once opened\n%q, want\n%q; blocked at %v", name, engine, got, test.want, again.Blockades)
			}
		}
	}
}

// commands are the openings as commands, without the program and the end.
func commands(openings []ip.Opening) []string {
	var all []string
	for _, o := range openings {
		_, command, _ := strings.Cut(ip.Op{Verb: ip.Add, New: o}.String(), " ")
		command, _, _ = strings.Cut(command, " -m comment")
		all = append(all, command)
	}
	slices.Sort(all)
	return all
}

// What somebody puts before an opening counts, and is told.
func TestOpenYieldsToWhatComesFirst(t *testing.T) {
	text := strings.Replace(docker20, "-A DOCKER-USER", "-A DOCKER-USER -i flannel.1 -j DROP\n"+
		"-A DOCKER-USER -s 10.5.0.0/16 -d 10.5.1.0/24 -i flannel.1 -m comment --comment tulle -j ACCEPT\n-A DOCKER-USER", 1)
	filters := iptest.ParseSave(ip.NFTables, ip.IPv4, text)
	passage := ip.Open(filters, []ip.Flow{inbound})
	blockades := passage.Blockades
	if got := commands(passage.Openings); !slices.Equal(got, []string{"-t filter -I DOCKER-USER -s 10.5.0.0/16 -d 10.5.1.0/24 -i flannel.1"}) {
		t.Errorf("openings %q, want the one that is there", got)
	}
	want := ip.Place{Engine: ip.NFTables, Family: ip.IPv4, Table: "filter", Chain: "DOCKER-USER"}
	if len(blockades) != 1 || blockades[0].At != want || !blockades[0].Shared || !blockades[0].Sure {
		t.Errorf("blockades %+v, want one at %s", blockades, want)
	}
}

// A chain of nft(8) is its owner's.
func TestOpenLeavesOthersAlone(t *testing.T) {
	place := ip.Place{Engine: ip.NFTables, Table: "fw", Chain: "forward"}
	known := ip.FilterRule{Known: true, Verdict: ip.Accept}
	perhaps := ip.FilterRule{More: true, Verdict: ip.Accept}
	accepts := func(f ip.Family) ip.FilterRule {
		return ip.FilterRule{Family: f, Src: ip.Match{Prefix: network}, Verdict: ip.Accept}
	}
	drop := func(rules ...ip.FilterRule) ip.Filter { return ip.Filter{Policy: ip.Drop, Rules: rules} }
	for name, test := range map[string]struct {
		filter  ip.Filter
		blocked bool
		sure    bool
		marked  bool
	}{
		"policy":         {filter: drop(known), blocked: true, sure: true},
		"last rule":      {filter: ip.Filter{Policy: ip.Accept, Rules: []ip.FilterRule{known, {Verdict: ip.Drop}}}, blocked: true, sure: true},
		"perhaps":        {filter: drop(perhaps), blocked: true},
		"accepted":       {filter: drop(accepts(ip.IPv4))},
		"other family":   {filter: drop(accepts(ip.IPv6)), blocked: true, sure: true},
		"other networks": {filter: ip.Filter{Policy: ip.Accept, Rules: []ip.FilterRule{{Src: ip.Match{Prefix: network, Not: true}, Verdict: ip.Drop}}}},
		"mark":           {filter: drop(known, ip.FilterRule{Mark: ip.Mark, Verdict: ip.Accept}), marked: true},
		"another mark":   {filter: drop(ip.FilterRule{Mark: 1, Verdict: ip.Accept}), blocked: true},
		"no need for it": {filter: drop(accepts(ip.IPv4), ip.FilterRule{Mark: ip.Mark, Verdict: ip.Accept})},
	} {
		test.filter.Place, test.filter.Hook = place, ip.AtForward
		passage := ip.Open([]ip.Filter{test.filter}, []ip.Flow{inbound, outward})
		if len(passage.Openings) > 0 {
			t.Errorf("%s: openings %v in a chain of somebody else", name, passage.Openings)
		}
		if marked := len(passage.Marked) > 0; marked != test.marked {
			t.Errorf("%s: flows %v are marked", name, passage.Marked)
		}
		blockades := passage.Blockades
		if blocked := len(blockades) == 1; blocked != test.blocked || blocked && (blockades[0].Sure != test.sure || blockades[0].At != place) {
			t.Errorf("%s: blockades %+v", name, blockades)
		}
	}
}

// What comes to the end of a chain that drops is let out of the network, and the answers in. What a rule decides about is not.
func TestOpenLast(t *testing.T) {
	anywhere := netip.MustParsePrefix("0.0.0.0/0")
	through := func(bridge string) []ip.Flow {
		return []ip.Flow{
			{Src: own, Dst: anywhere, In: bridge, Out: "eth0"},
			{Src: anywhere, Dst: own, In: "eth0", Out: bridge, Inbound: true, Known: true},
		}
	}
	const base = "*filter\n:FORWARD DROP\n"
	opened := []string{
		"-A FORWARD -s 10.5.1.0/24 -o eth0 -m comment --comment tulle -j ACCEPT",
		"-A FORWARD -d 10.5.1.0/24 -i eth0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment tulle -j ACCEPT",
	}
	for _, test := range []struct {
		name, rules, bridge string
		want                []string
	}{
		{"policy accept", "*filter\n:FORWARD ACCEPT\n", "cni0", nil},
		{"policy drop", base, "cni0", opened},
		{"mail dropped", base + "-A FORWARD -p tcp -m tcp --dport 25 -j DROP\n", "cni0", opened},
		{"network dropped", base + "-A FORWARD -s 10.5.0.0/16 -o eth0 -j DROP\n", "cni0", opened[1:]},
		{"rejected", base + "-A FORWARD -j REJECT\n", "cni0", nil},
		{"answers let in", base + "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n", "cni0", opened[:1]},
		{"beside Docker", docker20, "cni0", opened},
		{"Docker's own", docker20, "docker0", nil},
		{"Docker 28's own", docker28, "docker0", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, engine := range []ip.Engine{ip.NFTables, ip.IPTables} {
				filters := iptest.ParseSave(engine, ip.IPv4, test.rules)
				var got []string
				for _, o := range ip.OpenLast(filters, through(test.bridge)) {
					_, command, _ := strings.Cut(ip.Op{Verb: ip.Add, New: o}.String(), " -t filter ")
					got = append(got, command)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("%s: openings %q, want %q", engine, got, test.want)
				}
			}
		})
	}
}

// Packets between containers of one host, and those that were translated to one, are let through wherever they are dropped, and only
// between the bridges that they are for.
func TestOpenWithinAHost(t *testing.T) {
	anywhere := netip.MustParsePrefix("0.0.0.0/0")
	flows := []ip.Flow{
		{Src: own, Dst: own, In: "cni0", Out: "cni0", Local: true},
		{Src: own, Dst: own, In: "cni0", Out: "cni1", Local: true},
		{Src: anywhere, Dst: own, Out: "cni0", Local: true, DNAT: true},
		{Src: own, Dst: anywhere, In: "cni0", Local: true, Known: true},
	}
	const (
		same      = " -s 10.5.1.0/24 -d 10.5.1.0/24 -i cni0 -o cni0"
		other     = " -s 10.5.1.0/24 -d 10.5.1.0/24 -i cni0"
		published = " -d 10.5.1.0/24 -o cni0 -m conntrack --ctstate DNAT"
		answers   = " -s 10.5.1.0/24 -i cni0 -m conntrack --ctstate RELATED,ESTABLISHED"
		base      = "-t filter -I FORWARD"
		user      = "-t filter -I DOCKER-USER"
	)
	all := []string{base + published, base + same, base + other, base + answers}
	// After the rules that are there, they need not name the bridge.
	const last = "-t filter -A FORWARD"
	policy := []string{last + strings.Replace(published, " -o cni0", "", 1), base + same, base + other, last + strings.Replace(answers, " -i cni0", "", 1)}
	known := strings.Replace(save, "COMMIT", "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT\n"+
		"-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT", 1)
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"policy accept":  {strings.Replace(save, "DROP", "ACCEPT", 1), nil},
		"policy drop":    {save, policy},
		"some kept out":  {strings.Replace(save, "COMMIT", "-A FORWARD -s 203.0.113.0/24 -i eth0 -j DROP\nCOMMIT", 1), policy},
		"user chain":     {strings.Replace(save, "COMMIT", ":MINE -\n-A FORWARD -j MINE\n-A MINE -j REJECT\nCOMMIT", 1), all},
		"beside Docker":  {docker20, []string{policy[0], user + same, user + other, policy[3]}},
		"accepted":       {known, []string{base + same, base + other}},
		"Docker in raw":  {docker28, nil},
		"same bridge in": {strings.Replace(save, "COMMIT", "-A FORWARD -i cni0 -o cni0 -j ACCEPT\nCOMMIT", 1), []string{policy[0], base + other, policy[3]}},
	} {
		for _, engine := range []ip.Engine{ip.NFTables, ip.IPTables} {
			filters := iptest.ParseSave(engine, ip.IPv4, test.text)
			passage := ip.Open(filters, flows)
			slices.Sort(test.want)
			if got := commands(passage.Openings); !slices.Equal(got, test.want) || len(passage.Blockades) > 0 || len(passage.Marked) > 0 {
				t.Errorf("%s: openings of %s\n%q, want\n%q; blocked at %v", name, engine, got, test.want, passage.Blockades)
			}
			if left := ip.Blocked(filters, passage.Openings, flows); len(left) > 0 {
				t.Errorf("%s: still blocked at %+v", name, left)
			}
		}
	}
	// Who may come in somebody has decided: before that decision, nothing is opened.
	for _, engine := range []ip.Engine{ip.NFTables, ip.IPTables} {
		for _, rule := range []string{"-s 203.0.113.0/24 -j DROP", "! -s 192.0.2.2/32 -i eth0 -j DROP", "-p tcp -m tcp --dport 3306 -j DROP"} {
			filters := iptest.ParseSave(engine, ip.IPv4, strings.Replace(save, "COMMIT", "-A FORWARD "+rule+"\n-A FORWARD -j REJECT\nCOMMIT", 1))
			passage := ip.Open(filters, flows)
			want := []string{base + same, base + other, base + answers}
			slices.Sort(want)
			if got := commands(passage.Openings); !slices.Equal(got, want) || len(passage.Blockades) != 1 || !slices.Equal(passage.Blockades[0].Flows, flows[2:3]) {
				t.Errorf("%s of %s: openings\n%q, want\n%q; blocked at %+v", rule, engine, got, want, passage.Blockades)
			}
		}
	}
	// A table of nft(8) that lets only marked packets pass gets no mark for what may come from anywhere.
	foreign := ip.Filter{
		Place: ip.Place{Engine: ip.NFTables, Table: "fw", Chain: "fwd"}, Hook: ip.AtForward, Policy: ip.Drop,
		Rules: []ip.FilterRule{{Mark: ip.Mark, Verdict: ip.Accept}},
	}
	passage := ip.Open([]ip.Filter{foreign}, flows)
	if len(passage.Openings) > 0 || !slices.Equal(passage.Marked, flows[:2]) || len(passage.Blockades) != 1 || !slices.Equal(passage.Blockades[0].Flows, flows[2:]) {
		t.Errorf("in a table of somebody else: %+v", passage)
	}
}
