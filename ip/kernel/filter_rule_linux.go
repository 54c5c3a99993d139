package kernel

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/xtables"
)

// verdictRegister is the one that ends a rule (NFT_REG_VERDICT).
const verdictRegister = 0

// filterDecoder reads the expressions of a rule of somebody else. What it does not understand becomes More.
type filterDecoder struct {
	rule  ip.FilterRule
	table ip.Family  // zero: both
	load  expr.Any   // what the last expression put into a register
	mask  []byte     // what was applied to it since
	oneOf [][]choice // what one of a set each must hold for
}

// choice is a condition that is met by one element of a set.
type choice func(*ip.FilterRule)

// decodeFilterRule reads a rule in a table of family f, zero for both. What it looks up in sets is not understood.
func decodeFilterRule(f ip.Family, exprs []expr.Any) ip.FilterRule {
	d := filterDecoder{table: f}
	_ = d.read(exprs, nil) // only looking up fails
	d.rule.More = d.rule.More || len(d.oneOf) > 0
	return d.rule
}

// decodeFilterRules is decodeFilterRule with the elements of sets looked up. It makes a rule for each of those that can be met.
func decodeFilterRules(f ip.Family, exprs []expr.Any, lookUp func(set string) ([]nftables.SetElement, error)) ([]ip.FilterRule, error) {
	d := filterDecoder{table: f}
	if err := d.read(exprs, lookUp); err != nil {
		return nil, err
	}
	rules := []ip.FilterRule{d.rule}
	for _, choices := range d.oneOf {
		if len(rules)*len(choices) > mostChoices {
			d.rule.More = true
			return []ip.FilterRule{d.rule}, nil
		}
		var each []ip.FilterRule
		for _, r := range rules {
			for _, choose := range choices {
				one := r
				choose(&one)
				each = append(each, one)
			}
		}
		rules = each
	}
	return rules, nil
}

// read takes in the expressions of a rule.
func (d *filterDecoder) read(exprs []expr.Any, lookUp func(set string) ([]nftables.SetElement, error)) error {
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Payload, *expr.Meta, *expr.Ct:
			d.load, d.mask = e, nil
		case *expr.Bitwise:
			d.mask = e.Mask
		case *expr.Cmp:
			if !d.compare(e) {
				d.rule.More = true
			}
			if !isPort(d.load) { // a range of ports is compared twice
				d.load = nil
			}
			d.mask = nil
		case *expr.Range: // as iptables-nft(8) has it
			if !isPort(d.load) || d.mask != nil || e.Op != expr.CmpOpEq || len(e.FromData) != 2 || len(e.ToData) != 2 || d.rule.Ports != (ip.Ports{}) {
				d.rule.More = true
				continue
			}
			d.rule.Ports = ip.Ports{First: binary.BigEndian.Uint16(e.FromData), Last: binary.BigEndian.Uint16(e.ToData)}
		case *expr.Verdict:
			setVerdict(&d.rule, e)
		case *expr.Reject:
			d.rule.Verdict = ip.Drop
		case *expr.Target:
			if e.Name == "REJECT" {
				d.rule.Verdict = ip.Drop
			}
		case *expr.Match:
			d.match(e)
		case *expr.Lookup:
			if e.IsDestRegSet && e.DestRegister == verdictRegister {
				continue
			}
			if lookUp == nil || e.IsDestRegSet || e.Invert || d.mask != nil || !isPort(d.load) && !d.isProtocol(d.load) {
				d.rule.More = true
				continue
			}
			elements, err := lookUp(e.SetName)
			if err != nil {
				return err
			}
			if !d.choose(elements) {
				d.rule.More = true
			}
		case *expr.Counter, *expr.Log, *expr.Objref, *expr.Immediate, *expr.Notrack:
		default:
			d.load, d.mask, d.rule.More = nil, nil, true
		}
	}
	return nil
}

// isPort reports whether a load is that of the destination port of UDP, TCP and their like.
func isPort(load expr.Any) bool {
	p, ok := load.(*expr.Payload)
	return ok && p.Base == expr.PayloadBaseTransportHeader && p.Offset == 2 && p.Len == 2
}

