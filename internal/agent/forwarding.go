package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tulle/ip"
	"tulle/subnet"
)

// flows are the packets between this host's containers and those of others, by every way that they take.
func flows(v view, n subnet.Network, want ip.State) []ip.Flow {
	var all []ip.Flow
	for _, f := range n.Families() {
		network, own := n.Pools.Of(f).Network, v.self.Subnets.Of(f)
		if !own.IsValid() {
			continue
		}
		links := fabricLinks(want, f)
		for _, bridge := range bridges(v.snap.Interfaces, own, links) {
			for _, link := range links {
				all = append(all,
					ip.Flow{Src: network, Dst: own, In: link, Out: bridge, Inbound: true},
					ip.Flow{Src: own, Dst: network, In: bridge, Out: link})
			}
		}
	}
	return all
}

// exits are the packets between this host's containers and the world outside.
func exits(v view, n subnet.Network, want ip.State) []ip.Flow {
	var all []ip.Flow
	for _, f := range n.Families() {
		i := slices.IndexFunc(v.snap.Defaults, func(r ip.Route) bool { return ip.FamilyOf(r.Dst.Addr()) == f })
		own := v.self.Subnets.Of(f)
		if i < 0 || !own.IsValid() {
			continue
		}
		link, anywhere := v.snap.Defaults[i].Link, v.snap.Defaults[i].Dst
		for _, bridge := range bridges(v.snap.Interfaces, own, fabricLinks(want, f)) {
			all = append(all,
				ip.Flow{Src: own, Dst: anywhere, In: bridge, Out: link},
				ip.Flow{Src: anywhere, Dst: own, In: link, Out: bridge, Inbound: true, Known: true})
		}
	}
	return all
}

// remaining are the filters that will be there once the leftovers are gone: what a flanneld accepts does not count.
func remaining(s ip.Snapshot) []ip.Filter {
	return slices.DeleteFunc(slices.Clone(s.Filters), func(f ip.Filter) bool {
		return slices.Contains(s.Owned.Leftovers, ip.Leftover(f.Place))
	})
}

// fabricLinks are the interfaces that lead to other hosts: Tulle's own and those of its routes.
func fabricLinks(want ip.State, f ip.Family) []string {
	var links []string
	for _, a := range want.Addrs {
		if ip.FamilyOf(a.Prefix.Addr()) == f {
			links = union(links, []string{a.Link})
		}
	}
	for _, r := range want.Routes {
		if ip.FamilyOf(r.Dst.Addr()) == f {
			links = union(links, []string{r.Link})
		}
	}
	slices.Sort(links)
	return links
}

// bridges are the interfaces that lead to this host's containers; one without a name if there is none yet.
func bridges(interfaces []ip.Interface, own netip.Prefix, except []string) []string {
	var names []string
	for _, i := range interfaces {
		inside := func(a ip.InterfaceAddr) bool { return own.Contains(a.Prefix.Addr()) }
		if !i.Loopback && !slices.Contains(except, i.Name) && slices.ContainsFunc(i.Addrs, inside) {
			names = append(names, i.Name)
		}
	}
	if names == nil {
		names = []string{""}
	}
	return names
}

// Tables that their owners name so.
const (
	dockerTable    = "docker-bridges" // of Docker's nftables backend, since Docker 29
	firewalldTable = "firewalld"
)

// describeAll says where packets are dropped, and what to do about it.
func describeAll(blocked []ip.Blockade) []string {
	var texts []string
	for _, b := range blocked {
		texts = append(texts, describe(b))
	}
	return texts
}

// cutOff is an error if packets are dropped for sure.
func cutOff(blocked []ip.Blockade) error {
	var errs []error
	for _, b := range blocked {
		if b.Sure {
			errs = append(errs, errors.New(describe(b)))
		}
	}
	return errors.Join(errs...)
}

// describe says where packets are dropped and which setting ends that.
func describe(b ip.Blockade) string {
	verb := "drops"
	if !b.Sure {
		verb = "may drop, for a rule in it is not understood,"
	}
	between := "containers of this host and others"
	if !slices.ContainsFunc(b.Flows, func(f ip.Flow) bool { return !f.Local }) {
		between = "containers of this host"
	}
	return fmt.Sprintf("%s %s packets between %s: %s", b.At, verb, between, remedy(b))
}

// describeClosed says where packets to and from the world outside are dropped.
func describeClosed(closed []ip.Blockade) []string {
	var texts []string
	for _, b := range closed {
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
		texts = append(texts, fmt.Sprintf("%s drops packets %s: if that is not on purpose, its owner must accept them there, before; list it with %s",
			b.At, strings.Join(what, " and "), b.At.List()))
	}
	return texts
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
