package web

import (
	"math/big"
	"math/bits"
	"net/netip"
	"slices"

	"tulle/ip"
	"tulle/subnet"
)

// mostCells bounds the map of a pool, whatever the size of that: a power of two, so that each cell is a prefix.
const mostCells = 1024

// pool is the map of the addresses of one family: cells of the same size, by address.
type pool struct {
	Family    string   `json:"family"`
	Network   string   `json:"network"`
	SubnetLen int      `json:"subnetLen"`
	Subnets   string   `json:"subnets"` // that may be leased; a number that may be larger than JavaScript's
	Each      string   `json:"each"`    // in a cell
	Free      string   `json:"free"`
	Leased    int      `json:"leased"`
	Reserved  int      `json:"reserved"`
	Refused   int      `json:"refused"`
	Outside   int      `json:"outside"` // leases that are not in the network
	First     int      `json:"first"`   // cell with subnets that may be leased
	Last      int      `json:"last"`
	Cells     []string `json:"cells"` // prefixes
	Used      [][4]int `json:"used"`  // cell, and its leases: leased, reserved, refused; cells without any are left out
}

// poolsOf draws the pools of the network.
func poolsOf(set subnet.Set, j judgment) []pool {
	pools := []pool{}
	if set.Network == nil {
		return pools
	}
	for _, f := range set.Network.Families() {
		pools = append(pools, poolOf(f, set.Network.Pools.Of(f), set.Leases, j))
	}
	return pools
}

func poolOf(f ip.Family, of subnet.Pool, leases []*subnet.Lease, j judgment) pool {
	p := pool{Family: f.String(), Network: of.Network.String(), SubnetLen: of.SubnetLen, Used: [][4]int{}}
	cellBits := min(of.Network.Bits()+bits.Len(mostCells)-1, of.SubnetLen) // length of a cell's prefix
	base := ip.Number(of.Network.Addr())
	place := func(addr netip.Addr) int {
		offset := new(big.Int).Sub(ip.Number(addr), base)
		return int(offset.Rsh(offset, uint(f.Bits()-cellBits)).Int64())
	}
	for i := range 1 << (cellBits - of.Network.Bits()) {
		n := new(big.Int).Lsh(big.NewInt(int64(i)), uint(f.Bits()-cellBits))
		addr, _ := ip.AddrOf(f, n.Add(n, base)) // always fits: it is in the network
		p.Cells = append(p.Cells, netip.PrefixFrom(addr, cellBits).String())
	}
	p.First, p.Last = place(of.Min), place(of.Max)
	p.Each = new(big.Int).Lsh(big.NewInt(1), uint(of.SubnetLen-cellBits)).String()

	used := map[int]*[4]int{}
	taken := map[netip.Prefix]bool{} // of the pool's subnets
	for _, l := range leases {
		s := l.Subnets.Of(f)
		if !s.IsValid() {
			continue
		}
		if !ip.Contains(of.Network, s) {
			p.Outside++
			continue
		}
		kind := p.count(j, l, s)
		for i := place(s.Masked().Addr()); i <= place(ip.Last(s)); i++ {
			if used[i] == nil {
				used[i] = &[4]int{i}
			}
			used[i][kind]++
		}
		// One that is wider than a subnet is never usable, and takes no place.
		if s.Bits() >= of.SubnetLen {
			if whole := netip.PrefixFrom(s.Addr(), of.SubnetLen).Masked(); !whole.Addr().Less(of.Min) && !of.Max.Less(whole.Addr()) {
				taken[whole] = true
			}
		}
	}
	for _, u := range used {
		p.Used = append(p.Used, *u)
	}
	slices.SortFunc(p.Used, func(a, b [4]int) int { return a[0] - b[0] })
	all := new(big.Int).Sub(ip.Number(of.Max), ip.Number(of.Min))
	all.Rsh(all, uint(f.Bits()-of.SubnetLen)).Add(all, big.NewInt(1))
	p.Subnets = all.String()
	p.Free = all.Sub(all, big.NewInt(int64(len(taken)))).String()
	return p
}

// The places of a cell's counts.
const (
	cellLeased = iota + 1
	cellReserved
	cellRefused
)

// count counts the subnet of a lease, and returns what it counts as.
func (p *pool) count(j judgment, l *subnet.Lease, s netip.Prefix) int {
	switch {
	case !j.usable[usable{s, l.Created}]:
		p.Refused++
		return cellRefused
	case l.Reserved:
		p.Reserved++
		return cellReserved
	}
	p.Leased++
	return cellLeased
}