// isProtocol reports whether a load is that of what an IP packet carries.
func (d *filterDecoder) isProtocol(load expr.Any) bool {
	switch load := load.(type) {
	case *expr.Meta:
		return load.Key == expr.MetaKeyL4PROTO && !load.SourceRegister
	case *expr.Payload:
		family := d.family()
		return load.Base == expr.PayloadBaseNetworkHeader && load.Len == 1 &&
			(family == ip.IPv4 && load.Offset == 9 || family == ip.IPv6 && load.Offset == 6)
	}
	return false
}

// choose takes in that what was loaded is one of a set; false if that is not understood.
func (d *filterDecoder) choose(elements []nftables.SetElement) bool {
	size := 1
	if isPort(d.load) {
		size = 2
	}
	for _, e := range elements {
		if len(e.Key) != size || len(e.KeyEnd) > 0 {
			return false
		}
	}
	var choices []choice
	if size == 2 {
		for _, p := range portsOf(elements) {
			choices = append(choices, func(r *ip.FilterRule) { r.Ports = p })
		}
	} else {
		for _, e := range elements {
			choices = append(choices, func(r *ip.FilterRule) { r.Protocol = e.Key[0] })
		}
	}
	if size == 2 && d.rule.Ports != (ip.Ports{}) || size == 1 && d.rule.Protocol != 0 {
		return false
	}
	d.oneOf = append(d.oneOf, choices)
	return true
}

// mostChoices is how many rules are made of one with sets; one with more is not understood.
const mostChoices = 1000

// portsOf reads the elements of a set of ports: if it has intervals, each element that ends one is the first that is not in it.
func portsOf(elements []nftables.SetElement) []ip.Ports {
	port := func(e nftables.SetElement) uint16 { return binary.BigEndian.Uint16(e.Key) }
	elements = slices.SortedStableFunc(slices.Values(elements), func(a, b nftables.SetElement) int { return cmp.Compare(port(a), port(b)) })
	intervals := slices.ContainsFunc(elements, func(e nftables.SetElement) bool { return e.IntervalEnd })
	var all []ip.Ports
	for i, e := range elements {
		switch {
		case e.IntervalEnd:
		case !intervals:
			all = append(all, ip.Ports{First: port(e), Last: port(e)})
		case i+1 < len(elements):
			all = append(all, ip.Ports{First: port(e), Last: port(elements[i+1]) - 1})
		default:
			all = append(all, ip.Ports{First: port(e), Last: math.MaxUint16})
		}
	}
	return all
}

// match takes in an extension of iptables.
func (d *filterDecoder) match(m *expr.Match) {
	states, ok := statesOf(m)
	switch {
	case m.Name == "comment":
	case m.Name == "udp", m.Name == "tcp", m.Name == "multiport":
		d.matchPorts(m)
	case ok && states == stateDNAT:
		d.rule.DNAT = true
	case !ok || states&(stateSNAT|stateDNAT) != 0 || !setStates(&d.rule, uint32(states)):
		d.rule.More = true
	}
}

// matchPorts takes in the ports that an extension of iptables asks for. What the packets carry has been compared before.
func (d *filterDecoder) matchPorts(m *expr.Match) {
	var ports []ip.Ports
	ok := false
	switch info := m.Info.(type) {
	case *xt.Udp:
		ports, ok = xtables.PortsOf(info.SrcPorts, info.DstPorts, uint8(info.InvFlags))
	case *xt.Tcp:
		ports, ok = xtables.PortsOf(info.SrcPorts, info.DstPorts, uint8(info.InvFlags))
		ok = ok && info.Option == 0 && info.FlagsMask == 0
	case *xt.Unknown:
		if m.Name == "multiport" && m.Rev == 1 {
			ports, ok = xtables.MultiportsOf(*info)
		}
	}
	switch {
	case !ok || d.rule.Ports != ip.Ports{}:
		d.rule.More = true
	case len(ports) == 1:
		d.rule.Ports = ports[0]
	case len(ports) > 1:
		var choices []choice
		for _, p := range ports {
			choices = append(choices, func(r *ip.FilterRule) { r.Ports = p })
		}
		d.oneOf = append(d.oneOf, choices)
	}
}

