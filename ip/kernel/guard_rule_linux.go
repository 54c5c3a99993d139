package kernel

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// encodeGuard compiles the rules of a guard, by chain, to what nft(8) makes of them. Most packets are for no VXLAN, and of the rest most come the
// usual way: these two are decided by the fewest expressions, and what port stands for, or which VXLAN it is, is asked later. A VXLAN passes whose
// VNI can be read: without connection tracking, IPv6 comes here in fragments.
func encodeGuard(g ip.Guard) map[string][][]expr.Any {
	tunnel := encodeTunnel(g)
	enter := func(chain, counter string) [][]expr.Any {
		rules := [][]expr.Any{slices.Concat(tunnel.to, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}})}
		if g.Family == ip.IPv6 {
			rules = append(rules, slices.Concat(fragmentInside(), countAndDrop(counter)))
		}
		return rules
	}
	usual, rest := encodeInput(g)
	src, _ := addressOffsets(g.Family)
	return map[string][][]expr.Any{
		ip.GuardInput:    enter(ip.GuardIncoming, ip.CountStrangers),
		ip.GuardIncoming: slices.Concat([][]expr.Any{usual}, tunnel.others, rest),
		ip.GuardForward:  enter(ip.GuardForwarded, ip.CountInjected),
		ip.GuardForwarded: append(tunnel.others,
			slices.Concat(encodePrefix(g.Family, g.Network, expr.CmpOpEq, src), countAndDrop(ip.CountInjected)),
			slices.Concat(translated(), countAndDrop(ip.CountInjected)),
			slices.Concat(unrouted(), countAndDrop(ip.CountInjected)),
		),
		ip.GuardPost: append(tunnel.leaving, slices.Concat(tunnel.of, fromElsewhere(g.Link), keepSource(g.Family))),
	}
}

// tunnelRules are what may be a packet of a tunnel, what is one in full, what of the former is none and passes, and the same for what
// leaves the host.
type tunnelRules struct {
	to, of          []expr.Any
	others, leaving [][]expr.Any
}

func encodeTunnel(g ip.Guard) tunnelRules {
	protocol := func(op expr.CmpOp, number byte) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
			&expr.Cmp{Op: op, Register: register, Data: []byte{number}},
		}
	}
	if g.IPIP {
		ours := protocol(expr.CmpOpEq, ip.ProtocolIPIP)
		return tunnelRules{to: ours, of: ours}
	}
	toPort := []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binary.BigEndian.AppendUint16(nil, g.Port)},
	}
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	otherVNI := []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: ip.VNIOffset, Len: 3},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: binary.BigEndian.AppendUint32(nil, g.VNI)[1:]},
		accept,
	}
	udpToPort := slices.Concat(protocol(expr.CmpOpEq, unix.IPPROTO_UDP), toPort)
	return tunnelRules{
		to: toPort, of: udpToPort,
		others:  [][]expr.Any{append(protocol(expr.CmpOpNeq, unix.IPPROTO_UDP), accept), otherVNI},
		leaving: [][]expr.Any{slices.Concat(udpToPort, otherVNI)},
	}
}

// fragmentInside matches IPv6 packets that are fragments still after connection tracking has put fragments together: fragments of fragments, whose
// port can be read nowhere, and which the next host puts together.
func fragmentInside() []expr.Any {
	const nextHeader, present = 6, 1 // place in the header (RFC 8200); NFT_EXTHDR_F_PRESENT
	var exprs []expr.Any
	for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} { // most packets, and no fragments
		exprs = append(exprs,
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: nextHeader, Len: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: []byte{protocol}})
	}
	return append(exprs,
		&expr.Exthdr{DestRegister: register, Type: unix.IPPROTO_FRAGMENT, Len: 1, Flags: present, Op: expr.ExthdrOpIpv6},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{1}})
}

// metaIIFKind loads the kind of the interface that a packet comes in through (linux/netfilter/nf_tables.h, NFT_META_IIFKIND).
const metaIIFKind expr.MetaKey = 26

// fromGuests drops what comes through an interface of guests, as if from where it does not lead.
func fromGuests() (rules [][]expr.Any) {
	for _, kind := range ip.GuestKinds() {
		rules = append(rules, slices.Concat(through(metaIIFKind, kind), unrouted(), countAndDrop(ip.CountInjected)))
	}
	return rules
}

