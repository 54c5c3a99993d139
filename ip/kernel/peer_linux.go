package kernel

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// maxElements is the number of elements in one message: a list of attributes holds 64 KiB.
const maxElements = 1000

func elements(peers []ip.Peer) []nftables.SetElement {
	list := make([]nftables.SetElement, len(peers))
	for i, p := range peers {
		list[i].Key = p.AsSlice()
	}
	return list
}

// dumpPeers lists the set of a guard. The library would allocate several times for each element.
func dumpPeers(s *socket, f ip.Family) ([]ip.Peer, error) {
	var request batch
	request.attr(unix.NFTA_SET_ELEM_LIST_TABLE, []byte(ip.GuardTable+"\x00")...)
	request.attr(unix.NFTA_SET_ELEM_LIST_SET, []byte(ip.GuardSet+"\x00")...)
	header := append([]byte{addressFamily(f), unix.NFNETLINK_V0, 0, 0}, request.buf...)
	parts, err := dump(s, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, header, parsePeers)
	return slices.Concat(parts...), err
}

// parsePeers reads the elements in one message, after nfgenmsg: a list of elements, each with a key, in which there is a
// value. The element that stands for all addresses has none, and becomes the zero Peer.
func parsePeers(m message) (peers []ip.Peer, ok bool) {
	if len(m.data) < nfHeader {
		return nil, false
	}
	for typ, list := range attributes(m.data[nfHeader:]) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, element := range attributes(list) {
			peers = append(peers, parsePeer(element))
		}
	}
	return peers, true
}

func parsePeer(element []byte) ip.Peer {
	for typ, key := range attributes(element) {
		if typ == unix.NFTA_SET_ELEM_KEY && len(key) > unix.SizeofRtAttr {
			return ip.Peer{Addr: toAddr(key[unix.SizeofRtAttr:])}
		}
	}
	return ip.Peer{}
}

// peersAhead counts the ops at the head of the plan that add peers to one guard, or delete them.
func peersAhead(plan ip.Plan) int {
	same := func(a, b ip.Op) bool {
		p, isPeer := peerOf(a)
		q, wasPeer := peerOf(b)
		return isPeer && wasPeer && a.Verb == b.Verb && p.Is4() == q.Is4()
	}
	n := 0
	for n < len(plan) && n < maxElements && same(plan[n], plan[0]) {
		n++
	}
	return n
}

func peerOf(op ip.Op) (ip.Peer, bool) {
	if op.Verb == ip.Delete {
		p, ok := op.Old.(ip.Peer)
		return p, ok
	}
	p, ok := op.New.(ip.Peer)
	return p, ok
}

// peers carries out ops of one verb and family in one transaction. If it fails, nothing of it happened, and each op
// is tried by itself.
func (a *applier) peers(ops []ip.Op) {
	err := a.kernel.nft.use(a.kernel, func(c *nftables.Conn) error { return changePeers(c, ops) })
	switch {
	case err == nil:
	case len(ops) == 1:
		a.fail(ops[0], err)
	default:
		for i := range ops {
			a.peers(ops[i : i+1])
		}
	}
}

func changePeers(c *nftables.Conn, ops []ip.Op) error {
	peers := make([]ip.Peer, len(ops))
	for i, op := range ops {
		peers[i], _ = peerOf(op)
	}
	f := ip.FamilyOf(peers[0].Addr)
	set := guardSet(f)
	set.Table = guardTable(f)
	change := c.SetAddElements
	if ops[0].Verb == ip.Delete {
		change = c.SetDeleteElements
	}
	if err := change(&set, elements(peers)); err != nil {
		return fmt.Errorf("encode peers: %w", err)
	}
	return c.Flush()
}
