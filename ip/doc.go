// Package ip models what the kernel of a host should look like: links, addresses, routes, neighbours and rules as plain values.
//
// Nothing here talks to a kernel. State says what Tulle owns on a host, Diff says how to get from one State to another,
// and Kernel is the door through which a State is read and a Plan is applied. The package imports only the standard
// library and compiles on every OS.
package ip
