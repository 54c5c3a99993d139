package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
)

// Of a policy rule (linux/fib_rules.h).
const (
	ruleHeader = 12 // the size of struct fib_rule_hdr, in bytes
	ruleTOS    = 3  // where that is in it

	ruleDst      = 1 // FRA_DST, and so on
	ruleSrc      = 2
	rulePriority = 6
	ruleMark     = 10
	ruleProtocol = 22
	ruleSrcPorts = 23
	ruleDstPorts = 24
	ruleDSCP     = 25
)

// policyRule is what a policy rule asks of packets. One that is inverted asks for the contrary, and what it does to those that it names is asked all
// the same.
type policyRule struct {
	ip.Condition
	priority uint32
	sum      uint64
}

func (rd *reading) parsePolicy(m message) (r policyRule, ok bool) {
	if m.typ != unix.RTM_NEWRULE || len(m.data) < ruleHeader {
		return r, false
	}
	r.sum = maphash.Bytes(rd.seed, m.data)
	r.TOS = m.data[ruleTOS]
	for typ, value := range notify.Attributes(m.data[ruleHeader:]) {
		switch {
		case typ == ruleDst:
			r.Dst = netip.PrefixFrom(toAddr(value), int(m.data[1])).Masked()
		case typ == ruleSrc:
			r.Src = netip.PrefixFrom(toAddr(value), int(m.data[2])).Masked()
		case typ == rulePriority && len(value) == 4:
			r.priority = binary.NativeEndian.Uint32(value)
		case typ == ruleMark && len(value) == 4:
			r.Mark = binary.NativeEndian.Uint32(value)
		case typ == ruleProtocol && len(value) == 1:
			r.Protocol = value[0]
		case typ == ruleSrcPorts && len(value) == 4:
			r.SrcPort = binary.NativeEndian.Uint16(value)
		case typ == ruleDstPorts && len(value) == 4:
			r.DstPort = binary.NativeEndian.Uint16(value)
		case typ == ruleDSCP && len(value) == 1:
			r.TOS = value[0] << 2
		}
	}
	r.Family, ok = familyOf(m.data[0])
	r.What, r.Show = fmt.Sprintf("the policy rule of priority %d", r.priority), fmt.Sprintf("%s rule show priority %d", r.Family.Command(), r.priority)
	if r.priority > 0 {
		before := r.priority - 1
		r.Before = &before
	}
	return r, ok
}

// readPolicy takes note of the policy rules, of both families at once. A kernel without them says so.
func (rd *reading) readPolicy(s *socket) error {
	rules, err := dump(s, unix.RTM_GETRULE, make([]byte, ruleHeader), rd.parsePolicy)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = nil
	}
	for _, r := range rules {
		rd.Others.Sum += r.sum
		if rd.inNetworks(r.Dst) {
			rd.Others.Into = append(rd.Others.Into, r.Dst)
		}
		if r.Selector != (ip.Selector{}) || rd.inNetworks(r.Src) || rd.inNetworks(r.Dst) {
			rd.Others.Conditions = append(rd.Others.Conditions, r.Condition)
		}
	}
	slices.SortFunc(rd.Others.Into, ip.ComparePrefix)
	rd.Others.Into = slices.Compact(rd.Others.Into)
	return err
}
