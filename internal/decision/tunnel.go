package decision

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tulle/ip"
)

// mostTraced is how many peers are looked at one by one, at each chain that drops packets of some.
const mostTraced = 256

// tunnels finds where the packets that hosts exchange through a tunnel of UDP are dropped on this one.
func tunnels(in Inputs, want ip.State) (all []ip.TunnelBlockade) {
	filters := remaining(in.Kernel)
	for _, l := range want.Links {
		kind, ok := l.Kind.(ip.VXLAN)
		if !ok {
			continue
		}
		var peers []netip.Addr
		for _, entry := range want.FDB {
			if entry.Link == l.Name {
				peers = append(peers, entry.Dst)
			}
		}
		for _, inbound := range []bool{true, false} {
			flow := ip.TunnelFlow{Own: kind.Local, Uplink: in.Host.Uplink.Link, Port: kind.Port, Inbound: inbound}
			all = append(all, ip.BlockedTunnels(filters, flow, peers, mostTraced)...)
		}
	}
	for i, b := range all {
		all[i].UFW = slices.ContainsFunc(filters, func(f ip.Filter) bool {
			return f.Engine == b.At.Engine && f.Family == b.At.Family && f.Table == b.At.Table && strings.HasPrefix(f.Chain, ufwPrefix)
		})
	}
	return all
}

// ufwPrefix begins the names of ufw's chains, also those for IPv6.
const ufwPrefix = "ufw"

// TunnelCutOff is an error if packets of tunnels are dropped for sure.
func TunnelCutOff(blocked []ip.TunnelBlockade) error {
	var errs []error
	for _, b := range blocked {
		if b.Sure {
			errs = append(errs, errors.New(DescribeTunnel(b)))
		}
	}
	return errors.Join(errs...)
}

// DescribeTunnel says where packets of a tunnel are dropped, and what ends that.
func DescribeTunnel(b ip.TunnelBlockade) string {
	verb, run := "drops", "run"
	if !b.Sure {
		verb, run = "may drop, for a rule in it is not understood,", "if it does, run"
	}
	direction := "to"
	if b.Flow.Inbound {
		direction = "from"
	}
	peers := slices.SortedFunc(slices.Values(b.Peers), netip.Addr.Compare)
	hosts := peers[0].String()
	switch len(peers) {
	case 1:
	case 2:
		hosts += " and " + peers[1].String()
	default:
		hosts += fmt.Sprintf(" and %d other hosts", len(peers)-1)
	}
	return fmt.Sprintf("%s %s the packets of the tunnel, UDP port %d, %s %s: %s %s", b.At, verb, b.Flow.Port, direction, hosts, run, tunnelRemedy(b))
}

func tunnelRemedy(b ip.TunnelBlockade) string {
	switch {
	case b.At.Table == firewalldTable && b.Flow.Inbound:
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/udp and firewall-cmd --reload", b.Flow.Port)
	case b.UFW:
		direction := ""
		if !b.Flow.Inbound {
			direction = "out "
		}
		return fmt.Sprintf("ufw allow %s%d/udp", direction, b.Flow.Port)
	}
	return b.At.AcceptPort(b.Flow.Port)
}
