package xtables

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"

	"tulle/ip"
)

const (
	commentMatch = "comment"
	commentSize  = 256 // struct xt_comment_info
	nameLength   = 16  // of an interface, with the zero byte at its end (IFNAMSIZ)
)

// Filters is the table as Tulle understands it: every chain, in the order in which they lie.
func (t *Table) Filters() []ip.Filter {
	filters := make([]ip.Filter, 0, len(t.chains))
	for _, c := range t.chains {
		f := ip.Filter{Place: t.place(c)}
		if c.hook >= 0 {
			f.Hook = t.hook(c.hook)
		}
		if f.Hook != "" {
			f.Policy = ip.Accept
			if v, _ := t.verdict(c.foot); v == verdictDrop {
				f.Policy = ip.Drop
			}
		}
		for _, e := range c.rules {
			f.Rules = append(f.Rules, t.rules(c, e)...)
		}
		filters = append(filters, f)
	}
	return filters
}

func (t *Table) place(c *chain) ip.Place {
	return ip.Place{Engine: ip.IPTables, Family: t.Family, Table: t.Name, Chain: c.name}
}

// hook is where a chain filters packets; empty for other chains.
func (t *Table) hook(h int) ip.Hook {
	if t.Name == "nat" {
		return ""
	}
	return map[string]ip.Hook{"PREROUTING": ip.AtPrerouting, "INPUT": ip.AtInput, "FORWARD": ip.AtForward, "OUTPUT": ip.AtOutput}[hookNames()[h]]
}

// rules reads an entry of the chain c, which is a rule for each range of ports that it names.
func (t *Table) rules(c *chain, e *entry) []ip.FilterRule {
	l := layoutOf(t.Family)
	inverse := e.data[l.inverse]
	var r ip.FilterRule
	var exact [4]bool
	r.Src, exact[0] = t.address(e, l.src, l.srcMask, inverse&invertSrc != 0)
	r.Dst, exact[1] = t.address(e, l.dst, l.dstMask, inverse&invertDst != 0)
	r.In, exact[2] = link(e.data[l.in:], e.data[l.inMask:], inverse&invertIn != 0)
	r.Out, exact[3] = link(e.data[l.out:], e.data[l.outMask:], inverse&invertOut != 0)
	understood := inverse&^(invertIn|invertOut|invertSrc|invertDst) == 0
	r.More = exact != [4]bool{true, true, true, true} || !understood || e.data[l.flags]&^(l.gotoFlag|l.protoFlag) != 0
	if proto := binary.NativeEndian.Uint16(e.data[l.proto:]); understood && proto <= math.MaxUint8 {
		r.Protocol = uint8(proto)
	}
	comment := ""
	var ports []ip.Ports
	for _, m := range t.matches(e) {
		all, named := portsOf(m)
		switch {
		case extensionTitle(m) == commentMatch:
			comment = text(m[extensionHeader:])
		case named && ports == nil:
			ports = all
		case takeStates(&r, m):
		default:
			r.More = true
		}
	}
	t.decide(&r, e)
	ours := r
	ours.Ours = true
	if _, ok := (ip.Filter{Place: t.place(c)}).Opening(ours); ok && comment == ip.OpeningComment && ports == nil {
		return []ip.FilterRule{ours}
	}
	if len(ports) == 0 {
		return []ip.FilterRule{r}
	}
	var each []ip.FilterRule
	for _, p := range ports {
		r.Ports = p
		each = append(each, r)
	}
	return each
}

// decide reads the target.
func (t *Table) decide(r *ip.FilterRule, e *entry) {
	v, standard := t.verdict(e)
	switch {
	case !standard && extensionTitle(t.target(e)) == "REJECT", standard && v == verdictDrop:
		r.Verdict = ip.Drop
	case !standard || e.next:
	case v == verdictAccept:
		r.Verdict = ip.Accept
	case v == verdictReturn:
		r.Verdict = ip.Return
	case e.jump != nil:
		r.Verdict, r.Target = ip.Jump, e.jump.name
		if l := layoutOf(t.Family); e.data[l.flags]&l.gotoFlag != 0 {
			r.Verdict = ip.Goto
		}
	}
}

// matches are the extensions between the entry's own conditions and its target.
func (t *Table) matches(e *entry) [][]byte {
	l := layoutOf(t.Family)
	rest := e.data[l.size:binary.NativeEndian.Uint16(e.data[l.targetOffset:])]
	var all [][]byte
	for len(rest) >= extensionHeader {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < extensionHeader || size > len(rest) {
			break
		}
		all = append(all, rest[:size])
		rest = rest[size:]
	}
	return all
}

// address reads an address with its mask; false if the mask is not that of a prefix.
func (t *Table) address(e *entry, at, maskAt int, not bool) (ip.Match, bool) {
	size := t.Family.Bits() / 8
	mask := e.data[maskAt : maskAt+size]
	ones := 0
	for i, b := range mask {
		n := bits.LeadingZeros8(^b)
		if ones == 8*i {
			ones += n
		} else if b != 0 {
			return ip.Match{}, false
		}
		if b != 0xff<<(8-n) {
			return ip.Match{}, false
		}
	}
	if ones == 0 {
		return ip.Match{}, !not
	}
	addr, _ := netip.AddrFromSlice(e.data[at : at+size])
	return ip.Match{Prefix: netip.PrefixFrom(addr, ones).Masked(), Not: not}, true
}

// link reads an interface with its mask, which covers the zero byte after the name unless any name that begins so will do.
func link(name, mask []byte, not bool) (ip.LinkMatch, bool) {
	name, mask = name[:nameLength], mask[:nameLength]
	n := bytes.IndexByte(mask, 0)
	if n < 0 {
		n = len(mask)
	}
	if n == 0 {
		return ip.LinkMatch{}, !not
	}
	if i := bytes.IndexByte(name[:n], 0); i >= 0 {
		return ip.LinkMatch{Name: string(name[:i]), Not: not}, true
	}
	return ip.LinkMatch{Name: string(name[:n]) + "*", Not: not}, true
}
