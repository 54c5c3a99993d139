// Package xtables reads and changes the tables of iptables-legacy(8) and ip6tables-legacy(8), without running either.
//
// The kernel hands a table out and takes it back as a whole, as one block of entries (linux/netfilter_ipv4/ip_tables.h,
// linux/netfilter/x_tables.h). Chains are stretches of the block; jumps are offsets into it. A table exists in a network
// namespace once somebody has used it there, and this package never is the first to: asking for a table makes the kernel
// load it.
package xtables