func setVerdict(r *ip.FilterRule, v *expr.Verdict) {
	switch v.Kind {
	case expr.VerdictAccept:
		r.Verdict = ip.Accept
	case expr.VerdictDrop:
		r.Verdict = ip.Drop
	case expr.VerdictReturn:
		r.Verdict = ip.Return
	case expr.VerdictJump:
		r.Verdict, r.Target = ip.Jump, v.Chain
	case expr.VerdictGoto:
		r.Verdict, r.Target = ip.Goto, v.Chain
	}
}

// compare takes in a comparison; false if it is not understood.
func (d *filterDecoder) compare(c *expr.Cmp) bool {
	switch load := d.load.(type) {
	case *expr.Payload:
		if isPort(load) {
			return d.comparePort(c)
		}
		if d.isProtocol(load) {
			return d.compareProtocol(c)
		}
		return d.compareAddress(load, c)
	case *expr.Meta:
		if load.Key == expr.MetaKeyMARK {
			return d.compareMark(c)
		}
		if d.isProtocol(load) {
			return d.compareProtocol(c)
		}
		return d.mask == nil && !load.SourceRegister && d.compareMeta(load, c)
	case *expr.Ct:
		// "ct state …" and "ct status …" are: what remains of the word under the mask is not zero.
		if c.Op != expr.CmpOpNeq || len(d.mask) != 4 || len(bytes.Trim(c.Data, "\x00")) != 0 {
			return false
		}
		word := binary.NativeEndian.Uint32(d.mask)
		switch {
		case load.Key == expr.CtKeySTATE:
			return setStates(&d.rule, word)
		case load.Key == expr.CtKeySTATUS && word == statusDNAT:
			d.rule.DNAT = true
			return true
		}
	}
	return false
}

func (d *filterDecoder) compareAddress(load *expr.Payload, c *expr.Cmp) bool {
	family := d.family()
	if family == 0 {
		return false
	}
	m, ok := decodeMatch(family, load, d.mask, c)
	src, dst := addressOffsets(family)
	switch {
	case !ok:
	case load.Offset == src && d.rule.Src == ip.Match{}:
		d.rule.Src = m
		return true
	case load.Offset == dst && d.rule.Dst == ip.Match{}:
		d.rule.Dst = m
		return true
	}
	return false
}

// family is that of the packets, as far as the rule has said so far.
func (d *filterDecoder) family() ip.Family {
	if d.table != 0 {
		return d.table
	}
	return d.rule.Family
}

func (d *filterDecoder) compareProtocol(c *expr.Cmp) bool {
	if c.Op != expr.CmpOpEq || len(c.Data) != 1 || d.mask != nil || d.rule.Protocol != 0 && d.rule.Protocol != c.Data[0] {
		return false
	}
	d.rule.Protocol = c.Data[0]
	return true
}

// comparePort takes in the port, or one end of a range of ports, of which the first comes first.
func (d *filterDecoder) comparePort(c *expr.Cmp) bool {
	if len(c.Data) != 2 || d.mask != nil {
		return false
	}
	port := binary.BigEndian.Uint16(c.Data)
	switch {
	case c.Op == expr.CmpOpEq && d.rule.Ports == ip.Ports{}:
		d.rule.Ports = ip.Ports{First: port, Last: port}
	case c.Op == expr.CmpOpGte && d.rule.Ports == ip.Ports{}:
		d.rule.Ports = ip.Ports{First: port, Last: math.MaxUint16}
	case c.Op == expr.CmpOpLte && d.rule.Ports == ip.Ports{}:
		d.rule.Ports = ip.Ports{Last: port}
	case c.Op == expr.CmpOpLte && d.rule.Ports.Last == math.MaxUint16 && d.rule.Ports.First <= port:
		d.rule.Ports.Last = port
	default:
		return false
	}
	return true
}

