package docker

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tulle/ip"
	"tulle/subnet/flannel"
)

const poolsKey = "default-address-pools"

// usualPools are what Docker takes the subnets of its networks from unless told otherwise (moby's libnetwork/ipamutils).
func usualPools() []string {
	return []string{"172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16", "172.20.0.0/14", "172.24.0.0/14", "172.28.0.0/14", "192.168.0.0/16"}
}

// OverlappingPools says what to do about pools that overlap the network, of those that Docker takes subnets from; empty if
// none does. From such pools Docker gives addresses of Tulle's network to networks that are no part of it.
func OverlappingPools(env flannel.Env, file File, daemon *Daemon) (string, error) {
	d, _, err := file.read()
	if err != nil {
		return "", err
	}
	value, err := d.get(poolsKey)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", file.path, err)
	}
	remedy := fmt.Sprintf("out of %s in %s", poolsKey, file.path)
	var pools []string
	var entries []struct{ Base string }
	if json.Unmarshal(value, &entries) == nil {
		for _, e := range entries {
			pools = append(pools, e.Base)
		}
	}
	if daemon != nil && len(pools) == 0 {
		for _, f := range parseFlags(daemon.Args) {
			if base := poolBase(f.value); f.name == "default-address-pool" && base != "" {
				pools, remedy = append(pools, base), "off dockerd's command line, in --default-address-pool"
			}
		}
	}
	usual := len(pools) == 0
	if usual {
		pools = usualPools()
	}
	pools = slices.DeleteFunc(pools, func(text string) bool {
		p, err := netip.ParsePrefix(text)
		network := netip.Prefix{}
		if err == nil {
			network = env.Network.Of(ip.FamilyOf(p.Addr()))
		}
		return !network.IsValid() || !network.Overlaps(p)
	})
	switch list := strings.Join(pools, " and "); {
	case len(pools) == 0:
		return "", nil
	case usual:
		return fmt.Sprintf("set %s in %s, to others than Docker's usual %s", poolsKey, file.path, list), nil
	default:
		return fmt.Sprintf("take %s %s", list, remedy), nil
	}
}

// elsewhere is how a network gets other addresses than those of Tulle's, which are for another network.
func (n Network) elsewhere(pools string) string {
	command := fmt.Sprintf("docker network rm %s && docker network create %s", n.Name, n.Name)
	if pools == "" {
		return command
	}
	return fmt.Sprintf("%s, restart Docker, and then: %s", pools, command)
}

// poolBase reads a value of --default-address-pool, such as base=10.0.0.0/8,size=24.
func poolBase(value string) string {
	for field := range strings.SplitSeq(value, ",") {
		if base, ok := strings.CutPrefix(strings.TrimSpace(field), "base="); ok {
			return base
		}
	}
	return ""
}
