package subnet

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"tulle/ip"
)

// noIPv4 stands where a key needs an IPv4 subnet and the lease has none.
const noIPv4 = "0.0.0.0-0"

// KeyOf returns the key of subnets, the text by which people, files and stores name the lease of them: "10.5.34.0-24",
// "10.5.34.0-24&fc00:5::-64" or, without IPv4, "0.0.0.0-0&fc00:5::-64". It is flannel's, so that there is one such text.
func KeyOf(s Subnets) string {
	key := noIPv4
	if s.V4.IsValid() {
		key = keyPart(s.V4)
	}
	if s.V6.IsValid() {
		key += "&" + keyPart(s.V6)
	}
	return key
}

func keyPart(p netip.Prefix) string { return p.Addr().String() + "-" + strconv.Itoa(p.Bits()) }

// ParseKey reads what KeyOf writes and nothing else, so that a key and its subnets name each other. flannel reads more:
// host bits, leading zeros, text around the key. None of its daemons writes such keys, and some stall on them.
// "0.0.0.0-0" alone is the prefix 0.0.0.0/0, which Judge refuses.
func ParseKey(key string) (Subnets, error) {
	s, err := parseKey(key)
	if err != nil {
		return Subnets{}, fmt.Errorf("parse lease key %.64q: %w", key, err)
	}
	return s, nil
}

func parseKey(key string) (s Subnets, err error) {
	text4, text6, dual := strings.Cut(key, "&")
	if !dual || text4 != noIPv4 {
		if s.V4, err = parseKeyPart(ip.IPv4, text4); err != nil {
			return Subnets{}, err
		}
	}
	if dual {
		if s.V6, err = parseKeyPart(ip.IPv6, text6); err != nil {
			return Subnets{}, err
		}
	}
	if written := KeyOf(s); written != key {
		return Subnets{}, fmt.Errorf("not in the one form that every daemon reads alike: write %s", written)
	}
	return s, nil
}

func parseKeyPart(f ip.Family, text string) (netip.Prefix, error) {
	address, length, ok := strings.Cut(text, "-")
	if !ok {
		return netip.Prefix{}, errors.New(`want ADDRESS-LENGTH, or ADDRESS-LENGTH&ADDRESS6-LENGTH6`)
	}
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.BitLen() != f.Bits() || addr.Zone() != "" || addr.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%.64q is not an %s address", address, f)
	}
	// flannel keeps the length in 5 or 7 bits: a key with /32 or /128 makes every flanneld drop all its peers.
	bits, err := strconv.ParseUint(length, 10, 8)
	if err != nil || int(bits) >= f.Bits() {
		return netip.Prefix{}, fmt.Errorf("%.64q is not an %s prefix length from 0 to %d", length, f, f.Bits()-1)
	}
	return netip.PrefixFrom(addr, int(bits)).Masked(), nil
}

// CompareSubnets orders by IPv4 subnet, then by IPv6 subnet; no subnet comes before any.
func CompareSubnets(a, b Subnets) int {
	if c := ip.ComparePrefix(a.V4, b.V4); c != 0 {
		return c
	}
	return ip.ComparePrefix(a.V6, b.V6)
}
