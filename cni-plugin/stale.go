//go:build linux

package cniplugin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"tulle/ip"
	"tulle/ip/kernel/bridge"
	"tulle/subnet/flannel"
)

// errStale is the error code for a bridge with an earlier lease's address in use; from 100 on they are a plugin's own.
const errStale = 100

// clearBridge takes addresses of earlier leases from the delegate's bridge.
func (p *Plugin) clearBridge(c conf, env flannel.Env) error {
	name, old, err := staleBridge(c, env)
	if err != nil {
		return err
	}
	for _, addr := range old {
		if err := bridge.RemoveAddr(name, addr); err != nil {
			return err
		}
		p.remark("took %s, of an earlier lease, from bridge %s", addr, name)
	}
	return nil
}

// staleBridge returns the delegate's bridge and which of its addresses are of earlier leases. As long as containers hang on the
// bridge it is an error to have any: without them, the containers would lose their gateway.
func staleBridge(c conf, env flannel.Env) (name string, old []netip.Prefix, err error) {
	if name = bridgeOf(c); name == "" {
		return "", nil, nil
	}
	addrs, err := bridge.Addrs(name)
	if err != nil {
		return name, nil, err
	}
	if old = stale(addrs, env); len(old) == 0 {
		return name, nil, nil
	}
	ports, err := bridge.Ports(name)
	if err == nil && len(ports) > 0 {
		err = types.NewError(errStale, fmt.Sprintf(
			"bridge %s has containers in %s, an earlier lease, and this host's subnet is now %s: stop what hangs on the bridge (%s), then the next container to start corrects it",
			name, join(masked(old)), join(subnetsOf(env)), strings.Join(ports, ", ")), "")
	}
	return name, old, err
}

// stale picks the addresses that came from another lease than env's. Such an address is in Tulle's network; and, as long as
// the bridge lacks today's address, one that looks like it counts too, for the network may have been another one.
func stale(addrs []netip.Prefix, env flannel.Env) []netip.Prefix {
	var old []netip.Prefix
	for _, addr := range addrs {
		p := env.Subnets.Of(ip.FamilyOf(addr.Addr()))
		if !p.IsValid() || !addr.Addr().IsGlobalUnicast() {
			continue
		}
		gateway := gatewayOf(p)
		inside := slices.ContainsFunc(networks(env), func(n netip.Prefix) bool { return n.Contains(addr.Addr()) })
		alike := addr == gatewayOf(addr) && addr.Bits() == p.Bits() && !slices.Contains(addrs, gateway)
		if addr != gateway && (inside || alike) {
			old = append(old, addr)
		}
	}
	return old
}

// gatewayOf is the address that a bridge has in a subnet: the first after the network's own.
func gatewayOf(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Masked().Addr().Next(), p.Bits())
}

func subnetsOf(env flannel.Env) []netip.Prefix {
	var all []netip.Prefix
	for _, f := range ip.Families() {
		if p := env.Subnets.Of(f); p.IsValid() {
			all = append(all, p)
		}
	}
	return all
}

func masked(addrs []netip.Prefix) []netip.Prefix {
	subnets := make([]netip.Prefix, len(addrs))
	for i, addr := range addrs {
		subnets[i] = addr.Masked()
	}
	return subnets
}

func join(prefixes []netip.Prefix) string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = p.String()
	}
	return strings.Join(texts, " and ")
}
