package ip

import (
	"cmp"
	"slices"
)

func compareFastPeer(a, b FastPeer) int {
	return cmp.Or(ComparePrefix(a.Subnet, b.Subnet), a.Remote.Compare(b.Remote))
}

// SameLinks reports whether f and o are equal but for their peers.
func (f FastPath) SameLinks(o FastPath) bool {
	return slices.Equal(f.Bridges, o.Bridges) && slices.Equal(f.Uplinks, o.Uplinks) && slices.Equal(f.Subnets, o.Subnets) && slices.Equal(f.Exclude, o.Exclude)
}

// Exchange returns f without the peers of removed and with those of added, which are in the same order. f itself stays as it is: others may hold it.
func (f FastPath) Exchange(removed, added FastPath) FastPath {
	f.Peers = exchange(append(make([]FastPeer, 0, len(f.Peers)+len(added.Peers)), f.Peers...), removed.Peers, added.Peers, compareFastPeer)
	return f
}
