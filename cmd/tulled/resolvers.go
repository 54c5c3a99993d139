package main

import (
	"net/netip"
	"strings"

	"tulle/internal/regularfile"
)

// resolvConf is where the resolver's configuration lies (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

const maxResolvConf = 1 << 20 // bytes

// resolvers lists the name servers in the file at path; none if it cannot be read.
func resolvers(path string) []netip.Addr {
	text, err := regularfile.ReadTarget(path, maxResolvConf)
	if err != nil {
		return nil
	}
	var addrs []netip.Addr
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(words[1]); err == nil {
			addrs = append(addrs, addr.WithZone(""))
		}
	}
	return addrs
}
