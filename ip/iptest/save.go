package iptest

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tulle/ip"
)

// ParseSave reads what iptables-save(8) of the engine would write, as far as Tulle understands it.
func ParseSave(engine ip.Engine, family ip.Family, text string) []ip.Filter {
	var filters []ip.Filter
	table := ip.Place{Engine: engine, Family: family}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "COMMIT":
		case line[0] == '*':
			table.Table = words[0][1:]
		case line[0] == ':':
			f := ip.Filter{Place: table}
			f.Chain = words[0][1:]
			if hook, ok := map[string]ip.Hook{"PREROUTING": ip.AtPrerouting, "INPUT": ip.AtInput, "FORWARD": ip.AtForward, "OUTPUT": ip.AtOutput}[f.Chain]; ok {
				f.Hook, f.Policy = hook, verdict(words[1])
			}
			filters = append(filters, f)
		case words[0] == "-A":
			for i := range filters {
				if f := &filters[i]; f.Chain == words[1] && f.Table == table.Table {
					f.Rules = append(f.Rules, parseRule(*f, words[2:]))
				}
			}
		default:
			panic(fmt.Sprintf("iptables-save line %q", line))
		}
	}
	return filters
}

func parseRule(f ip.Filter, words []string) ip.FilterRule {
	var r ip.FilterRule
	not := false
	comment := ""
	for i := 0; i < len(words); i++ {
		word := words[i]
		if word == "!" {
			not = true
			continue
		}
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		known := true
		switch word {
		case "-s":
			r.Src = ip.Match{Prefix: netip.MustParsePrefix(value), Not: not}
		case "-d":
			r.Dst = ip.Match{Prefix: netip.MustParsePrefix(value), Not: not}
		case "-i":
			r.In = ip.LinkMatch{Name: strings.Replace(value, "+", "*", 1), Not: not}
		case "-o":
			r.Out = ip.LinkMatch{Name: strings.Replace(value, "+", "*", 1), Not: not}
		case "-j":
			if r.Verdict = verdict(value); r.Verdict == ip.Jump {
				r.Target = value
			}
		case "-g":
			r.Verdict, r.Target = ip.Goto, value
		case "-p":
			r.Protocol, r.More = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17}[value], r.More || not
			if not {
				r.Protocol = 0
			}
		case "-m":
			r.More = r.More || !slices.Contains([]string{"comment", "conntrack", "tcp", "udp"}, value)
		case "--dport":
			ports, ok := parsePorts(value)
			if r.Ports = ports; !ok || not {
				r.Ports, r.More = ip.Ports{}, true
			}
		case "--ctstate":
			parseStates(&r, strings.Split(value, ","))
		case "--comment":
			comment = value
		case "--reject-with":
		default:
			r.More, known = true, false
		}
		if known {
			i++
		}
		not = false
	}
	ours := r
	ours.Ours = true
	if _, ok := f.Opening(ours); ok && comment == ip.OpeningComment {
		return ours
	}
	return r
}

// parsePorts reads a port, or the first and the last with a colon between them.
func parsePorts(text string) (p ip.Ports, ok bool) {
	first, last, several := strings.Cut(text, ":")
	if !several {
		last = first
	}
	from, err := strconv.ParseUint(first, 10, 16)
	to, toErr := strconv.ParseUint(last, 10, 16)
	return ip.Ports{First: uint16(from), Last: uint16(to)}, err == nil && toErr == nil
}

// parseStates reads the states of connections that a rule asks for.
func parseStates(r *ip.FilterRule, states []string) {
	has := func(state string) bool { return slices.Contains(states, state) }
	switch translated := has("SNAT") || has("DNAT"); {
	case translated && slices.Equal(states, []string{"DNAT"}):
		r.DNAT = true
	case translated:
		r.More = true
	case !r.Known && slices.Equal(states, []string{"NEW"}):
		r.New = true
	default:
		r.Known = r.Known || !has("NEW")
		r.More = r.More || !r.Known || !has("ESTABLISHED")
	}
}

// verdict is what -j and a policy stand for: a target in capitals that is none of these lets the packet go on.
func verdict(target string) ip.Verdict {
	switch target {
	case "ACCEPT":
		return ip.Accept
	case "DROP", "REJECT":
		return ip.Drop
	case "RETURN":
		return ip.Return
	case "LOG", "MARK", "MASQUERADE":
		return ""
	}
	return ip.Jump
}
