package iptest

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"tulle/ip"
)

// chains are like Docker's, with a bit of everything else. NET stands for a network, ONE for an address in it.
const chains = `*raw
:PREROUTING ACCEPT
:OUTPUT ACCEPT
-A PREROUTING -d ONE ! -i docker0 -j DROP
COMMIT
*filter
:INPUT ACCEPT
:FORWARD DROP
:OUTPUT ACCEPT
:DOCKER -
:DOCKER-USER -
:UNUSED -
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -s NET -m comment --comment tulle
-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED,DNAT -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j REJECT
-A DOCKER-USER ! -s NET -d ONE -i eth+ -p tcp -m tcp --dport 80 -j RETURN
-A DOCKER-USER -d NET -g DOCKER
-A UNUSED -j DROP
COMMIT
`

func (s *suite) filters() {
	for _, engine := range []ip.Engine{ip.NFTables, ip.IPTables} {
		text := strings.NewReplacer("NET", s.network.String(), "ONE", ip.Host(s.fdb.Dst).String()).Replace(chains)
		s.Restore(engine, s.family, text)
		want := ip.Reachable(ParseSave(engine, s.family, text))
		ip.SortFilters(want)
		s.hasFilters(engine, want)
	}
}

// hasFilters checks what the snapshot shows of an engine's filters and of the openings in them.
func (s *suite) hasFilters(engine ip.Engine, want []ip.Filter) {
	s.Helper()
	snap := s.snapshot(s.scope())
	var got []ip.Filter
	for _, f := range snap.Filters {
		if f.Engine == engine {
			got = append(got, f)
		}
	}
	lines := func(filters []ip.Filter) string {
		var lines []string
		for _, f := range filters {
			lines = append(lines, fmt.Sprintf("%s %q %q", f.Place, f.Hook, f.Policy))
			for _, r := range f.Rules {
				lines = append(lines, fmt.Sprintf("\t%+v", r))
			}
		}
		return strings.Join(lines, "\n")
	}
	if lines(got) != lines(want) {
		s.Errorf("filters\ngot:\n%s\nwant:\n%s", lines(got), lines(want))
	}
	openings := ip.State{}
	for _, f := range snap.Filters {
		openings.Openings = append(openings.Openings, f.Openings()...)
	}
	openings.Sort()
	s.same(snap.Owned, openings)
}

func (s *suite) openings() {
	for _, engine := range []ip.Engine{ip.NFTables, ip.IPTables} {
		place := ip.Place{Engine: engine, Family: s.family, Table: "filter", Chain: "FORWARD"}
		in := ip.Opening{Place: place, Src: s.network, Dst: s.route.Dst, In: linkName}
		out := ip.Opening{Place: place, Src: s.route.Dst, Dst: s.network, Out: linkName}
		s.apply(add(in), syscall.ENOENT)
		s.apply(del(in), nil)
		text := strings.NewReplacer("NET", s.network.String(), "ONE", ip.Host(s.fdb.Dst).String()).Replace(chains)
		s.Restore(engine, s.family, text)
		before := ip.Reachable(ParseSave(engine, s.family, text))
		ip.SortFilters(before)

		with := func(openings ...ip.Opening) []ip.Filter {
			after := slices.Clone(before)
			for i, f := range after {
				for _, o := range openings {
					if f.Place == o.Place {
						after[i].Rules = o.PutInto(after[i].Rules)
					}
				}
			}
			return after
		}
		user, raw := in, in
		user.Chain = ip.DockerUserChain
		raw.Table, raw.Chain = "raw", "PREROUTING"
		outside, answers := ip.Opening{Place: place, Src: s.route.Dst, Out: linkName}, ip.Opening{Place: place, Dst: s.route.Dst, In: linkName, Known: true}
		published := ip.Opening{Place: place, Dst: s.route.Dst, Out: linkName, DNAT: true}
		replies := ip.Opening{Place: place, Src: s.route.Dst, In: linkName, Known: true}
		local := ip.Opening{Place: place, Src: s.route.Dst, Dst: s.route.Dst, In: linkName, Out: linkName}
		s.must(s.Kernel, add(in), add(out), add(user), add(raw), add(outside), add(answers), add(published), add(replies), add(local))
		s.hasFilters(engine, with(in, out, user, raw, outside, answers, published, replies, local))
		s.apply(add(in), nil) // twice the same is once owned, and goes away at once
		s.hasFilters(engine, with(in, out, user, raw, outside, answers, published, replies, local, in))
		s.must(s.Kernel, del(outside), del(answers), del(published), del(replies), del(local))
		missing := in
		missing.Chain = "MISSING"
		s.apply(add(missing), syscall.ENOENT)
		s.apply(del(missing), nil)
		s.apply(del(in), nil)
		s.hasFilters(engine, with(out, user, raw))
		s.must(s.Kernel, ip.Diff(s.snapshot(s.scope()).Owned, ip.State{})...)
		s.hasFilters(engine, before)
	}
}
