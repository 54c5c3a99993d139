// Package subnet says which host owns which slice of the container network.
//
// A Network is the configuration, a Lease one host's slice of it, a Set both as the store holds them at one revision.
// Allocate picks a free slice, Judge tells which leases may be programmed, and Store is where leases live.
// How a store writes these down is not known here; flannel's texts are in subnet/flannel, which imports this package.
package subnet
