package decision

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tulle/ip"
)

// Tables that their owners name so.
const (
	dockerTable    = "docker-bridges" // of Docker's nftables backend, since Docker 29
	firewalldTable = "firewalld"
)

// CutOff is an error if packets are dropped for sure.
func CutOff(blocked []ip.Blockade) error {
	var errs []error
	for _, b := range blocked {
		if b.Sure {
			errs = append(errs, errors.New(Describe(b)))
		}
	}
	return errors.Join(errs...)
}

// Describe says where packets are dropped and which setting ends that.
func Describe(b ip.Blockade) string {
	if b.Flows[0].Port != 0 {
		return describeTunnel(b)
	}
	between := "containers of this host and others"
	if !slices.ContainsFunc(b.Flows, func(f ip.Flow) bool { return !f.Local }) {
		between = "containers of this host"
	}
	return fmt.Sprintf("%s %s packets between %s: %s", b.At, verb(b), between, remedy(b))
}

// verb says how sure it is that packets are dropped.
func verb(b ip.Blockade) string {
	if b.Sure {
		return "drops"
	}
	return "may drop, for a rule in it is not understood,"
}

// DescribeClosed says where packets to and from the world outside are dropped.
func DescribeClosed(b ip.Blockade) string {
	var what []string
	for _, f := range b.Flows {
		text := "from containers to the outside"
		switch {
		case f.DNAT:
			text = "from the outside to published ports of containers"
		case f.Known:
			text = "of connections between containers and the outside"
		}
		what = union(what, []string{text})
	}
	return fmt.Sprintf("%s drops packets %s: if that is not on purpose, its owner must accept them there, before; list it with %s",
		b.At, strings.Join(what, " and "), b.At.List())
}

func remedy(b ip.Blockade) string {
	networks := networksOf(b.Flows)
	switch {
	case b.Shared:
		return fmt.Sprintf("a rule there comes before Tulle's: list them with %s, and delete or move it", b.At.List())
	case b.At.Table == dockerTable && b.Hook == ip.AtPrerouting:
		return `set "allow-direct-routing": true in Docker's daemon.json, as tulle docker configure does, or create the network with ` +
			"-o com.docker.network.bridge.trusted_host_interfaces=" + strings.Join(linksOf(b.Flows), ":")
	case b.At.Table == dockerTable:
		return fmt.Sprintf(`set "bridge-accept-fwmark": "%#x/%#x" in Docker's daemon.json, as tulle docker configure does`, ip.Mark, ip.Mark)
	case b.At.Table == firewalldTable:
		var sources []string
		for _, n := range networks {
			sources = append(sources, "--add-source="+n.String())
		}
		return "run firewall-cmd --permanent --zone=trusted " + strings.Join(sources, " ") + " and firewall-cmd --reload"
	}
	var commands []string
	for _, n := range networks {
		commands = append(commands, b.At.Accept(n, n))
	}
	for _, f := range b.Flows {
		if f.Local && f.Dst != f.Src { // multicast, which is in no network
			commands = union(commands, []string{b.At.Accept(f.Src, f.Dst)})
		}
	}
	return "its owner must accept them first in that chain, as by " + strings.Join(commands, " and ")
}

// networksOf lists the container networks that the flows are in.
func networksOf(flows []ip.Flow) []netip.Prefix {
	var networks []netip.Prefix
	for _, f := range flows {
		network := f.Dst
		if f.Inbound || f.Local {
			network = f.Src
		}
		networks = union(networks, []netip.Prefix{network})
	}
	return slices.DeleteFunc(slices.Clone(networks), func(n netip.Prefix) bool {
		wider := func(other netip.Prefix) bool { return other != n && ip.Contains(other, n) }
		return slices.ContainsFunc(networks, wider)
	})
}

// linksOf lists the interfaces through which the flows come in from other hosts.
func linksOf(flows []ip.Flow) []string {
	var links []string
	for _, f := range flows {
		if f.Inbound {
			links = union(links, []string{f.In})
		}
	}
	return links
}
