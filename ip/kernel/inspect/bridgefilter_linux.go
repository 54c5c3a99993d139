package inspect

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// hooks are those of the bridge family, as nft(8) names them.
var hooks = map[nftables.ChainHook]string{
	*nftables.ChainHookPrerouting: "prerouting", *nftables.ChainHookInput: "input", *nftables.ChainHookForward: "forward",
	*nftables.ChainHookOutput: "output", *nftables.ChainHookPostrouting: "postrouting",
}

// BridgeFilters lists the base chains of nftables' family bridge, in the namespace of the calling thread, that drop all frames of a bridge and its ports, or all of
// IPv4, IPv6 or ARP among them. A rule that looks at anything else is left out.
func BridgeFilters(bridge string, ports []string) (filters []BridgeFilter, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nf_tables socket: %w", err)
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyBridge)
	if err != nil {
		return nil, fmt.Errorf("list chains of the family bridge: %w", err)
	}
	for _, c := range chains {
		if c.Hooknum == nil {
			continue
		}
		hook, known := hooks[*c.Hooknum]
		if !known {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return nil, fmt.Errorf("list rules of chain %s: %w", c.Name, err)
		}
		if dropsAll(rules, bridge, ports, c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop) {
			filters = append(filters, BridgeFilter{Bridge: bridge, Table: c.Table.Name, Chain: c.Name, Hook: hook})
		}
	}
	return filters, nil
}

// dropsAll reports whether a chain drops frames whatever else is in them. What is accepted by a rule that looks at more than that is for the chain's owner to know.
func dropsAll(rules []*nftables.Rule, bridge string, ports []string, policy bool) bool {
	for _, r := range rules {
		verdict, all := verdictOf(r, bridge, ports)
		switch {
		case verdict == nil:
		case verdict.Kind == expr.VerdictDrop && all:
			return true
		case verdict.Kind != expr.VerdictDrop: // it may be accepted here, or go elsewhere
			return false
		}
	}
	return policy
}

// verdictOf returns what a rule does, and whether it does so with every frame of the bridge or of one protocol. nil: it does nothing, or not with these.
func verdictOf(r *nftables.Rule, bridge string, ports []string) (verdict *expr.Verdict, all bool) {
	all = true
	loaded := unknown
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Meta:
			loaded = loads(e)
		case *expr.Payload:
			if loaded = unknown; e.Base == expr.PayloadBaseLLHeader && e.Offset == etherType && e.Len == 2 {
				loaded = protocol
			}
		case *expr.Cmp:
			switch compare(loaded, e, bridge, ports) {
			case never:
				return nil, false
			case perhaps:
				all = false
			}
		case *expr.Verdict:
			return e, all
		default:
			all, loaded = false, unknown
		}
	}
	return nil, false
}

// etherType is where a frame says what it carries, in bytes (IEEE 802.3, 3.2.6).
const etherType = 12

// part is of a frame, or of what the kernel knows of it.
type part int

const (
	unknown  part = iota
	ofBridge      // the name of the bridge
	ofPort        // the name of the link
	protocol      // the EtherType
)

func loads(e *expr.Meta) part {
	switch {
	case e.SourceRegister:
		return unknown
	case e.Key == expr.MetaKeyBRIIIFNAME || e.Key == expr.MetaKeyBRIOIFNAME:
		return ofBridge
	case e.Key == expr.MetaKeyIIFNAME || e.Key == expr.MetaKeyOIFNAME:
		return ofPort
	case e.Key == expr.MetaKeyPROTOCOL:
		return protocol
	}
	return unknown
}

// matching is whether a comparison holds for the frames of a bridge.
type matching int

const (
	perhaps matching = iota
	always           // for all, or all of one protocol
	never
)

func compare(of part, c *expr.Cmp, bridge string, ports []string) matching {
	equal := perhaps
	name := string(bytes.TrimRight(c.Data, "\x00"))
	switch {
	case (of == ofBridge || of == ofPort) && !bytes.HasSuffix(c.Data, []byte{0}): // the beginning of names, as in "veth*"
	case of == ofBridge && name == bridge, of == ofPort && (name == bridge || len(ports) == 1 && name == ports[0]):
		equal = always
	case of == ofBridge, of == ofPort && !slices.Contains(ports, name):
		equal = never
	case of == protocol && len(c.Data) == 2:
		equal = never
		if slices.Contains([]uint16{unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP}, binary.BigEndian.Uint16(c.Data)) {
			equal = always
		}
	}
	switch {
	case c.Op == expr.CmpOpEq:
		return equal
	case c.Op == expr.CmpOpNeq && equal == never:
		return always
	case c.Op == expr.CmpOpNeq && equal == always && of != protocol:
		return never
	}
	return perhaps
}
