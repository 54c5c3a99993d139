package kernel

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
)

// maxElements is the number of elements in one message: a list of attributes holds 64 KiB.
const maxElements = 1000

// changeElements adds peers to the sets of a guard, or deletes them.
func changeElements(change func(*nftables.Set, []nftables.SetElement) error, table *nftables.Table, peers []ip.Peer) error {
	var bits int
	var hosts, sources []nftables.SetElement
	for _, p := range peers {
		if p.Subnet.IsValid() {
			bits = p.Subnet.Bits()
			sources = append(sources, nftables.SetElement{Key: append(p.Addr.AsSlice(), p.Subnet.Addr().AsSlice()...)})
		} else {
			hosts = append(hosts, nftables.SetElement{Key: p.Addr.AsSlice()})
		}
	}
	lists := [][]nftables.SetElement{hosts, sources}
	for i, set := range guardSets(ip.Guard{Family: ip.FamilyOf(peers[0].Addr), Bits: bits}) {
		if len(lists[i]) == 0 {
			continue
		}
		set.Table = table
		if err := change(&set, lists[i]); err != nil {
			return fmt.Errorf("encode peers: %w", err)
		}
	}
	return nil
}

// dumpPeers lists the sets of a guard. The library would allocate several times for each element.
func dumpPeers(s *socket, g ip.Guard) ([]ip.Peer, error) {
	var all []ip.Peer
	for _, set := range guardSets(g) {
		var request batch
		request.attr(unix.NFTA_SET_ELEM_LIST_TABLE, []byte(ip.TableOf(ip.GuardTable, g.Net)+"\x00")...)
		request.attr(unix.NFTA_SET_ELEM_LIST_SET, []byte(set.Name+"\x00")...)
		header := append([]byte{addressFamily(g.Family), unix.NFNETLINK_V0, 0, 0}, request.buf...)
		peers, err := retry(func() (peers []ip.Peer, err error) {
			err = s.list(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, header, func(m message) { peers = appendPeers(peers, m, g) })
			return peers, err
		})
		if err != nil {
			return nil, err
		}
		all = slices.Concat(all, peers)
	}
	slices.SortFunc(all, ip.Peer.Compare)
	return all, nil
}

// appendPeers adds the elements in one message, after nfgenmsg: a list of elements, each with a key, in which there is a
// value. The element that stands for all addresses has none, and becomes the zero Peer.
func appendPeers(peers []ip.Peer, m message, g ip.Guard) []ip.Peer {
	if len(m.data) < nfHeader {
		return peers
	}
	for typ, list := range notify.Attributes(m.data[nfHeader:]) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, element := range notify.Attributes(list) {
			peers = append(roomier(peers), parsePeer(element, g))
		}
	}
	return peers
}

// parsePeer reads one element: an address, or an address and that of a subnet.
func parsePeer(element []byte, g ip.Guard) ip.Peer {
	size := g.Family.Bits() / 8
	for typ, key := range notify.Attributes(element) {
		if typ != unix.NFTA_SET_ELEM_KEY || len(key) < unix.SizeofRtAttr+size {
			continue
		}
		value := key[unix.SizeofRtAttr:]
		p := ip.Peer{Addr: toAddr(value[:size])}
		if len(value) == 2*size {
			p.Subnet = netip.PrefixFrom(toAddr(value[size:]), g.Bits)
		}
		return p
	}
	return ip.Peer{}
}

// peersAhead counts the ops at the head of the plan that add peers to one guard, or delete them.
func peersAhead(plan ip.Plan) int {
	same := func(a, b ip.Op) bool {
		p, isPeer := memberOf(a)
		q, wasPeer := memberOf(b)
		return isPeer && wasPeer && a.Verb == b.Verb && p.Net == q.Net && p.Addr.Is4() == q.Addr.Is4()
	}
	n := 0
	for n < len(plan) && n < maxElements && same(plan[n], plan[0]) {
		n++
	}
	return n
}

func memberOf(op ip.Op) (ip.Member, bool) {
	if op.Verb == ip.Delete {
		m, ok := op.Old.(ip.Member)
		return m, ok
	}
	m, ok := op.New.(ip.Member)
	return m, ok
}

// peers carries out ops of one verb and guard in one transaction. If it fails, nothing of it happened, and each op
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
	first, _ := memberOf(ops[0])
	peers := make([]ip.Peer, len(ops))
	for i, op := range ops {
		m, _ := memberOf(op)
		peers[i] = m.Peer
	}
	change := c.SetAddElements
	if ops[0].Verb == ip.Delete {
		change = c.SetDeleteElements
	}
	if err := changeElements(change, guardTable(first.Net, ip.FamilyOf(first.Addr)), peers); err != nil {
		return err
	}
	return c.Flush()
}
