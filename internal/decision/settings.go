package decision

import (
	"slices"

	"tulle/ip"
	"tulle/subnet"
)

// Settings are those to read of a host.
func Settings(n subnet.Network, o Options) []ip.Sysctl {
	s := hostSettings(o)
	for _, f := range n.Families() {
		s = append(s, ip.ForwardingSetting(f), onEachLink(f))
	}
	return s
}

// hostSettings are those of the host that no family needs.
func hostSettings(o Options) []ip.Sysctl {
	if o.FastPath {
		return []ip.Sysctl{beLiberal()}
	}
	return nil
}

// onEachLink is what matters on single links: IPv4 forwards what comes in by a link only if that link says so, while IPv6 asks for all of them alone,
// but no longer heeds router advertisements on a host that forwards, unless told to on a link (ip-sysctl).
func onEachLink(f ip.Family) ip.Sysctl {
	if f == ip.IPv4 {
		return ip.LinkSetting(f, ip.EachLink, "forwarding", "1")
	}
	s := ip.LinkSetting(f, ip.EachLink, "accept_ra", acceptAlways)
	s.Optional = true
	return s
}

// acceptAlways has router advertisements heeded also on a host that forwards.
const acceptAlways = "2"

// settings are those that are wanted of the host, beside the backend's.
func settings(in Inputs) []ip.Sysctl {
	s := hostSettings(in.Options)
	for _, f := range in.Network.Families() {
		s = append(s, ip.ForwardingSetting(f))
		want := onEachLink(f)
		for _, i := range in.Kernel.Interfaces {
			if f == ip.IPv4 && forwards(in, i) || f == ip.IPv6 && learns(in, i) {
				s = append(s, want.Of(i.Name))
			}
		}
	}
	return s
}

// forwards reports whether packets of containers come in by the interface: from peers, from this host's containers, or from the world as answers.
func forwards(in Inputs, i ip.Interface) bool {
	return i.Name == in.Host.Uplink.Link || in.Host.Owns(i.Name) || holdsSubnet(in, i)
}

// learns reports whether the host's way to the world over the interface is known by router advertisements in the kernel, which it would lose.
// Containers must not become routers of their host, so that links to them do not count.
func learns(in Inputs, i ip.Interface) bool {
	setting := slices.IndexFunc(in.Kernel.Owned.Sysctls, func(s ip.Sysctl) bool { return s.Key == onEachLink(ip.IPv6).Of(i.Name).Key })
	if setting < 0 || in.Host.Owns(i.Name) || holdsSubnet(in, i) {
		return false
	}
	if value := in.Kernel.Owned.Sysctls[setting].Value; value != "1" && value != acceptAlways {
		return false
	}
	learnt := slices.ContainsFunc(in.Kernel.Defaults, func(r ip.Route) bool { return r.Link == i.Name && r.Protocol == ip.ProtocolRA }) ||
		slices.ContainsFunc(i.Addrs, func(a ip.InterfaceAddr) bool { return ip.FamilyOf(a.Prefix.Addr()) == ip.IPv6 && a.Dynamic })
	return learnt && (i.Name == in.Host.Uplink.Link || i.Kind != "veth" && i.Kind != "bridge")
}

// holdsSubnet reports whether the interface has an address of this host's subnet, as a bridge of containers has.
func holdsSubnet(in Inputs, i ip.Interface) bool {
	return slices.ContainsFunc(i.Addrs, func(a ip.InterfaceAddr) bool {
		own := in.Self.Subnets.Of(ip.FamilyOf(a.Prefix.Addr()))
		return own.IsValid() && own.Contains(a.Prefix.Addr())
	})
}
