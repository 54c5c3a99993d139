package xtables

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"tulle/ip"
)

// The extension that looks at connections, struct xt_conntrack_mtinfo3 (linux/netfilter/xt_conntrack.h).
const (
	knownMatch    = "conntrack"
	knownRevision = 3
	knownSize     = 168 // bytes, aligned
	knownFlags    = 146 // what is asked for
	knownInverse  = 148
	knownStates   = 150

	stateFlag = 1 << 0  // XT_CONNTRACK_STATE
	aliasFlag = 1 << 13 // XT_CONNTRACK_STATE_ALIAS: it was written as -m state

	// XT_CONNTRACK_STATE_BIT of IP_CT_ESTABLISHED, IP_CT_RELATED and IP_CT_NEW, XT_CONNTRACK_STATE_SNAT and _DNAT.
	stateEstablished, stateRelated, stateNew, stateSNAT, stateDNAT = 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 7
)

// takeStates takes in the states that an extension asks for; false if it asks for something else, or for more.
func takeStates(r *ip.FilterRule, m []byte) bool {
	if extensionTitle(m) != knownMatch || m[extensionRev] != knownRevision || len(m) < extensionHeader+knownSize {
		return false
	}
	word := func(at int) uint16 { return binary.NativeEndian.Uint16(m[extensionHeader+at:]) }
	states := word(knownStates)
	if word(knownFlags)&^aliasFlag != stateFlag || word(knownInverse) != 0 {
		return false
	}
	if states == stateDNAT {
		r.DNAT = true
		return true
	}
	if states&(stateSNAT|stateDNAT) != 0 {
		return false
	}
	if states == stateNew && !r.Known {
		r.New = true
		return true
	}
	r.Known = r.Known || states&stateNew == 0
	return r.Known && states&stateEstablished != 0
}

// encode makes the entry of an opening.
func (t *Table) encode(o ip.Opening) *entry {
	l := layoutOf(t.Family)
	matches := extension(commentMatch, 0, commentSize)
	copy(matches[extensionHeader:], ip.OpeningComment)
	if o.Known {
		matches = append(matches, inStates(stateRelated|stateEstablished)...)
	}
	if o.DNAT {
		matches = append(matches, inStates(stateDNAT)...)
	}
	target := l.size + len(matches)
	data := make([]byte, target+standardSize)
	copy(data[l.size:], matches)
	for _, a := range []struct {
		p        netip.Prefix
		at, mask int
	}{{o.Src, l.src, l.srcMask}, {o.Dst, l.dst, l.dstMask}} {
		if !a.p.IsValid() {
			continue
		}
		copy(data[a.at:], a.p.Masked().Addr().AsSlice())
		for i := range a.p.Bits() {
			data[a.mask+i/8] |= 1 << (7 - i%8)
		}
	}
	for _, i := range []struct {
		name     string
		at, mask int
	}{{o.In, l.in, l.inMask}, {o.Out, l.out, l.outMask}} {
		if i.name != "" {
			copy(data[i.at:], i.name)
			copy(data[i.mask:], bytes.Repeat([]byte{0xff}, len(i.name)+1))
		}
	}
	binary.NativeEndian.PutUint16(data[l.targetOffset:], uint16(target))
	binary.NativeEndian.PutUint16(data[l.next:], uint16(len(data)))
	accept := int32(verdictAccept)
	binary.NativeEndian.PutUint16(data[target:], standardSize)
	binary.NativeEndian.PutUint32(data[target+extensionHeader:], uint32(accept))
	return &entry{data: data, origin: -1}
}

// inStates is the extension that asks for states.
func inStates(states uint16) []byte {
	m := extension(knownMatch, knownRevision, knownSize)
	binary.NativeEndian.PutUint16(m[extensionHeader+knownFlags:], stateFlag)
	binary.NativeEndian.PutUint16(m[extensionHeader+knownStates:], states)
	return m
}

// extension is one of an entry's conditions, with nothing asked for yet.
func extension(name string, revision byte, size int) []byte {
	data := make([]byte, extensionHeader+size)
	binary.NativeEndian.PutUint16(data, uint16(len(data)))
	copy(data[extensionName:], name)
	data[extensionRev] = revision
	return data
}
