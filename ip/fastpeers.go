package ip

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
)

// fastBuckets is into how many parts peers are divided. With 10,000 of them each holds some forty.
const fastBuckets = 256

// FastPeers is a set of peers of which others may hold copies. One that differs in a few peers shares the rest with it, so that to make it, and to find what
// differs, costs what these few cost. The zero FastPeers is empty.
type FastPeers struct {
	buckets [][]FastPeer // by a hash of the subnet, each in the order of the subnets; nil: there are no peers
	count   int
}

// FastPeersOf are the peers of a list.
func FastPeersOf(peers ...FastPeer) FastPeers {
	if len(peers) == 0 {
		return FastPeers{}
	}
	s := FastPeers{buckets: make([][]FastPeer, fastBuckets), count: len(peers)}
	where, sizes := make([]uint8, len(peers)), [fastBuckets]int{}
	for i, p := range peers {
		where[i] = uint8(bucketOf(p.Subnet))
		sizes[where[i]]++
	}
	room := make([]FastPeer, len(peers))
	for i, size := range sizes {
		s.buckets[i], room = room[:0:size], room[size:]
	}
	for i, p := range peers {
		b := &s.buckets[where[i]]
		*b = append(*b, p)
	}
	for _, b := range s.buckets {
		if !slices.IsSortedFunc(b, compareFastPeer) {
			slices.SortFunc(b, compareFastPeer)
		}
	}
	return s
}

func compareFastPeer(a, b FastPeer) int {
	return cmp.Or(ComparePrefix(a.Subnet, b.Subnet), a.Remote.Compare(b.Remote))
}

// bucketOf is where peers of a subnet are, by the FNV-1a hash of its address.
func bucketOf(subnet netip.Prefix) int {
	hash := uint32(2166136261)
	for _, b := range subnet.Addr().As16() {
		hash = (hash ^ uint32(b)) * 16777619
	}
	return int((hash ^ hash>>16) % fastBuckets)
}

// Len is how many there are.
func (s FastPeers) Len() int { return s.count }

// Of are the peers of a subnet.
func (s FastPeers) Of(subnet netip.Prefix) []FastPeer {
	all := s.bucketAt(bucketOf(subnet))
	from, _ := slices.BinarySearchFunc(all, subnet, func(p FastPeer, subnet netip.Prefix) int { return ComparePrefix(p.Subnet, subnet) })
	to := from
	for to < len(all) && all[to].Subnet == subnet {
		to++
	}
	return all[from:to]
}

// All are the peers. Two of one subnet come one after the other.
func (s FastPeers) All() iter.Seq[FastPeer] {
	return func(yield func(FastPeer) bool) {
		for _, b := range s.buckets {
			for _, p := range b {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// Sorted are the peers in the order of their subnets.
func (s FastPeers) Sorted() []FastPeer { return slices.SortedFunc(s.All(), compareFastPeer) }

// Shares reports whether s and o are certainly the same, without a look at any peer.
func (s FastPeers) Shares(o FastPeers) bool {
	return s.count == o.count && (s.count == 0 || &s.buckets[0] == &o.buckets[0])
}

// Equal reports whether both have the same peers.
func (s FastPeers) Equal(o FastPeers) bool {
	if s.count != o.count {
		return false
	}
	for range s.differing(o) {
		return false
	}
	return true
}

// Changed are the subnets that s has and now has not, and the peers of now that are not in s.
func (s FastPeers) Changed(now FastPeers) (gone []FastPeer, new []FastPeer) {
	for i := range s.differing(now) {
		before, after := s.bucketAt(i), now.bucketAt(i)
		for _, p := range before {
			if !slices.ContainsFunc(after, func(o FastPeer) bool { return o.Subnet == p.Subnet }) {
				gone = append(gone, p)
			}
		}
		for _, p := range after {
			if !slices.Contains(before, p) {
				new = append(new, p)
			}
		}
	}
	return gone, new
}

// Exchange is s without removed and with added. s itself stays as it is.
func (s FastPeers) Exchange(removed, added FastPeers) FastPeers {
	if removed.count+added.count == 0 {
		return s
	}
	now := FastPeers{buckets: make([][]FastPeer, fastBuckets), count: s.count}
	copy(now.buckets, s.buckets)
	for i := range now.buckets {
		gone, new := removed.bucketAt(i), added.bucketAt(i)
		if len(gone)+len(new) > 0 {
			before := now.buckets[i]
			now.buckets[i] = exchange(append(make([]FastPeer, 0, len(before)+len(new)), before...), gone, new, compareFastPeer)
			now.count += len(now.buckets[i]) - len(before)
		}
	}
	if now.count == 0 {
		return FastPeers{}
	}
	return now
}

func (s FastPeers) bucketAt(i int) []FastPeer {
	if s.buckets == nil {
		return nil
	}
	return s.buckets[i]
}

// differing are the numbers of the buckets that are not the same.
func (s FastPeers) differing(o FastPeers) iter.Seq[int] {
	return func(yield func(int) bool) {
		if s.Shares(o) {
			return
		}
		for i := range fastBuckets {
			a, b := s.bucketAt(i), o.bucketAt(i)
			same := len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
			if !same && !yield(i) {
				return
			}
		}
	}
}
