package kernel

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// verdictRegister is the one that ends a rule (NFT_REG_VERDICT).
const verdictRegister = 0

// filterDecoder reads the expressions of a rule of somebody else. What it does not understand becomes More.
type filterDecoder struct {
	rule  ip.FilterRule
	table ip.Family // zero: both
	load  expr.Any  // what the last expression put into a register
	mask  []byte    // what was applied to it since
}

// decodeFilterRule reads a rule in a table of family f, zero for both.
func decodeFilterRule(f ip.Family, exprs []expr.Any) ip.FilterRule {
	d := filterDecoder{table: f}
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
			d.load, d.mask = nil, nil
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
			if !e.IsDestRegSet || e.DestRegister != verdictRegister {
				d.rule.More = true
			}
		case *expr.Counter, *expr.Log, *expr.Objref, *expr.Immediate, *expr.Notrack:
		default:
			d.rule.More = true
		}
	}
	return d.rule
}

// match takes in an extension of iptables.
func (d *filterDecoder) match(m *expr.Match) {
	states, ok := statesOf(m)
	switch {
	case m.Name == "comment":
	case ok && states == stateDNAT:
		d.rule.DNAT = true
	case !ok || states&(stateSNAT|stateDNAT) != 0 || !setStates(&d.rule, uint32(states)):
		d.rule.More = true
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
		return d.compareAddress(load, c)
	case *expr.Meta:
		if load.Key == expr.MetaKeyMARK {
			return d.compareMark(c)
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
	family := d.table
	if family == 0 {
		family = d.rule.Family
	}
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
	return setLink(&d.rule, load.Key, ip.LinkMatch{Name: linkPattern(c.Data), Not: not})
}

// statusDNAT is the bit of a connection whose destination was translated (IPS_DST_NAT).
const statusDNAT = 1 << 5

// setStates takes in that the connection is in one of the states, given as a word of bits; false if some packets of the
// connections that the rule may match are not in any of them.
func setStates(r *ip.FilterRule, states uint32) bool {
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
