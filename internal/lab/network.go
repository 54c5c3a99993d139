//go:build linux

package lab

import (
	"context"
	"encoding/json"

	"tulle/ip"
)

// NetworkConfig is the network configuration of the lab, as JSON.
func (l *Lab) NetworkConfig() string {
	config := struct {
		EnableIPv4  bool
		EnableIPv6  bool
		Network     string `json:",omitempty"`
		IPv6Network string `json:",omitempty"`
		Backend     map[string]any
	}{Backend: l.Config.Backend}
	for _, family := range l.Config.Families {
		switch family {
		case ip.IPv4:
			config.EnableIPv4, config.Network = true, l.Config.Network.V4.String()
		case ip.IPv6:
			config.EnableIPv6, config.IPv6Network = true, l.Config.Network.V6.String()
		}
	}
	text, err := json.Marshal(config)
	if err != nil {
		// Only a Backend that holds a channel or a function gets here.
		panic(err)
	}
	return string(text)
}

// Configure writes the network configuration to etcd.
func (l *Lab) Configure(ctx context.Context) error {
	return l.Etcd.Put(ctx, l.Etcd.Key("config"), l.NetworkConfig())
}
