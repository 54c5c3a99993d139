// Package ip models the network state of a host, as it is or as it should be: links, addresses, routes, neighbours, rules and the rest as values.
//
// Nothing here talks to a kernel. State says what Tulle owns on a host, Diff says how to get from one State to another,
// and Kernel is the door through which a State is read and a Plan is applied. The package imports only the standard
// library and compiles on every OS.
package ip
