package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"reflect"

	"github.com/google/nftables/expr"

	"tulle/ip"
)

// register is the one that rules load an address into (NFT_REG_1).
const register = 1

// encodeRule compiles a rule for a table of family f.
func encodeRule(f ip.Family, r ip.Rule) ([]expr.Any, error) {
	src, dst := addressOffsets(f)
	exprs := append(encodeMark(r.Mark), encodeLink(expr.MetaKeyIIFNAME, r.In)...)
	for _, m := range []struct {
		ip.Match
		offset uint32
	}{{r.Src, src}, {r.Dst, dst}} {
		more, err := encodeMatch(f, m.Match, m.offset)
		if err != nil {
			return nil, err
		}
		exprs = append(exprs, more...)
	}
	if r.Unrouted {
		exprs = append(exprs, unrouted()...)
	}
	switch r.Verdict {
	case ip.DropSpoof:
		return append(exprs, countAndDrop(ip.CountSpoofed)...), nil
	case ip.Accept:
		return append(exprs, &expr.Verdict{Kind: expr.VerdictAccept}), nil
	case ip.Masquerade:
		return append(exprs, &expr.Masq{}), nil
	case ip.KeepSource:
		return append(exprs, keepSource(f)...), nil
	case ip.SetMark:
		return append(exprs, setMark()...), nil
	}
	return nil, fmt.Errorf("rule %q: unknown verdict", r.Text())
}

// encodeMark compares bits of the firewall mark, if there are any to compare.
func encodeMark(bits uint32) []expr.Any {
	if bits == 0 {
		return nil
	}
	word := binary.NativeEndian.AppendUint32(nil, bits)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: word, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: word},
	}
}

// keepSource translates the source address to what it is.
func keepSource(f ip.Family) []expr.Any {
	src, _ := addressOffsets(f)
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: src, Len: uint32(f.Bits() / 8)},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(tableFamily(f)), RegAddrMin: register, RegAddrMax: register},
	}
}

// setMark sets the bit in the mark and leaves the others.
func setMark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, ^uint32(ip.Mark)), Xor: binary.NativeEndian.AppendUint32(nil, ip.Mark),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register},
	}
}

func encodeMatch(f ip.Family, m ip.Match, offset uint32) ([]expr.Any, error) {
	if !m.Prefix.IsValid() {
		return nil, nil
	}
	if ip.FamilyOf(m.Prefix.Addr()) != f {
		return nil, fmt.Errorf("match %s: not in the family of the table", m.Prefix)
	}
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	if op == expr.CmpOpEq && m.Prefix.Bits() > 0 {
		return encodeWords(m.Prefix, offset), nil
	}
	return encodePrefix(f, m.Prefix, op, offset), nil
}

// wordBits is what the kernel loads, masks and compares without a call, as it does with a half and a quarter of it (nft_payload_fast_ops,
// nft_bitwise_fast_ops, nft_cmp_fast_ops).
const wordBits = 32

// encodeWords compares an address in the IP header with a prefix word by word, from the last, in which the subnets of one network differ.
func encodeWords(p netip.Prefix, offset uint32) (exprs []expr.Any) {
	addr := p.Masked().Addr().AsSlice()
	for i := (p.Bits() - 1) / wordBits; i >= 0; i-- {
		ones := min(p.Bits()-i*wordBits, wordBits)
		size := ones / 8
		masked := ones != 8 && ones != 16 && ones != wordBits
		if masked {
			size = wordBits / 8
		}
		at := i * wordBits / 8
		exprs = append(exprs, &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset + uint32(at), Len: uint32(size)})
		if masked {
			exprs = append(exprs, &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(size), Mask: mask(ip.IPv4, ones), Xor: make([]byte, size)})
		}
		exprs = append(exprs, &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: addr[at : at+size]})
	}
	return exprs
}

// encodePrefix compares an address in the IP header as nft(8) and iptables-nft do: only the bytes that the prefix covers, if these are whole.
func encodePrefix(f ip.Family, p netip.Prefix, op expr.CmpOp, offset uint32) []expr.Any {
	if !p.IsValid() {
		return nil
	}
	masked := p.Bits() == 0 || p.Bits()%8 != 0
	size := p.Bits() / 8
	if masked {
		size = f.Bits() / 8
	}
	exprs := []expr.Any{&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)}}
	if masked {
		exprs = append(exprs, &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(size), Mask: mask(f, p.Bits()), Xor: make([]byte, size)})
	}
	return append(exprs, &expr.Cmp{Op: op, Register: register, Data: p.Masked().Addr().AsSlice()[:size]})
}

// addressOffsets are the places of the addresses in the IP header, in bytes (RFC 791, RFC 8200).
func addressOffsets(f ip.Family) (src, dst uint32) {
	if f == ip.IPv4 {
		return 12, 16
	}
	return 8, 24
}

func mask(f ip.Family, ones int) []byte {
	b := make([]byte, f.Bits()/8)
	for i := range ones {
		b[i/8] |= 1 << (7 - i%8)
	}
	return b
}

