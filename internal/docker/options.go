package docker

import (
	"fmt"
	"net/netip"
	"strings"

	"tulle/subnet/flannel"
)

// Options prints the lease as shell variables for set-ups that pass dockerd its options on the command line. The
// first four lines of an IPv4 lease are to the byte what flannel's mk-docker-opts.sh writes. The subnet is given once more as
// the network address, which docker network create wants instead of the bridge's own.
func Options(env flannel.Env) string {
	var b strings.Builder
	var all []string
	option := func(name string, flags ...string) {
		all = append(all, flags...)
		fmt.Fprintf(&b, "DOCKER_OPT_%s=\"%s\"\n", name, strings.Join(flags, " "))
	}
	v4, v6 := env.Subnets.V4, env.Subnets.V6
	if v4.IsValid() {
		option("BIP", "--bip="+netip.PrefixFrom(Gateway(v4), v4.Bits()).String())
	}
	option("IPMASQ", fmt.Sprintf("--ip-masq=%t", !masqueradeOff(env)))
	if v6.IsValid() {
		option("IPV6", "--ipv6=true", "--fixed-cidr-v6="+v6.String())
	}
	option("MTU", fmt.Sprintf("--mtu=%d", env.MTU))
	fmt.Fprintf(&b, "DOCKER_OPTS=\" %s\"\n", strings.Join(all, " "))
	for _, network := range []struct {
		name   string
		subnet netip.Prefix
	}{{"DOCKER_NETWORK", v4}, {"DOCKER_NETWORK_IPV6", v6}} {
		if network.subnet.IsValid() {
			fmt.Fprintf(&b, "%s_SUBNET=\"%s\"\n%s_GATEWAY=\"%s\"\n", network.name, network.subnet, network.name, Gateway(network.subnet))
		}
	}
	return b.String()
}
