package doctor

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"tulle/internal/printable"
	"tulle/internal/trouble"
)

// told takes over what tulled tells under a code, with the commands that its text names.
func told(code trouble.Code) func(Facts) []Finding {
	return func(f Facts) (all []Finding) {
		if f.Status == nil {
			return nil
		}
		for _, t := range f.Status.Troubles {
			if t.Code != code {
				continue
			}
			finding := Finding{Severity: t.Severity, Network: t.Network, Subject: t.Subject, Text: t.Text, Remedy: t.Remedy}
			if finding.Fix, finding.Undo = pasted(t.Text); len(finding.Fix) > 0 {
				finding.Text, finding.Remedy = withoutAdvice(t.Text), ""
			}
			if strings.HasSuffix(string(code), ".uncertain") {
				finding.Sure = Likely
			}
			all = append(all, finding)
		}
		if more := f.Status.Count[code] - len(all); more > 0 && len(all) > 0 {
			all[len(all)-1].Text += fmt.Sprintf(" (and %d more like it: tulle status)", more)
		}
		return all
	}
}

// A command in a text of tulled's ends where the next begins, or with the text.
var (
	accepting  = regexp.MustCompile(`as by ((?:nft insert rule|ip6?tables)\b.*)$`)
	firewalld  = regexp.MustCompile(`run (firewall-cmd .*) and (firewall-cmd --reload)$`)
	running    = regexp.MustCompile(`\brun (sysctl -w \S+|tulle docker configure --restart)`)
	filtering  = regexp.MustCompile(`\brun ((?:nft insert rule|ip6?tables(?:-legacy)?) .*)$`)
	moving     = regexp.MustCompile(`(ip address del \S+ dev .+) is run$`)
	inserted   = regexp.MustCompile(`^nft insert rule (\S+ \S+ \S+) `)
	ruledFirst = regexp.MustCompile(`asked before that leads there: (ip [^;]*)`)
)

// pasted finds the commands of a text that mend what it tells of, and what takes those back that change anything that lasts.
func pasted(text string) (fix, undo []string) {
	switch {
	case accepting.MatchString(text):
		fix = strings.Split(accepting.FindStringSubmatch(text)[1], " and ")
	case firewalld.MatchString(text):
		fix = firewalld.FindStringSubmatch(text)[1:]
		undo = []string{strings.ReplaceAll(fix[0], "--add-source", "--remove-source"), fix[1]}
	case filtering.MatchString(text):
		fix = strings.Split(filtering.FindStringSubmatch(text)[1], " and ")
	case moving.MatchString(text):
		fix = []string{moving.FindStringSubmatch(text)[1]}
		undo = []string{strings.Replace(fix[0], " del ", " add ", 1)}
	case running.MatchString(text):
		fix = []string{running.FindStringSubmatch(text)[1]}
	}
	if slices.ContainsFunc(fix, func(command string) bool { return !plain(command) }) {
		return nil, nil
	}
	for _, command := range fix {
		if m := inserted.FindStringSubmatch(command); m != nil {
			// What was inserted is the chain's first rule; its handle is told by a listing alone (nft(8)).
			undo = append(undo, fmt.Sprintf(`nft delete rule %s handle "$(nft -a list chain %s | sed -n 's/.* accept # handle //p' | head -n 1)"`, m[1], m[1]))
		} else if strings.Contains(command, "tables") {
			undo = append(undo, strings.Replace(command, " -I ", " -D ", 1))
		}
	}
	return fix, undo
}

// plain reports whether a shell takes a command of others' making for one command alone: names of tables and the like may be anything.
func plain(command string) bool {
	return printable.Text(command, printable.Line) == command && !strings.ContainsAny(command, ";&|<>$`\\\"()#*?~")
}

// withoutAdvice is a text of tulled's up to where it says what to do: the commands stand beside it.
func withoutAdvice(text string) string {
	for _, advice := range []string{": its owner must ", ": a route or policy rule of another ", ": run ", ": for a Docker network, ", ": take away ", ": add a route "} {
		text, _, _ = strings.Cut(text, advice)
	}
	return text
}

// led is told, for what a route or policy rule of another program brings about: it names the one, if it is known which.
func led(code trouble.Code) func(Facts) []Finding {
	return func(f Facts) []Finding {
		all := told(code)(f)
		for i := range all {
			if len(all[i].Fix) > 0 {
				continue
			}
			if o, ok := leader(f.Others, all[i].Text); ok {
				all[i].Text = withoutAdvice(all[i].Text)
				all[i].Fix, all[i].Undo, all[i].Remedy, all[i].Sure = []string{o.command("del")}, nil, "", Likely
				if !o.Blind {
					all[i].Undo = []string{o.command("add")}
				}
			} else if m := ruledFirst.FindStringSubmatch(all[i].Text); m != nil && plain(strings.ReplaceAll(m[1], " && ", " ")) {
				all[i].Fix, all[i].Remedy = strings.Split(strings.TrimSpace(m[1]), " && "), ""
			}
		}
		return all
	}
}

func (o Other) command(verb string) string {
	program, what := "ip", "route"
	if o.Family == "ipv6" {
		program = "ip -6"
	}
	if o.Rule {
		what = "rule"
	}
	return strings.Join([]string{program, what, verb, o.Spec}, " ")
}

// leader finds what another program has put in the way of the packets that a text tells of: a route for their destination, or else a policy rule that
// is for their addresses. If several may be it, none is.
func leader(others []Other, text string) (Other, bool) {
	addrs, prefixes := named(text)
	if len(addrs) == 0 {
		return Other{}, false
	}
	others = slices.DeleteFunc(slices.Clone(others), func(o Other) bool { return !plain(o.Spec) })
	concerns := func(p netip.Prefix) bool {
		return slices.ContainsFunc(addrs, p.Contains) || slices.ContainsFunc(prefixes, func(q netip.Prefix) bool { return q.Bits() > 0 && p.Bits() >= q.Bits() && q.Overlaps(p) })
	}
	for _, is := range []func(Other) bool{
		func(o Other) bool { return !o.Rule && concerns(o.Dst) && strings.Contains(text, tableOf(o)) },
		func(o Other) bool { return !o.Rule && concerns(o.Dst) },
		func(o Other) bool { return o.Rule && o.Dst.IsValid() && concerns(o.Dst) },
		func(o Other) bool { return o.Rule && !o.Dst.IsValid() },
	} {
		if some := slices.DeleteFunc(slices.Clone(others), func(o Other) bool { return !is(o) }); len(some) == 1 {
			return some[0], true
		} else if len(some) > 1 {
			return Other{}, false
		}
	}
	return Other{}, false
}

// tableOf is how a text names the table of a route.
func tableOf(o Other) string {
	if o.Table == 254 || o.Table == 0 {
		return "table main"
	}
	return fmt.Sprintf("table %d", o.Table)
}

// named lists the addresses and prefixes in a text, up to its advice.
func named(text string) (addrs []netip.Addr, prefixes []netip.Prefix) {
	text, _, _ = strings.Cut(text, ": ")
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" ,;()", r) }) {
		if a, err := netip.ParseAddr(word); err == nil {
			addrs = append(addrs, a)
		} else if p, err := netip.ParsePrefix(word); err == nil {
			prefixes = append(prefixes, p)
		}
	}
	return addrs, prefixes
}