// decodeRule is the inverse of encodeRule. Rules are read back from their expressions and not from a mark in their
// comment, so that a rule says what it does even if somebody edited it. With more in the rule than Tulle uses, ok is
// false; the matches are right even then.
func decodeRule(f ip.Family, exprs []expr.Any) (r ip.Rule, ok bool) {
	src, dst := addressOffsets(f)
	ok = true
	r.Mark, exprs = decodeMark(exprs)
	r.In, exprs = decodeIn(exprs)
	for verdict, end := range map[ip.Verdict][]expr.Any{
		ip.Accept: {&expr.Verdict{Kind: expr.VerdictAccept}}, ip.Masquerade: {&expr.Masq{}},
		ip.SetMark: setMark(), ip.KeepSource: keepSource(f), ip.DropSpoof: countAndDrop(ip.CountSpoofed),
	} {
		if rest, ends := cutSuffix(exprs, end); ends {
			r.Verdict, exprs = verdict, rest
			break
		}
	}
	exprs, r.Unrouted = cutSuffix(exprs, unrouted())
	var load *expr.Payload
	var masked []byte
	for _, e := range joinWords(f, exprs) {
		switch e := e.(type) {
		case *expr.Payload:
			load, masked = e, nil
			continue
		case *expr.Bitwise:
			if load != nil {
				masked = e.Mask
				continue
			}
		case *expr.Cmp:
			m, valid := decodeMatch(f, load, masked, e)
			switch {
			case !valid:
				ok = false
			case load.Offset == src && r.Src == ip.Match{}:
				r.Src = m
			case load.Offset == dst && r.Dst == ip.Match{}:
				r.Dst = m
			default:
				ok = false
			}
			load = nil
			continue
		}
		ok = false
	}
	return r, ok && r.Verdict != ""
}

// decodeMark takes the comparison with the firewall mark off the beginning of a rule.
func decodeMark(exprs []expr.Any) (bits uint32, rest []expr.Any) {
	if len(exprs) >= 3 {
		if c, ok := exprs[2].(*expr.Cmp); ok && len(c.Data) == 4 {
			bits = binary.NativeEndian.Uint32(c.Data)
			if bits != 0 && reflect.DeepEqual(exprs[:3], encodeMark(bits)) {
				return bits, exprs[3:]
			}
		}
	}
	return 0, exprs
}

// cutSuffix takes the expressions end off a rule, if it ends with them.
func cutSuffix(exprs, end []expr.Any) (rest []expr.Any, found bool) {
	if n := len(exprs) - len(end); n >= 0 && reflect.DeepEqual(exprs[n:], end) {
		return exprs[:n], true
	}
	return exprs, false
}

// decodeIn takes the comparison with the name of an interface off the beginning of a rule.
func decodeIn(exprs []expr.Any) (in string, rest []expr.Any) {
	if len(exprs) >= 2 {
		if c, ok := exprs[1].(*expr.Cmp); ok {
			name := linkPattern(c.Data)
			if reflect.DeepEqual(exprs[:2], encodeLink(expr.MetaKeyIIFNAME, name)) {
				return name, exprs[2:]
			}
		}
	}
	return "", exprs
}

// joinWords puts what encodeWords has made of an address of several words in the form that encodePrefix makes.
func joinWords(f ip.Family, exprs []expr.Any) (joined []expr.Any) {
	src, dst := addressOffsets(f)
	for len(exprs) > 0 {
		part, n := exprs[:1], 1
		for _, offset := range []uint32{src, dst} {
			if p, words := leadingWords(f, exprs, offset); words > 0 {
				part, n = encodePrefix(f, p, expr.CmpOpEq, offset), words
			}
		}
		joined, exprs = append(joined, part...), exprs[n:]
	}
	return joined
}

// leadingWords returns the prefix that exprs begin to compare the address at offset with, and how many of them do, if these are several words.
func leadingWords(f ip.Family, exprs []expr.Any, offset uint32) (p netip.Prefix, n int) {
	addr := make([]byte, f.Bits()/8)
	load, ok := exprs[0].(*expr.Payload)
	if !ok || load.Offset <= offset || load.Offset >= offset+uint32(len(addr)) {
		return p, 0
	}
	at, ones := int(load.Offset-offset), 8*int(load.Len)
	bits := at * 8
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Bitwise:
			ones = leadingOnes(e.Mask)
		case *expr.Cmp:
			copy(addr[at:], e.Data)
			at -= wordBits / 8
		}
		if at < 0 {
			break
		}
	}
	whole, _ := netip.AddrFromSlice(addr)
	if p = netip.PrefixFrom(whole, bits+ones); !p.IsValid() {
		return p, 0
	}
	words := encodeWords(p, offset)
	if len(words) > len(exprs) || !reflect.DeepEqual(exprs[:len(words)], words) {
		return netip.Prefix{}, 0
	}
	return p, len(words)
}

// decodeMatch understands what encodePrefix makes, and encodeWords of an address of one word.
func decodeMatch(f ip.Family, load *expr.Payload, masked []byte, cmp *expr.Cmp) (ip.Match, bool) {
	if load == nil || load.Base != expr.PayloadBaseNetworkHeader || cmp.Op != expr.CmpOpEq && cmp.Op != expr.CmpOpNeq {
		return ip.Match{}, false
	}
	size := f.Bits() / 8
	if len(cmp.Data) == 0 || len(cmp.Data) != int(load.Len) || len(cmp.Data) > size {
		return ip.Match{}, false
	}
	ones := 8 * len(cmp.Data)
	if masked != nil {
		ones = leadingOnes(masked)
		if len(masked) != len(cmp.Data) || !bytes.Equal(masked, mask(f, ones)[:len(masked)]) {
			return ip.Match{}, false
		}
	}
	whole := make([]byte, size)
	copy(whole, cmp.Data)
	addr, _ := netip.AddrFromSlice(whole)
	return ip.Match{Prefix: netip.PrefixFrom(addr, ones), Not: cmp.Op == expr.CmpOpNeq}, true
}

func leadingOnes(b []byte) int {
	n := 0
	for _, v := range b {
		ones := bits.LeadingZeros8(^v)
		n += ones
		if ones < 8 {
			break
		}
	}
	return n
}
