package fastpath

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// checkKernel tries what kernels refuse a program that runs, and not one that is loaded: to put a packet into a tunnel with its frame. It also comes before
// what kernels as old charge to a limit of memory, and refuse as if rights were lacking (RLIMIT_MEMLOCK, until Linux 5.11).
func checkKernel() error {
	const ( // linux/bpf.h
		room                         = 14 + 20 + 8 + 8
		adjustRoomMAC                = 1
		fixedGSO, ipv4, udp, l2frame = 1 << 0, 1 << 1, 1 << 4, 1 << 6
		l2length                     = 14 << 56
	)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "tulle_check", Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{ // the packet is in R1
			asm.Mov.Imm(asm.R2, room),
			asm.Mov.Imm(asm.R3, adjustRoomMAC),
			asm.LoadImm(asm.R4, fixedGSO|ipv4|udp|l2frame|l2length, asm.DWord),
			asm.FnSkbAdjustRoom.Call(),
			asm.Return(),
		},
	})
	if err != nil {
		return explain(err)
	}
	defer p.Close()
	packet := make([]byte, 64)
	packet[12], packet[14] = 0x08, 0x45 // IPv4, with a header of 20 bytes
	verdict, err := p.Run(&ebpf.RunOptions{Data: packet})
	if err == nil && verdict != 0 { // one that cannot be tried may do all the same
		return fmt.Errorf("this kernel lacks what it needs (Linux 5.13 has it): bpf_skb_adjust_room with BPF_F_ADJ_ROOM_ENCAP_L2_ETH: error %d", -int32(verdict))
	}
	return nil
}
