package kernel

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
)

// newGeneration is the type of the message that ends the notifications of a transaction of nf_tables.
const newGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN

// Attributes of that message (linux/netfilter/nf_tables.h).
const (
	generationID   = 1 // NFTA_GEN_ID
	generationPID  = 2 // NFTA_GEN_PROC_PID
	generationName = 3 // NFTA_GEN_PROC_NAME
)

// nfHeader is the size of struct nfgenmsg, in bytes.
const nfHeader = 4

// actor returns the process that caused a notification. nf_tables names the process. Of other changes the kernel tells the socket's
// port, which is the process's id as long as the process has no second socket (netlink(7)).
func (m message) actor() ip.Actor {
	if m.typ == newGeneration {
		return generationActor(m)
	}
	if m.typ>>8 == unix.NFNL_SUBSYS_NFTABLES || m.port == 0 || m.port > maxPID {
		return ip.Actor{}
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.port))
	if err != nil {
		name = nil // it is gone
	}
	return ip.Actor{Name: strings.TrimSpace(string(name)), PID: int(m.port)}
}

// maxPID bounds process ids (PID_MAX_LIMIT); ports above are the kernel's choice.
const maxPID = 1 << 22

func generationActor(m message) ip.Actor {
	var a ip.Actor
	if len(m.data) < nfHeader {
		return a
	}
	for typ, value := range notify.Attributes(m.data[nfHeader:]) {
		switch {
		case typ == generationPID && len(value) == 4:
			a.PID = int(binary.BigEndian.Uint32(value))
		case typ == generationName:
			a.Name = strings.TrimRight(string(value), "\x00")
		}
	}
	return a
}
