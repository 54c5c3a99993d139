package kernel

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// newLink is a link of a kind, as it is asked for.
func newLink(attrs netlink.LinkAttrs, kind ip.LinkKind) (netlink.Link, error) {
	switch kind := kind.(type) {
	case ip.VXLAN:
		return &netlink.Vxlan{
			LinkAttrs: attrs,
			VxlanId:   int(kind.VNI),
			SrcAddr:   kind.Local.AsSlice(),
			Port:      int(kind.Port),
			Learning:  kind.Learning,
			GBP:       kind.GBP,
			UDPCSum:   true,
		}, nil
	case ip.IPIP:
		return &netlink.Iptun{LinkAttrs: attrs, Local: kind.Local.AsSlice(), Proto: ip.ProtocolIPIP}, nil
	}
	return nil, errors.ErrUnsupported
}

// parseKind reads what a link is. One that works in another way than ours is of no kind, and so is made anew.
func parseKind(link netlink.Link) ip.LinkKind {
	switch v := link.(type) {
	case *netlink.Vxlan:
		if v.FlowBased || v.Group != nil || v.Proxy || v.RSC || v.L2miss || v.L3miss {
			return nil
		}
		local, _ := netip.AddrFromSlice(v.SrcAddr)
		return ip.VXLAN{VNI: uint32(v.VxlanId), Local: local, Port: uint16(v.Port), Learning: v.Learning, GBP: v.GBP}
	case *netlink.Iptun:
		// One that flanneld made takes MPLS as well.
		if v.FlowBased || v.EncapType != 0 || len(v.Remote) > 0 && !v.Remote.IsUnspecified() || v.Proto != 0 && v.Proto != ip.ProtocolIPIP {
			return nil
		}
		local, _ := netip.AddrFromSlice(v.Local)
		return ip.IPIP{Local: local}
	}
	return nil
}

// readKinds finds out which kinds of links this kernel lacks. What it has once, it keeps; what it lacks, somebody may load.
func (rd *reading) readKinds(k *Kernel) error {
	for _, kind := range rd.scope.Kinds {
		if k.makes[kind] {
			continue
		}
		// No device can have this name, so that none is made; a kernel that knows the kind, or finds a module for it, has something
		// else to say first of one that it does not know.
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "/"
		if errors.Is(k.links.LinkAdd(&netlink.GenericLink{LinkAttrs: attrs, LinkType: kind}), unix.EOPNOTSUPP) {
			if rd.Lacks == nil {
				rd.Lacks = map[string]bool{}
			}
			rd.Lacks[kind] = true
			continue
		}
		k.makes[kind] = true
	}
	return nil
}
