//go:build linux

package lab_test

import (
	"bytes"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"tulle/ip"
)

// addIPTables makes the chains of flanneld's iptables mode, beside a policy to drop, which they make up for.
func (f *flanneld) addIPTables(t *testing.T) { f.addIPTablesTo(t, "-nft") }

// addLegacy does the same where flanneld finds iptables-legacy.
func (f *flanneld) addLegacy(t *testing.T) { f.addIPTablesTo(t, "-legacy") }

func (f *flanneld) addIPTablesTo(t *testing.T, engine string) {
	for _, family := range f.lab.Config.Families {
		network, pod := f.lab.Config.Network.Of(family).String(), f.subnet.Of(family).String()
		multicast := family.Multicast().String()
		for _, line := range []string{
			"-t nat -N FLANNEL-POSTRTG",
			"-t nat -A POSTROUTING -m comment --comment flanneld_masq -j FLANNEL-POSTRTG",
			"-t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN",
			"-t nat -A FLANNEL-POSTRTG -s " + pod + " -d " + network + " -j RETURN",
			"-t nat -A FLANNEL-POSTRTG -s " + network + " -d " + pod + " -j RETURN",
			"-t nat -A FLANNEL-POSTRTG ! -s " + network + " -d " + pod + " -j RETURN",
			"-t nat -A FLANNEL-POSTRTG -s " + network + " ! -d " + multicast + " -j MASQUERADE --random-fully",
			"-t nat -A FLANNEL-POSTRTG ! -s " + network + " -d " + network + " -j MASQUERADE --random-fully",
			"-N FLANNEL-FWD",
			"-A FORWARD -m comment --comment flanneld_forward -j FLANNEL-FWD",
			"-A FLANNEL-FWD -s " + network + " -j ACCEPT",
			"-A FLANNEL-FWD -d " + network + " -j ACCEPT",
			"-P FORWARD DROP",
		} {
			f.run(t, family, engine, append([]string{"-w", "5"}, ruleArgs(line)...)...)
		}
	}
}

// ruleArgs splits a rule into arguments. An underscore stands for a blank.
func ruleArgs(rule string) []string {
	args := strings.Fields(rule)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "_", " ")
	}
	return args
}

// run runs iptables, ip6tables, or what their names begin with, in the host.
func (f *flanneld) run(t *testing.T, family ip.Family, suffix string, args ...string) string {
	t.Helper()
	program := "iptables" + suffix
	if family == ip.IPv6 {
		program = "ip6tables" + suffix
	}
	var output, errors bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdout, cmd.Stderr = &output, &errors
	if err := f.host.Do(cmd.Start); err != nil {
		t.Fatalf("%v (Debian has it in the package iptables)", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, &errors)
	}
	return output.String()
}

// addNFTables makes the tables of flanneld's nftables mode, with the rules that
// name a network, in the form that nft(8) gives them.
func (f *flanneld) addNFTables(t *testing.T) {
	conn, err := nftables.New(nftables.WithNetNSFd(f.host.Namespace().FD()))
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range f.lab.Config.Families {
		f.addNFTable(conn, family)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func (f *flanneld) addNFTable(conn *nftables.Conn, family ip.Family) {
	network, pod := f.lab.Config.Network.Of(family), f.subnet.Of(family)
	table := &nftables.Table{Name: "flannel-" + family.String(), Family: nftables.TableFamilyIPv4}
	if family == ip.IPv6 {
		table.Family = nftables.TableFamilyIPv6
	}
	conn.AddTable(table)
	accept := nftables.ChainPolicyAccept
	postrouting := conn.AddChain(&nftables.Chain{
		Name: "postrtg", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	forward := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Policy: &accept,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	from := func(prefix netip.Prefix, op expr.CmpOp) []expr.Any { return compareAddress(family, 0, prefix, op) }
	to := func(prefix netip.Prefix, op expr.CmpOp) []expr.Any { return compareAddress(family, 1, prefix, op) }
	verdict := func(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
	masquerade := []expr.Any{&expr.Masq{FullyRandom: true}}
	is, isNot := expr.CmpOpEq, expr.CmpOpNeq
	add := func(chain *nftables.Chain, parts ...[]expr.Any) {
		rule := &nftables.Rule{Table: table, Chain: chain}
		for _, part := range parts {
			rule.Exprs = append(rule.Exprs, part...)
		}
		conn.AddRule(rule)
	}
	add(postrouting, from(pod, is), to(network, is), verdict(expr.VerdictReturn))
	add(postrouting, from(network, is), to(pod, is), verdict(expr.VerdictReturn))
	add(postrouting, from(pod, isNot), to(network, is), verdict(expr.VerdictReturn))
	add(postrouting, from(network, is), to(family.Multicast(), isNot), masquerade)
	add(postrouting, from(network, isNot), to(network, is), masquerade)
	add(forward, from(network, is), verdict(expr.VerdictAccept))
	add(forward, to(network, is), verdict(expr.VerdictAccept))
}

// compareAddress compares the source (which = 0) or destination (1) address.
// As nft does, it loads only the bytes that a prefix of whole bytes covers.
func compareAddress(family ip.Family, which uint32, prefix netip.Prefix, op expr.CmpOp) []expr.Any {
	size := uint32(family.Bits() / 8)
	offset := uint32(12) // RFC 791
	if family == ip.IPv6 {
		offset = 8 // RFC 8200
	}
	load := &expr.Payload{
		DestRegister: 1, Base: expr.PayloadBaseNetworkHeader,
		Offset: offset + which*size, Len: uint32(prefix.Bits() / 8),
	}
	compare := &expr.Cmp{Op: op, Register: 1, Data: prefix.Addr().AsSlice()[:prefix.Bits()/8]}
	if prefix.Bits()%8 == 0 {
		return []expr.Any{load, compare}
	}
	load.Len, compare.Data = size, prefix.Addr().AsSlice()
	mask := ipNet(prefix).Mask
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: mask, Xor: make([]byte, size)},
		compare,
	}
}
