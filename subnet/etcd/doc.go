// Package etcd keeps the network configuration and the leases in etcd, in flannel's layout.
//
// Under the prefix, PREFIX/config and PREFIX/subnets/KEY are flannel's keys. Tulle's own are below PREFIX/claims/:
// owner/SUBNET says which lease holds a subnet and lives as long as that lease; nodes/NODE is where a host asks whether
// the owner of a node id lives, and is gone after a minute.
package etcd
