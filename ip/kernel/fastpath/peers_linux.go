package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"tulle/ip"
)

const (
	peerRoom = 32768      // PEERS in maps.h
	nowhere  = 0xffffffff // NOWHERE there

	direct = 1
	tunnel = 2
)

// peerTable is what the maps say of peers. An index that a program may know is never written to: a peer that changes gets another, and the old one rests
// until no program can be reading it.
type peerTable struct {
	places, peers *ebpf.Map

	have     map[netip.Prefix]uint32
	known    map[uint32]programsPeer // what was read, until it has been compared
	next     uint32                  // that has never been used
	serial   uint32
	freed    []freed      // the longest first
	short    int          // subnets that have found no room
	last     ip.FastPeers // that the maps were compared with
	compared bool         // they have been, since they were read
	exclude  []netip.Prefix
	links    map[string]linkFacts
}

type freed struct {
	index uint32
	at    time.Time
}

// rest is how long an index is left alone.
const rest = 2 * time.Second

// open reads what an earlier run has left.
func (t *peerTable) open(m *programsMaps) error {
	t.places, t.peers = m.Places, m.Peers
	return t.read()
}

// read takes what the kernel has for what there is.
func (t *peerTable) read() error {
	t.have, t.known, t.compared = map[netip.Prefix]uint32{}, map[uint32]programsPeer{}, false
	err := readAll(t.places, func(key programsPrefix, value programsPlace) bool {
		t.have[prefixOf(key)] = value.Peer
		return true
	})
	if err != nil {
		return fmt.Errorf("read subnets of peers: %w", err)
	}
	used := map[uint32]bool{}
	for _, index := range t.have {
		if used[index] = index != nowhere; used[index] {
			t.next = max(t.next, index+1)
		}
	}
	err = readAll(t.peers, func(index uint32, p programsPeer) bool { // in the order of their numbers
		if used[index] {
			t.known[index], t.serial = p, max(t.serial, p.Serial)
		}
		return index+1 < t.next
	})
	if err != nil {
		return fmt.Errorf("read peers: %w", err)
	}
	since := map[uint32]time.Time{}
	for _, f := range t.freed {
		since[f.index] = f.at
	}
	t.freed = nil
	for i := range t.next {
		if !used[i] {
			at, ok := since[i]
			if !ok {
				at = time.Now()
			}
			t.freed = append(t.freed, freed{i, at})
		}
	}
	slices.SortStableFunc(t.freed, func(a, b freed) int { return a.at.Compare(b.at) })
	if t.serial == 0 {
		t.serial = rand.Uint32() >> 1 // none that admissions of an earlier run can name
	}
	return nil
}

// readAll reads a map with few system calls, where the kernel can, until each returns false.
func readAll[K, V any](m *ebpf.Map, each func(K, V) bool) error {
	keys, values := make([]K, readRoom), make([]V, readRoom)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, ebpf.ErrNotSupported) {
			break
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for i := range n {
			if !each(keys[i], values[i]) {
				return nil
			}
		}
		if err != nil {
			return nil
		}
	}
	var key K
	var value V
	all := m.Iterate()
	for all.Next(&key, &value) && each(key, value) {
	}
	return all.Err()
}

// readRoom is how many elements are read at once.
const readRoom = 1024

// sync makes the maps as wanted, and reports whether packets may no longer be fast that could be.
func (t *peerTable) sync(want ip.FastPath, links map[string]linkFacts, read bool) (excluded bool, err error) {
	if read || !t.compared && t.known == nil || t.compared && (!t.sample() || t.short > 0 && t.hasRoom()) {
		if err := t.read(); err != nil {
			return false, err
		}
	}
	if t.compared && t.last.Shares(want.Peers) && slices.Equal(t.exclude, want.Exclude) && maps.Equal(t.links, links) {
		return false, nil
	}
	gone, new := t.differ(want, links)
	if !t.compared {
		t.short = 0
	}
	var errs []error
	for _, prefix := range gone {
		if index, there := t.have[prefix]; there {
			errs = append(errs, t.drop(prefix, index))
		} else if t.short > 0 { // it has found no room
			t.short--
		}
	}
	left, err := t.put(new)
	t.short += left
	errs = append(errs, err)
	for _, prefix := range want.Exclude {
		if index, ok := t.have[prefix]; ok && index == nowhere {
			continue
		}
		excluded = true
		errs = append(errs, t.place(prefix, nowhere))
	}
	if err := errors.Join(errs...); err != nil {
		t.compared, t.known = false, nil
		return excluded, err
	}
	t.last, t.exclude, t.links, t.known, t.compared = want.Peers, want.Exclude, links, nil, true
	return excluded, nil
}

