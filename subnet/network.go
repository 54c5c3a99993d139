package subnet

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"

	"tulle/ip"
)

// Network is a valid network configuration, with every default filled in.
type Network struct {
	Pools    ip.Dual[Pool] // a zero Pool: the family is off
	Backend  Backend
	Revision Revision // when it was written
}

// Same reports whether two configurations say the same, written at whatever revision and with whatever white space.
func (n Network) Same(o Network) bool {
	return n.Pools == o.Pools && n.Backend.Type == o.Backend.Type && sameJSON(n.Backend.Options, o.Backend.Options)
}

func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var values [2]any
	for i, text := range [][]byte{a, b} {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if d.Decode(&values[i]) != nil {
			return false
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

// Pool is the address space of one family and how it is cut into subnets.
type Pool struct {
	Network   netip.Prefix
	SubnetLen int
	Min, Max  netip.Addr // network addresses of the first and the last subnet that may be leased
}

// Enabled reports whether the family is in use.
func (p Pool) Enabled() bool { return p.Network.IsValid() }

// Backend names how traffic travels; Options is the whole Backend object of the configuration, for the backend to decode.
type Backend struct {
	Type    string
	Options json.RawMessage
}

// Families returns the families that are in use, IPv4 first.
func (n Network) Families() []ip.Family {
	var fs []ip.Family
	for _, f := range ip.Families() {
		if n.Pools.Of(f).Enabled() {
			fs = append(fs, f)
		}
	}
	return fs
}

// Prefixes returns the network of each family in use, IPv4 first.
func (n Network) Prefixes() []netip.Prefix {
	var ps []netip.Prefix
	for _, f := range n.Families() {
		ps = append(ps, n.Pools.Of(f).Network)
	}
	return ps
}
