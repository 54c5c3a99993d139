package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
)

// neighborHeader is a struct ndmsg (rtnetlink(7)).
func neighborHeader(family uint8, link uint32, state uint16, flags uint8) []byte {
	b := binary.NativeEndian.AppendUint32([]byte{family, 0, 0, 0}, link)
	return append(binary.NativeEndian.AppendUint16(b, state), flags, 0)
}

func neighborVerb(verb ip.Verb) (typ, flags uint16) {
	if verb == ip.Delete {
		return unix.RTM_DELNEIGH, 0
	}
	return unix.RTM_NEWNEIGH, unix.NLM_F_CREATE | unix.NLM_F_REPLACE
}

func encodeNeighbor(b *batch, verb ip.Verb, n ip.Neighbor, link uint32) {
	typ, flags := neighborVerb(verb)
	b.begin(typ, flags, neighborHeader(addressFamily(ip.FamilyOf(n.IP)), link, unix.NUD_PERMANENT, 0)...)
	b.attrAddr(unix.NDA_DST, n.IP)
	if verb != ip.Delete {
		b.attr(unix.NDA_LLADDR, n.MAC[:]...)
	}
}

func encodeFDB(b *batch, verb ip.Verb, f ip.FDB, link uint32) {
	typ, flags := neighborVerb(verb)
	b.begin(typ, flags, neighborHeader(unix.AF_BRIDGE, link, unix.NUD_PERMANENT|unix.NUD_NOARP, unix.NTF_SELF)...)
	b.attr(unix.NDA_LLADDR, f.MAC[:]...)
	if f.Dst.IsValid() {
		b.attrAddr(unix.NDA_DST, f.Dst)
	}
}

// neighborMessage is what the kernel says about a neighbour or a forwarding entry.
type neighborMessage struct {
	family uint8
	link   uint32
	state  uint16
	flags  uint8
	dst    netip.Addr
	mac    ip.MAC
	odd    bool // a forwarding entry with a port, VNI or link of its own
}

func parseNeighbor(m message) (n neighborMessage, ok bool) {
	if (m.typ != unix.RTM_NEWNEIGH && m.typ != unix.RTM_DELNEIGH) || len(m.data) < unix.SizeofNdMsg {
		return n, false
	}
	n.family, n.link = m.data[0], binary.NativeEndian.Uint32(m.data[4:])
	n.state, n.flags = binary.NativeEndian.Uint16(m.data[8:]), m.data[10]
	for typ, value := range notify.Attributes(m.data[unix.SizeofNdMsg:]) {
		switch typ {
		case unix.NDA_DST:
			n.dst = toAddr(value)
		case unix.NDA_LLADDR:
			if len(value) == len(n.mac) {
				n.mac = ip.MAC(value)
			}
		case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_IFINDEX:
			n.odd = true
		}
	}
	return n, true
}

// readNeighbors reads the permanent neighbours and forwarding entries of our links.
func (rd *reading) readNeighbors(s *socket) error {
	ours := func(m message) (neighborMessage, bool) {
		n, ok := parseNeighbor(m)
		return n, ok && rd.own[n.link] != "" && n.state&unix.NUD_PERMANENT != 0 && !n.mac.IsZero() && n.dst.IsValid()
	}
	neighbors, err := dump(s, unix.RTM_GETNEIGH, neighborHeader(unix.AF_UNSPEC, 0, 0, 0), ours)
	if err != nil {
		return err
	}
	for _, n := range neighbors {
		rd.Owned.Neighbors = appendUpTo(rd.Owned.Neighbors, len(neighbors), ip.Neighbor{Link: rd.own[n.link], IP: n.dst, MAC: n.mac})
	}
	entries, err := dump(s, unix.RTM_GETNEIGH, neighborHeader(unix.AF_BRIDGE, 0, 0, 0), ours)
	if err != nil {
		return err
	}
	for _, n := range entries {
		if n.flags&unix.NTF_SELF == 0 || n.mac[0]&1 != 0 {
			continue
		}
		f := ip.FDB{Link: rd.own[n.link], MAC: n.mac, Dst: n.dst}
		if n.odd {
			f.Dst = netip.Addr{} // differs from every wanted entry
		}
		rd.Owned.FDB = appendUpTo(rd.Owned.FDB, len(entries), f)
	}
	return nil
}