// compareMark takes in that all bits under the mask are set in the firewall mark.
func (d *filterDecoder) compareMark(c *expr.Cmp) bool {
	if c.Op != expr.CmpOpEq || len(c.Data) != 4 || d.rule.Mark != 0 || d.mask != nil && !bytes.Equal(d.mask, c.Data) {
		return false
	}
	d.rule.Mark = binary.NativeEndian.Uint32(c.Data)
	return d.rule.Mark != 0
}

func (d *filterDecoder) compareMeta(load *expr.Meta, c *expr.Cmp) bool {
	not := c.Op == expr.CmpOpNeq
	if !not && c.Op != expr.CmpOpEq {
		return false
	}
	if load.Key == expr.MetaKeyNFPROTO && !not && len(c.Data) == 1 {
		d.rule.Family = map[byte]ip.Family{unix.NFPROTO_IPV4: ip.IPv4, unix.NFPROTO_IPV6: ip.IPv6}[c.Data[0]]
		return d.rule.Family != 0
	}
	if load.Key == expr.MetaKeyIIF && len(c.Data) == 4 && binary.NativeEndian.Uint32(c.Data) == loopbackIndex {
		return setLink(&d.rule, expr.MetaKeyIIFNAME, ip.LinkMatch{Name: "lo", Not: not})
	}
	return setLink(&d.rule, load.Key, ip.LinkMatch{Name: linkPattern(c.Data), Not: not})
}

// statusDNAT is the bit of a connection whose destination was translated (IPS_DST_NAT).
const statusDNAT = 1 << 5

// setStates takes in that the connection is in one of the states, given as a word of bits; false if some packets of the
// connections that the rule may match are not in any of them.
func setStates(r *ip.FilterRule, states uint32) bool {
	if states == expr.CtStateBitNEW && !r.Known {
		r.New = true
		return true
	}
	r.Known = r.Known || states&expr.CtStateBitNEW == 0
	return r.Known && states&expr.CtStateBitESTABLISHED != 0
}

func setLink(r *ip.FilterRule, key expr.MetaKey, m ip.LinkMatch) bool {
	switch {
	case key == expr.MetaKeyIIFNAME && r.In == ip.LinkMatch{}:
		r.In = m
	case key == expr.MetaKeyOIFNAME && r.Out == ip.LinkMatch{}:
		r.Out = m
	default:
		return false
	}
	return true
}

// linkPattern reads a name as rules compare it: with the zero byte at its end, or without for all that begin so.
func linkPattern(data []byte) string {
	if name, _, whole := bytes.Cut(data, []byte{0}); whole {
		return string(name)
	}
	return string(data) + "*"
}

// decodeKey takes in that load has the value of a map's key.
func decodeKey(r *ip.FilterRule, load expr.Any, key []byte) bool {
	switch load := load.(type) {
	case *expr.Meta:
		return len(key) == unix.IFNAMSIZ && setLink(r, load.Key, ip.LinkMatch{Name: linkPattern(key)})
	case *expr.Payload:
		if isPort(load) && len(key) == 2 && r.Ports == (ip.Ports{}) {
			port := binary.BigEndian.Uint16(key)
			r.Ports = ip.Ports{First: port, Last: port}
			return true
		}
	case *expr.Ct:
		return load.Key == expr.CtKeySTATE && len(key) == 4 && setStates(r, binary.NativeEndian.Uint32(key))
	}
	return false
}

// decodeVerdict reads the verdict that a map holds (NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN).
func decodeVerdict(data []byte) *expr.Verdict {
	const header, code = 4, 8 // bytes of an attribute's header, and of the first attribute
	var v expr.Verdict
	if len(data) >= code {
		v.Kind = expr.VerdictKind(int32(binary.BigEndian.Uint32(data[header:])))
	}
	if len(data) > code+header {
		v.Chain = strings.TrimRight(string(data[code+header:]), "\x00")
	}
	return &v
}
