package docker

import (
	"fmt"
	"net/netip"
	"slices"

	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// Holding is a Docker network with addresses of Tulle's, or one that should have some.
type Holding struct {
	Network
	// Problem says why containers on it cannot be reached as they should; empty if they can.
	Problem string `json:"problem,omitempty"`
	// Remedy is the command that mends it.
	Remedy string `json:"remedy,omitempty"`
}

// Holdings tells of every such network on this host how it stands to the lease. configured says that docker0 is
// meant to hold it, and pools is what OverlappingPools says. After a change of the lease, networks keep the old subnet for as long as their containers
// need it: nothing is torn down, and the remedy is for the operator to choose the time of.
func Holdings(env flannel.Env, networks []Network, configured bool, pools string) []Holding {
	list := []Holding{}
	taken := configured || slices.ContainsFunc(networks, func(n Network) bool { return n.Ours || n.Name == DefaultNetwork && n.holds(env.Subnets) })
	for _, n := range networks {
		docker0 := n.Name == DefaultNetwork
		if n.Ours || docker0 && configured || n.overlaps(env.Network) {
			h := judge(env, n, docker0)
			if h.Remedy != "" && taken && !docker0 && !n.Ours {
				h.Remedy = n.elsewhere(pools)
			}
			list = append(list, h)
		}
	}
	return list
}

func judge(env flannel.Env, n Network, docker0 bool) Holding {
	h := Holding{Network: n}
	switch {
	case !n.holds(env.Subnets):
		h.Problem = fmt.Sprintf("it holds %s, but the lease is %s", join(n.Subnets), join(leased(env.Subnets)))
	case n.MTU > env.MTU:
		h.Problem = fmt.Sprintf("its MTU is %d, above the %d that Tulle's network carries", n.MTU, env.MTU)
	case n.Masquerade && masqueradeOff(env):
		h.Problem = "Docker masquerades it, which tulled does already"
	default:
		return h
	}
	switch {
	case docker0:
		h.Remedy = "tulle docker configure --restart"
	case n.Ours:
		h.Remedy = fmt.Sprintf("tulle docker network rm %s && tulle docker network create %s", n.Name, n.Name)
	default:
		h.Remedy = fmt.Sprintf("docker network rm %s && tulle docker network create %s", n.Name, n.Name)
	}
	return h
}

// Pending says why Docker must restart before docker0 is as it should be; empty if it is so already.
func Pending(env flannel.Env, networks []Network) string {
	i := slices.IndexFunc(networks, func(n Network) bool { return n.Name == DefaultNetwork })
	if i < 0 {
		return "docker0 is missing"
	}
	if problem := judge(env, networks[i], true).Problem; problem != "" {
		return "docker0: " + problem
	}
	if networks[i].MTU != env.MTU {
		return fmt.Sprintf("docker0: its MTU is %d, and is to be %d", networks[i].MTU, env.MTU)
	}
	return ""
}

// OnlyDefault returns an error if another network than docker0's holds the lease, or a part of it: Docker would not
// start with both.
func OnlyDefault(env flannel.Env, networks []Network) error {
	for _, n := range networks {
		if held := n.shared(env.Subnets); n.Name != DefaultNetwork && len(held) > 0 {
			return fmt.Errorf("network %s holds %s already, and only one network can: use it, or %s", n.Name, join(held), n.removal())
		}
	}
	return nil
}

// holds reports whether n has all subnets of the lease, and of each leased family nothing else.
func (n Network) holds(lease subnet.Subnets) bool {
	for _, f := range ip.Families() {
		of := func(p netip.Prefix) bool { return ip.FamilyOf(p.Addr()) == f }
		if want := lease.Of(f); want.IsValid() {
			have := slices.DeleteFunc(slices.Clone(n.Subnets), func(p netip.Prefix) bool { return !of(p) })
			if !slices.Equal(have, []netip.Prefix{want}) {
				return false
			}
		}
	}
	return true
}

// shared lists the subnets of n that overlap the lease.
func (n Network) shared(lease subnet.Subnets) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(n.Subnets), func(p netip.Prefix) bool {
		of := lease.Of(ip.FamilyOf(p.Addr()))
		return !of.IsValid() || !of.Overlaps(p)
	})
}

func (n Network) overlaps(network ip.Dual[netip.Prefix]) bool { return len(n.shared(network)) > 0 }

func leased(s subnet.Subnets) []netip.Prefix {
	var list []netip.Prefix
	for _, f := range ip.Families() {
		if p := s.Of(f); p.IsValid() {
			list = append(list, p)
		}
	}
	return list
}
