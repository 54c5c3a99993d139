// Package flannel reads and writes flannel's texts, so that Tulle and flannel can share a store and a host: the keys and values
// of a store, the network configuration and the subnet file. Tulle's own fields in a lease's value are here too.
//
// In a store of keys and values, the configuration is at PREFIX/config, and a lease at PREFIX/subnets/KEY.
package flannel

const (
	// DefaultPrefix is where flannel looks unless it is told otherwise.
	DefaultPrefix = "/coreos.com/network"
	// ConfigKey is the key of the network configuration.
	ConfigKey = "config"
	// LeaseDir begins the key of a lease. What follows is the text of its subnets (subnet.KeyOf).
	LeaseDir = "subnets/"
)