// wanted is a peer that is to be written.
type wanted struct {
	subnet netip.Prefix
	peer   programsPeer
}

// differ compares what is wanted with what was wanted last, or with what there is.
func (t *peerTable) differ(want ip.FastPath, links map[string]linkFacts) (gone []netip.Prefix, new []wanted) {
	if t.compared && maps.Equal(t.links, links) && slices.Equal(t.exclude, want.Exclude) {
		less, more := t.last.Changed(want.Peers)
		for _, p := range less {
			gone = append(gone, p.Subnet)
		}
		for _, p := range more {
			new = append(new, wanted{p.Subnet, peerOf(p, links[p.Link])})
		}
		return gone, new
	}
	stays := map[netip.Prefix]bool{}
	for p := range want.Peers.All() {
		stays[p.Subnet] = true
	}
	for _, p := range want.Exclude {
		stays[p] = true
	}
	for prefix := range t.have {
		if !stays[prefix] {
			gone = append(gone, prefix)
		}
	}
	for p := range want.Peers.All() {
		w := wanted{p.Subnet, peerOf(p, links[p.Link])}
		if index, there := t.have[p.Subnet]; there && index != nowhere {
			have, read := t.known[index]
			if have.Serial = 0; read && have == w.peer {
				continue
			}
		}
		new = append(new, w)
	}
	return gone, new
}

// put writes peers. It returns how many are left, for want of room.
func (t *peerTable) put(new []wanted) (left int, err error) {
	var indexes []uint32
	var peers []programsPeer
	var keys []programsPrefix
	var places []programsPlace
	for i := range new {
		index, ok := t.allocate()
		if !ok {
			new, left = new[:i], len(new)-i
			break
		}
		t.serial++
		new[i].peer.Serial = t.serial
		indexes, peers = append(indexes, index), append(peers, new[i].peer)
		keys, places = append(keys, keyOf(new[i].subnet)), append(places, programsPlace{Peer: index})
	}
	if err := putAll(t.peers, indexes, peers); err != nil {
		return left, fmt.Errorf("write peers: %w", err)
	}
	if err := putAll(t.places, keys, places); err != nil {
		return left, fmt.Errorf("write subnets of peers: %w", err)
	}
	var errs []error
	for i, w := range new {
		old, there := t.have[w.subnet]
		t.have[w.subnet] = indexes[i]
		if there && old != nowhere {
			errs = append(errs, t.free(old))
		}
	}
	return left, errors.Join(errs...)
}

// putAll writes many elements with few system calls, where the kernel can.
func putAll[K, V any](m *ebpf.Map, keys []K, values []V) error {
	if len(keys) == 0 {
		return nil
	}
	_, err := m.BatchUpdate(keys, values, nil)
	if err == nil || !errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	for i := range keys {
		if err := m.Put(keys[i], values[i]); err != nil {
			return err
		}
	}
	return nil
}

// hasRoom reports whether there is an index for a peer.
func (t *peerTable) hasRoom() bool { return t.next < peerRoom || t.hasRested() }

func (t *peerTable) hasRested() bool { return len(t.freed) > 0 && time.Since(t.freed[0].at) > rest }

func (t *peerTable) allocate() (uint32, bool) {
	if t.hasRested() {
		index := t.freed[0].index
		t.freed = t.freed[1:]
		return index, true
	}
	if !t.hasRoom() {
		return 0, false
	}
	t.next++
	return t.next - 1, true
}

// free makes all admissions to or from a peer void.
func (t *peerTable) free(index uint32) error {
	t.freed = append(t.freed, freed{index, time.Now()})
	if err := t.peers.Put(index, programsPeer{}); err != nil {
		return fmt.Errorf("clear peer: %w", err)
	}
	return nil
}

func (t *peerTable) drop(prefix netip.Prefix, index uint32) error {
	if err := t.places.Delete(keyOf(prefix)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove subnet of a peer: %w", err)
	}
	delete(t.have, prefix)
	if index == nowhere {
		return nil
	}
	return t.free(index)
}

