package ip

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The commands are what an operator would type. Where ip(8) has no exact counterpart, the nearest one is printed.

func (l Link) command(verb Verb, old Object) string {
	if verb == Delete {
		return "ip link del dev " + ShellWord(l.Name)
	}
	if verb == Add {
		c := "ip link add " + ShellWord(l.Name)
		if l.Kind == nil || l.Kind.Ethernet() {
			c += " address " + l.MAC.String()
		}
		c += fmt.Sprintf(" mtu %d", l.MTU)
		if l.Kind != nil {
			c += " type " + l.Kind.Type() + " " + l.Kind.options()
		}
		return c
	}
	was, _ := old.(Link)
	c := "ip link set dev " + ShellWord(l.Name)
	if was.MAC != l.MAC {
		c += " address " + l.MAC.String()
	}
	if was.MTU != l.MTU {
		c += fmt.Sprintf(" mtu %d", l.MTU)
	}
	if was.Master != l.Master {
		c += " " + ifElse(l.Master == "", "nomaster", "master "+ShellWord(l.Master))
	}
	if was.NoARP != l.NoARP {
		c += " arp " + ifElse(l.NoARP, "off", "on")
	}
	if was.Up != l.Up {
		c += " " + ifElse(l.Up, "up", "down")
	}
	return c
}

func (s Sysctl) command(Verb, Object) string {
	return "sysctl -w " + ShellWord(s.Key) + "=" + ShellWord(s.Value)
}

func (a Addr) command(verb Verb, _ Object) string {
	if verb == Delete {
		return fmt.Sprintf("ip address del %s dev %s", a.Prefix, ShellWord(a.Link))
	}
	return fmt.Sprintf("ip address add %s dev %s%s", a.Prefix, ShellWord(a.Link), ifElse(a.Prefix.Addr().Is6(), " nodad", ""))
}

func (f FDB) command(verb Verb, _ Object) string {
	if verb == Delete {
		return fmt.Sprintf("bridge fdb del %s dev %s dst %s self", f.MAC, ShellWord(f.Link), f.Dst)
	}
	return fmt.Sprintf("bridge fdb replace %s dev %s dst %s self permanent", f.MAC, ShellWord(f.Link), f.Dst)
}

func (n Neighbor) command(verb Verb, _ Object) string {
	if verb == Delete {
		return fmt.Sprintf("ip neigh del %s dev %s", n.IP, ShellWord(n.Link))
	}
	return fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", n.IP, n.MAC, ShellWord(n.Link))
}

func (r Route) command(verb Verb, _ Object) string {
	var b strings.Builder
	b.WriteString("ip ")
	if r.Dst.Addr().Is6() {
		b.WriteString("-6 ")
	}
	fmt.Fprintf(&b, "route %s %s", ifElse(verb == Delete, "del", "replace"), r.Dst)
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	fmt.Fprintf(&b, " dev %s proto %d metric %d", ShellWord(r.Link), r.Protocol, r.Metric)
	if r.OnLink && verb != Delete {
		b.WriteString(" onlink")
	}
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	return b.String()
}

func (d UnreachableRoute) command(verb Verb, _ Object) string {
	return fmt.Sprintf("ip %sroute %s unreachable %s proto %d metric %d",
		ifElse(d.Dst.Addr().Is6(), "-6 ", ""), ifElse(verb == Delete, "del", "replace"), d.Dst, Protocol, uint32(LastMetric))
}

func (t Table) command(verb Verb, _ Object) string {
	f, name := nftFamily(t.Family), TableOf(TableName, t.Net)
	if verb == Delete {
		return fmt.Sprintf("nft delete table %s %s", f, name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%sadd table %s %s;", ifElse(verb == Replace, fmt.Sprintf("delete table %s %s; ", f, name), ""), f, name)
	if t.Counts() {
		fmt.Fprintf(&b, " add counter %s %s %s;", f, name, CountSpoofed)
	}
	declared := map[Chain]bool{}
	for _, r := range t.Rules {
		if !declared[r.Chain] {
			declared[r.Chain] = true
			fmt.Fprintf(&b, " add chain %s %s %s { %s; };", f, name, r.Chain, r.Chain.hook())
		}
		fmt.Fprintf(&b, " add rule %s %s %s %s;", f, name, r.Chain, r.Text())
	}
	return "nft " + ShellWord(strings.TrimSuffix(b.String(), ";"))
}

// hook is the base chain's declaration in nft(8) syntax.
func (c Chain) hook() string {
	switch c {
	case Keeping:
		return "type nat hook postrouting priority srcnat - 1"
	case Postrouting:
		return "type nat hook postrouting priority srcnat"
	case Marking:
		return "type filter hook forward priority filter - 1; policy accept"
	}
	return "type filter hook forward priority filter; policy accept"
}

func (o Opening) command(verb Verb, _ Object) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s -t %s %s %s", o.program(), o.Table, ifElse(verb == Delete, "-D", ifElse(o.Last(), "-A", "-I")), ShellWord(o.Chain))
	for _, option := range []struct {
		text string
		set  bool
	}{
		{" -s " + o.Src.String(), o.Src.IsValid()},
		{" -d " + o.Dst.String(), o.Dst.IsValid()},
		{" -i " + ShellWord(o.In), o.In != ""},
		{" -o " + ShellWord(o.Out), o.Out != ""},
		{" -m conntrack --ctstate RELATED,ESTABLISHED", o.Known},
		{" -m conntrack --ctstate DNAT", o.DNAT},
	} {
		if option.set {
			b.WriteString(option.text)
		}
	}
	return b.String() + " -m comment --comment " + OpeningComment + " -j ACCEPT"
}

func (l Leftover) command(verb Verb, _ Object) string {
	f := nftFamily(l.Family)
	switch del := verb == Delete; {
	case l.Engine == IPTables:
		return fmt.Sprintf("%s -t %s %s %s", Place(l).program(), l.Table, ifElse(del, "-X", "-N"), l.Chain)
	case l.Chain == "":
		return fmt.Sprintf("nft %s table %s %s", ifElse(del, "delete", "add"), f, l.Table)
	default:
		return fmt.Sprintf("nft %s chain %s %s %s", ifElse(del, "delete", "add"), f, l.Table, l.Chain)
	}
}

// ShellWord quotes a name or path that others chose for a shell, as operators paste commands. The kernel lets interfaces be called $(reboot).
func ShellWord(name string) string {
	safe := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-+:@%/", r)
	}
	if name != "" && !strings.ContainsFunc(name, func(r rune) bool { return !safe(r) }) {
		return name
	}
	// Of what does not show as itself, package printable would escape the whole line, backslashes too, and so undo the quoting.
	unseen := func(r rune) bool {
		return !unicode.IsPrint(r) || unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r) ||
			unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, unseen) {
		// bash(1), ANSI-C quoting
		quoted := strconv.QuoteToASCII(name)
		return "$'" + strings.ReplaceAll(quoted[1:len(quoted)-1], "'", `\'`) + "'"
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

func ifElse(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}