// encodeInput compiles what decides about a packet that comes in: one lookup, if it comes the usual way and may. The rest tells who may not.
func encodeInput(g ip.Guard) (usual []expr.Any, rest [][]expr.Any) {
	src, _ := addressOffsets(g.Family)
	size := uint32(g.Family.Bits() / 8)
	source := &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: src, Len: size}
	fromPeer := []expr.Any{source, &expr.Lookup{SourceRegister: register, SetName: ip.GuardPeers}}
	var last [][]expr.Any
	if g.Bits > 0 {
		second := nextRegister(g.Family)
		fromPeer = []expr.Any{
			source,
			&expr.Payload{DestRegister: second, Base: expr.PayloadBaseTransportHeader, Offset: uint32(g.Tunnel().InnerSourceOffset(g.Family)), Len: size},
			&expr.Bitwise{SourceRegister: second, DestRegister: second, Len: size, Mask: mask(g.Family, g.Bits), Xor: make([]byte, size)},
			&expr.Lookup{SourceRegister: register, SetName: ip.GuardSources},
		}
		if !g.IPIP {
			fromPeer = append([]expr.Any{
				&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: ip.EtherTypeOffset, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binary.BigEndian.AppendUint16(nil, ip.EtherType(g.Family))},
			}, fromPeer...)
		}
		last = [][]expr.Any{countAndDrop(ip.CountForged)}
	}
	accept := append(fromPeer, &expr.Verdict{Kind: expr.VerdictAccept})
	stranger := slices.Concat([]expr.Any{source, &expr.Lookup{SourceRegister: register, SetName: ip.GuardPeers, Invert: true}}, countAndDrop(ip.CountStrangers))
	return slices.Concat(through(expr.MetaKeyIIFNAME, g.Uplink), accept), slices.Concat(fromGuests(), [][]expr.Any{accept, stranger}, last)
}

// through matches packets that come in through an interface of the name or kind.
func through(key expr.MetaKey, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)},
	}
}

// nextRegister is where the second part of a key goes whose first part, an address, is in register.
func nextRegister(f ip.Family) uint32 {
	if f == ip.IPv4 {
		return unix.NFT_REG32_01
	}
	return unix.NFT_REG_2
}

// translated matches packets of connections whose source or destination has been translated before.
func translated() []expr.Any {
	const status = 1<<4 | 1<<5 // IPS_SRC_NAT, IPS_DST_NAT
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, status), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

// fromElsewhere matches packets that came in through an interface other than link, which is that of what the VXLAN device
// makes. Before Linux 5.7, no packet on its way out has come in through any.
func fromElsewhere(link string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: register},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: append([]byte(link), make([]byte, unix.IFNAMSIZ-len(link))...)},
	}
}

// unrouted matches packets whose source is not routed back to where they came from.
func unrouted() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: register, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: make([]byte, 4)},
	}
}

func countAndDrop(counter string) []expr.Any {
	return []expr.Any{
		&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: counter},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// decodeGuard is the inverse of encodeGuard: it finds what the rules differ in, and compares the rest.
func decodeGuard(f ip.Family, rules map[string][][]expr.Any) (ip.Guard, bool) {
	g := ip.Guard{Family: f}
	jumps, input, forward, post := rules[ip.GuardInput], rules[ip.GuardIncoming], rules[ip.GuardForwarded], rules[ip.GuardPost]
	if len(jumps) < 1 || len(jumps[0]) < 1 || len(input) < 3 || len(forward) < 3 || len(post) < 1 {
		return g, false
	}
	if _, g.IPIP = jumps[0][0].(*expr.Meta); !g.IPIP {
		g.Port = uint16(number(compared(jumps[0], 1)))
		g.VNI = uint32(number(compared(input[2], 1)))
	}
	last := post[len(post)-1]
	g.Link = linkPattern(compared(last, len(last)-3))
	g.Network = insideOf(f, forward[len(forward)-3])
	g.Uplink = linkPattern(compared(input[0], 1))
	for _, e := range input[0] {
		if b, ok := e.(*expr.Bitwise); ok {
			g.Bits = leadingOnes(b.Mask)
		}
	}
	return g, g.Network.IsValid() && len(g.Link) < unix.IFNAMSIZ && len(g.Uplink) < unix.IFNAMSIZ && reflect.DeepEqual(rules, encodeGuard(g))
}

// compared is what the i-th expression of a rule compares with.
func compared(rule []expr.Any, i int) []byte {
	if 0 <= i && i < len(rule) {
		if c, ok := rule[i].(*expr.Cmp); ok && len(c.Data) <= 16 {
			return c.Data
		}
	}
	return nil
}

func number(b []byte) (n uint64) {
	for _, v := range b {
		n = n<<8 | uint64(v)
	}
	return n
}

// insideOf is the prefix that a rule compares the source with.
func insideOf(f ip.Family, rule []expr.Any) netip.Prefix {
	if len(rule) < 3 {
		return netip.Prefix{}
	}
	load, ok := rule[0].(*expr.Payload)
	var masked []byte
	next := rule[1]
	if b, isMask := next.(*expr.Bitwise); isMask {
		masked, next = b.Mask, rule[2]
	}
	if !ok {
		return netip.Prefix{}
	}
	if c, ok := next.(*expr.Cmp); ok {
		m, _ := decodeMatch(f, load, masked, c)
		return m.Prefix
	}
	return netip.Prefix{}
}
