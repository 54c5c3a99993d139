// Package backends lists the backends that Tulle has.
package backends

import (
	"tulle/backend"
	"tulle/backend/alloc"
	"tulle/backend/hostgw"
	"tulle/backend/ipip"
	"tulle/backend/vxlan"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// All returns the backends by their name in the network configuration, Backend.Type.
func All() map[string]backend.New {
	return map[string]backend.New{
		vxlan.Name:  vxlan.New,
		hostgw.Name: hostgw.New,
		ipip.Name:   ipip.New,
		alloc.Name:  alloc.New,
	}
}

// Check parses a network configuration as tulled does, with the options of its backend, and returns what is odd about it.
func Check(data []byte) (n subnet.Network, warnings []string, err error) {
	n, warnings, err = flannel.ParseNetwork(data, 0)
	if err != nil {
		return n, nil, err
	}
	_, more, err := backend.Open(All(), n)
	return n, append(warnings, more...), err
}
