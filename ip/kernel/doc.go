// Package kernel is the door to a Linux network namespace: it implements ip.Kernel over netlink and nf_tables.
//
// Links are few and go through github.com/vishvananda/netlink, rules through github.com/google/nftables. Routes,
// neighbours, forwarding entries and addresses are many: they are encoded here, and travel by the hundred in one system
// call, of which the kernel answers only the failures. The tables of iptables-legacy are left to package xtables. Nothing
// else in Tulle speaks netlink, and no program is executed.
package kernel
