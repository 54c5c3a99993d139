package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
)

// Where tc(8) hangs programs on a link (linux/pkt_sched.h, linux/rtnetlink.h).
const (
	tcRoot    = 0xffffffff
	tcIngress = 0xfffffff2
	tcEgress  = 0xfffffff3

	tcHeader  = 20 // struct tcmsg
	tcBPFName = 7  // TCA_BPF_NAME (linux/pkt_cls.h)
)

// queues are the disciplines that links have by themselves and that lose nothing on purpose.
var queues = []string{"noqueue", "pfifo_fast", "pfifo", "fq", "fq_codel", "mq"}

// readDeviceFilters reads what hangs on our links, the bridges of containers and the uplinks. It costs one list of queueing disciplines, and two of filters for each link.
func (rd *reading) readDeviceFilters(k *Kernel) error {
	if len(rd.filtered) == 0 {
		return nil
	}
	err := rd.readQdiscs(k.route)
	for link := range rd.filtered {
		for at, parent := range map[string]uint32{"ingress": tcIngress, "egress": tcEgress} {
			err = errors.Join(err, rd.readTCFilters(k.route, link, at, parent))
		}
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && err != nil { // a kernel without tc
		return err
	}
	if err := k.inside(func() (err error) {
		own, ok := k.ownPrograms()
		for link, name := range rd.filtered {
			if ok {
				err = errors.Join(err, rd.readTCX(link, name, own))
			}
		}
		return err
	}); err != nil {
		return err
	}
	err = k.nft.use(k, func(*nftables.Conn) error {
		// Only chains of these families have devices.
		return errors.Join(rd.readDeviceChains(k.nft.dumps, unix.NFPROTO_NETDEV, "netdev"), rd.readDeviceChains(k.nft.dumps, unix.NFPROTO_INET, "inet"))
	})
	rd.DeviceFilters = ip.SortDeviceFilters(rd.DeviceFilters)
	if unsupported(err) {
		return nil
	}
	return err
}

func (rd *reading) addDeviceFilter(link, what, show string) {
	rd.DeviceFilters = append(rd.DeviceFilters, ip.DeviceFilter{Link: link, Uplink: rd.between[link], What: what, Show: show})
}

// tcMessage is what the kernel says of a queueing discipline or a filter.
type tcMessage struct {
	link, parent uint32
	kind         string
	name         string // of a program of bpf(2)
	options      bool
}

func parseTC(m message) (t tcMessage, ok bool) {
	if len(m.data) < tcHeader {
		return t, false
	}
	t.link, t.parent = binary.NativeEndian.Uint32(m.data[4:]), binary.NativeEndian.Uint32(m.data[12:])
	for typ, value := range notify.Attributes(m.data[tcHeader:]) {
		switch typ {
		case unix.TCA_KIND:
			t.kind = text(value)
		case unix.TCA_OPTIONS:
			t.options = true
			for typ, value := range notify.Attributes(value) {
				if typ == tcBPFName && t.kind == "bpf" {
					t.name = text(value)
				}
			}
		}
	}
	return t, true
}

// text is a string that ends with a zero.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

func (rd *reading) readQdiscs(s *socket) error {
	qdiscs, err := dump(s, unix.RTM_GETQDISC, make([]byte, tcHeader), parseTC)
	for _, q := range qdiscs {
		if name := rd.own[q.link]; name != "" && q.parent == tcRoot && !slices.Contains(queues, q.kind) {
			rd.addDeviceFilter(name, "the queueing discipline "+q.kind, "tc -s qdisc show dev "+ip.ShellWord(name))
		}
	}
	return err
}

func (rd *reading) readTCFilters(s *socket, link uint32, at string, parent uint32) error {
	header := make([]byte, tcHeader)
	binary.NativeEndian.PutUint32(header[4:], link)
	binary.NativeEndian.PutUint32(header[12:], parent)
	filters, err := dump(s, unix.RTM_GETTFILTER, header, parseTC)
	for _, f := range filters {
		// Before the filters of one priority the kernel names their kind alone.
		if !f.options || strings.HasPrefix(f.name, ip.FastPathFilter) {
			continue
		}
		name := rd.filtered[link]
		rd.addDeviceFilter(name, fmt.Sprintf("the tc filter %s at %s", f.kind, at), fmt.Sprintf("tc -s filter show dev %s %s", ip.ShellWord(name), at))
	}
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil // the link is gone, or has no place for filters
	}
	return err
}

// deviceChain is a base chain of nf_tables that packets of some links come through.
type deviceChain struct {
	table, name string
	devices     []string
	drops       bool // by its policy
	rules       uint32
}

func (rd *reading) readDeviceChains(s *socket, family uint8, familyName string) error {
	chains, err := dump(s, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN, []byte{family, unix.NFNETLINK_V0, 0, 0}, parseDeviceChain)
	for _, c := range chains {
		if !c.drops && c.rules == 0 {
			continue
		}
		for _, name := range rd.filtered {
			if slices.ContainsFunc(c.devices, func(device string) bool { return device == name }) {
				rd.addDeviceFilter(name, fmt.Sprintf("the nftables chain %s of table %s %s", ip.ShellWord(c.name), familyName, ip.ShellWord(c.table)),
					fmt.Sprintf("nft list chain %s %s %s", familyName, ip.ShellWord(c.table), ip.ShellWord(c.name)))
			}
		}
	}
	return err
}

func parseDeviceChain(m message) (c deviceChain, ok bool) {
	if len(m.data) < 4 {
		return c, false
	}
	for typ, value := range notify.Attributes(m.data[4:]) {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			c.table = text(value)
		case unix.NFTA_CHAIN_NAME:
			c.name = text(value)
		case unix.NFTA_CHAIN_POLICY:
			c.drops = len(value) == 4 && binary.BigEndian.Uint32(value) == 0
		case unix.NFTA_CHAIN_USE:
			if len(value) == 4 {
				c.rules = binary.BigEndian.Uint32(value)
			}
		case unix.NFTA_CHAIN_HOOK:
			c.devices = parseDevices(value)
		}
	}
	return c, len(c.devices) > 0
}

// hookDevices is NFTA_HOOK_DEVS (linux/netfilter/nf_tables.h).
const hookDevices = 4

// parseDevices finds the links that a hook names: one, or a list.
func parseDevices(hook []byte) []string {
	var names []string
	for typ, value := range notify.Attributes(hook) {
		switch typ {
		case unix.NFTA_HOOK_DEV:
			names = append(names, text(value))
		case hookDevices:
			for _, name := range notify.Attributes(value) {
				names = append(names, text(name))
			}
		}
	}
	return names
}
