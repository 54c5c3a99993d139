// Package bench measures what a host of a large network costs: one real daemon on a real kernel and a real etcd, among any
// number of peers that are leases and nothing else.
package bench
