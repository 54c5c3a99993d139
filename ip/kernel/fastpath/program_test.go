//go:build linux

package fastpath_test

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Verdicts of programs (linux/pkt_cls.h).
const (
	tcNext = -1 // TC_ACT_UNSPEC
	tcOK   = 0
	tcDrop = 2 // TC_ACT_SHOT
)

// program is one of somebody else, with one verdict for all packets.
func (n *node) program(verdict int32) *ebpf.Program {
	n.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	must(n.t, err)
	n.t.Cleanup(func() { p.Close() })
	return p
}

// hang hangs such a program on a link, behind those that are there, and returns what takes it away.
func (n *node) hang(name string, at ebpf.AttachType, verdict int32) (detach func()) {
	n.t.Helper()
	var l link.Link
	must(n.t, n.Do(func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{Interface: n.link(name).Attrs().Index, Program: n.program(verdict), Attach: at, Anchor: link.Tail()})
		return err
	}))
	n.t.Cleanup(func() { l.Close() })
	return func() { l.Close() }
}

// filter hangs one on a link as a filter of tc(8), at ingress or egress.
func (n *node) filter(name string, parent uint32, verdict int32) {
	n.t.Helper()
	index := n.link(name).Attrs().Index
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	must(n.t, n.netlink.QdiscReplace(qdisc))
	must(n.t, n.netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs:  netlink.FilterAttrs{LinkIndex: index, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:           n.program(verdict).FD(),
		Name:         "foreign",
		DirectAction: true,
	}))
}

// eachFilter visits the filters of a link at ingress and egress.
func (n *node) eachFilter(name string, do func(netlink.Filter)) {
	n.t.Helper()
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := n.netlink.FilterList(n.link(name), parent)
		must(n.t, err)
		for _, f := range filters {
			do(f)
		}
	}
}

func (n *node) deleteFilters(name string) {
	n.t.Helper()
	must(n.t, n.netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: n.link(name).Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}))
}
