package kernel

import (
	"bytes"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/google/nftables/expr"

	"tulle/ip"
)

// register is the one that rules load an address into (NFT_REG_1).
const register = 1

// encodeRule compiles a rule for a table of family f.
func encodeRule(f ip.Family, r ip.Rule) ([]expr.Any, error) {
	src, dst := addressOffsets(f)
	exprs, err := encodeMatch(f, r.Src, src)
	if err != nil {
		return nil, err
	}
	more, err := encodeMatch(f, r.Dst, dst)
	if err != nil {
		return nil, err
	}
	exprs = append(exprs, more...)
	switch r.Verdict {
	case ip.Accept:
		return append(exprs, &expr.Verdict{Kind: expr.VerdictAccept}), nil
	case ip.Masquerade:
		return append(exprs, &expr.Masq{}), nil
	}
	return nil, fmt.Errorf("rule %q: unknown verdict", r.Text())
}

func encodeMatch(f ip.Family, m ip.Match, offset uint32) ([]expr.Any, error) {
	if !m.Prefix.IsValid() {
		return nil, nil
	}
	if ip.FamilyOf(m.Prefix.Addr()) != f {
		return nil, fmt.Errorf("match %s: not in the family of the table", m.Prefix)
	}
	size := uint32(f.Bits() / 8)
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: size, Mask: mask(f, m.Prefix.Bits()), Xor: make([]byte, size)},
		&expr.Cmp{Op: op, Register: register, Data: m.Prefix.Masked().Addr().AsSlice()},
	}, nil
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
	var load *expr.Payload
	var masked []byte
	for _, e := range exprs {
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
		case *expr.Verdict:
			if e.Kind == expr.VerdictAccept && r.Verdict == "" {
				r.Verdict = ip.Accept
				continue
			}
		case *expr.Masq:
			if *e == (expr.Masq{}) && r.Verdict == "" {
				r.Verdict = ip.Masquerade
				continue
			}
		}
		ok = false
	}
	return r, ok && r.Verdict != ""
}

// decodeMatch understands the form that encodeMatch makes, and the shorter one of nft(8) and iptables-nft, which load
// only the bytes that a prefix covers if these are whole.
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
