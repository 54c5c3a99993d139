package subnet

import "testing"

func TestMine(t *testing.T) {
	lease := func(subnet, node, v4, v6 string, created Revision) *Lease {
		return &Lease{Subnets: subnetsOf(t, subnet, ""), Attrs: Attrs{Node: node, Public: dualAddr(t, v4, v6)}, Created: created}
	}
	var (
		named     = lease("10.5.1.0/24", "a", "192.0.2.9", "", 5)
		flannels  = lease("10.5.2.0/24", "", "192.0.2.1", "", 3)
		older     = lease("10.5.3.0/24", "", "192.0.2.1", "", 2)
		other     = lease("10.5.4.0/24", "b", "192.0.2.1", "", 1)
		v6        = lease("10.5.5.0/24", "", "", "fd99::1", 1)
		addrless  = lease("10.5.6.0/24", "", "", "", 1)
		namedTwin = lease("10.5.7.0/24", "a", "192.0.2.1", "", 4)
	)
	claim := func(node, v4, v6, previous string) Claim {
		return Claim{Attrs: Attrs{Node: node, Public: dualAddr(t, v4, v6)}, Previous: subnetsOf(t, previous, "")}
	}
	for name, tt := range map[string]struct {
		leases []*Lease
		claim  Claim
		want   Subnets
	}{
		"by node id, not by address":         {[]*Lease{flannels, named}, claim("a", "192.0.2.1", "", ""), named.Subnets},
		"by address":                         {[]*Lease{named, flannels}, claim("c", "192.0.2.1", "", ""), flannels.Subnets},
		"the oldest":                         {[]*Lease{flannels, older}, claim("c", "192.0.2.1", "", ""), older.Subnets},
		"the previous":                       {[]*Lease{older, flannels}, claim("c", "192.0.2.1", "", "10.5.2.0/24"), flannels.Subnets},
		"the oldest of the node":             {[]*Lease{named, namedTwin}, claim("a", "192.0.2.1", "", ""), namedTwin.Subnets},
		"never another node's":               {[]*Lease{other}, claim("a", "192.0.2.1", "", "10.5.4.0/24"), Subnets{}},
		"by IPv6 address":                    {[]*Lease{addrless, v6}, claim("a", "", "fd99::1", ""), v6.Subnets},
		"IPv4 first":                         {[]*Lease{v6, flannels}, claim("a", "192.0.2.1", "fd99::1", ""), flannels.Subnets},
		"no address matches none":            {[]*Lease{addrless, v6}, claim("a", "", "", ""), Subnets{}},
		"0.0.0.0 and :: match none":          {[]*Lease{addrless}, claim("a", "0.0.0.0", "::", ""), Subnets{}},
		"a claim without a node id is no id": {[]*Lease{addrless, flannels}, claim("", "192.0.2.1", "", ""), flannels.Subnets},
		"nothing":                            {nil, claim("a", "192.0.2.1", "", ""), Subnets{}},
	} {
		got, ok := Mine(Set{Leases: tt.leases}, tt.claim)
		if got.Subnets != tt.want || ok != (tt.want != Subnets{}) {
			t.Errorf("%s: %v, %t, want %v", name, got.Subnets, ok, tt.want)
		}
	}
}
