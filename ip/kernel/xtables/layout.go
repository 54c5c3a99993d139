package xtables

import "tulle/ip"

// layout is where things are in an entry, struct ipt_entry or ip6t_entry, in bytes. Both are laid out as a 64-bit kernel
// does; on others there are no tables to be seen.
type layout struct {
	src, dst, srcMask, dstMask int
	in, out, inMask, outMask   int
	proto, flags, inverse      int
	targetOffset, next, size   int
	gotoFlag                   byte // IPT_F_GOTO, IP6T_F_GOTO
	protoFlag                  byte // IP6T_F_PROTO: the protocol is asked for; IPv4 has none
}

func layoutOf(f ip.Family) layout {
	if f == ip.IPv4 {
		return layout{
			src: 0, dst: 4, srcMask: 8, dstMask: 12, in: 16, out: 32, inMask: 48, outMask: 64,
			proto: 80, flags: 82, inverse: 83, targetOffset: 88, next: 90, size: 112, gotoFlag: 2,
		}
	}
	return layout{
		src: 0, dst: 16, srcMask: 32, dstMask: 48, in: 64, out: 80, inMask: 96, outMask: 112,
		proto: 128, flags: 131, inverse: 132, targetOffset: 140, next: 142, size: 168, gotoFlag: 4, protoFlag: 1,
	}
}

// Bits of the byte that inverts conditions (IPT_INV_*).
const (
	invertIn  = 1 << 0
	invertOut = 1 << 1
	invertSrc = 1 << 3
	invertDst = 1 << 4
)

// An extension, struct xt_entry_match or xt_entry_target, begins with its size, name and revision.
const (
	extensionHeader = 32
	extensionName   = 2
	extensionRev    = 31 // where the name ends
)

// Targets: the standard one has no name and holds a verdict; the one named ERROR holds the name of the chain that it
// begins, or ERROR at the end of the table.
const (
	errorTarget  = "ERROR"
	standardSize = 40
	errorSize    = 64
)

// Verdicts of the standard target below zero; others are offsets to jump to (XT_RETURN, NF_DROP, NF_ACCEPT).
const (
	verdictDrop   = -1
	verdictAccept = -2
	verdictReturn = -5
)

// hooks is the number of hooks of a table (NF_INET_NUMHOOKS).
const hooks = 5

// hookNames are the names of the chains at the hooks.
func hookNames() [hooks]string {
	return [hooks]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
}