func (t *peerTable) place(prefix netip.Prefix, index uint32) error {
	if err := t.places.Put(keyOf(prefix), programsPlace{Peer: index}); err != nil {
		return fmt.Errorf("write subnet %s: %w", prefix, err)
	}
	t.have[prefix] = index
	return nil
}

// samples is how many subnets are looked at each time: enough to find an emptied map. All are read back now and then.
const samples = 2

// sample reports whether the maps still say what was written of some subnets.
func (t *peerTable) sample() bool {
	left := samples
	for subnet, index := range t.have { // begins somewhere else each time
		if left--; left < 0 {
			break
		}
		var place programsPlace
		if t.places.Lookup(keyOf(subnet), &place) != nil || place.Peer != index {
			return false
		}
		if index == nowhere {
			continue
		}
		var peer programsPeer
		if t.peers.Lookup(index, &peer) != nil {
			return false
		}
		peer.Serial = 0
		if !slices.ContainsFunc(t.last.Of(subnet), func(p ip.FastPeer) bool { return peer == peerOf(p, t.links[p.Link]) }) {
			return false
		}
	}
	return true
}

// words is an address as maps have it: IPv4's mapped into IPv6.
func words(a netip.Addr) (w [4]uint32) {
	if !a.IsValid() {
		return w
	}
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func addrOf(w [4]uint32) netip.Addr {
	if w == ([4]uint32{}) {
		return netip.Addr{}
	}
	var b [16]byte
	for i := range w {
		binary.NativeEndian.PutUint32(b[4*i:], w[i])
	}
	return netip.AddrFrom16(b).Unmap()
}

// mapped is how many bits of a mapped address come before IPv4's.
const mapped = 96

func keyOf(p netip.Prefix) (k programsPrefix) {
	k.Bits, k.Addr.Word = uint32(p.Bits()), words(p.Masked().Addr())
	if p.Addr().Is4() {
		k.Bits += mapped
	}
	return k
}

func prefixOf(k programsPrefix) netip.Prefix {
	a := addrOf(k.Addr.Word)
	if a.Is4() {
		return netip.PrefixFrom(a, int(k.Bits)-mapped)
	}
	return netip.PrefixFrom(a, int(k.Bits))
}

// big is a number in network byte order.
func big(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

// peerOf is a peer as programs know it. How one without a tunnel is reached they learn from its packets: its host is for people to read.
func peerOf(p ip.FastPeer, link linkFacts) (t programsPeer) {
	t.Link, t.Mode, t.Mtu = link.index, direct, uint16(min(link.mtu, 0xffff))
	t.Remote.Word = words(p.Remote)
	d := link.device
	if d == (ip.FastDevice{}) {
		return t
	}
	t.Mode, t.Port, t.LocalMac, t.RemoteMac = tunnel, big(d.Tunnel.Port), d.MAC, p.MAC
	t.Local.Word = words(d.Local)
	var vni [4]byte
	binary.BigEndian.PutUint32(vni[:], d.Tunnel.VNI<<8)
	t.Vni = binary.NativeEndian.Uint32(vni[:])
	return t
}

// settingsOf are the programs' but for what depends on the time.
func settingsOf(want ip.FastPath, salt uint32) (s programsSetting) {
	s.Salt = salt
	if len(want.Exclude) > 0 {
		s.Excludes = 1
	}
	for i, port := range helperPorts() {
		s.HelperPorts[i] = big(port)
	}
	ports := 0
	for _, d := range want.Devices {
		if port := big(d.Tunnel.Port); !slices.Contains(s.TunnelPorts[:], port) && ports < len(s.TunnelPorts) {
			s.TunnelPorts[ports] = port
			ports++
		}
	}
	for _, n := range want.Subnets[:min(len(want.Subnets), len(s.Subnets))] {
		own := &s.Subnets[s.SubnetCount]
		own.Addr.Word = words(n.Masked().Addr())
		bits := n.Bits()
		if n.Addr().Is4() {
			bits += mapped
		}
		own.Mask.Word = words(netip.PrefixFrom(netip.AddrFrom16(allOnes()), bits).Masked().Addr())
		s.SubnetCount++
	}
	return s
}

func allOnes() (b [16]byte) {
	for i := range b {
		b[i] = 0xff
	}
	return b
}

// helperPorts are those whose packets conntrack's helpers read, to expect other connections or to translate addresses in them.
func helperPorts() []uint16 { return []uint16{21, 69, 137, 1720, 1723, 5060, 6667, 10080} }
