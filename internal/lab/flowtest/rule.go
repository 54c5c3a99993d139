//go:build linux

package flowtest

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"tulle/internal/lab"
	"tulle/ip"
)

// rule is of a packet filter or of what translates addresses, for the packets from one address to another. No address is any.
type rule struct {
	table, chain string // of iptables
	from, to     netip.Addr
	invalid      bool   // for what connection tracking does not understand
	then         string // drop, dnat or snat
	as           netip.Addr
}

// putRule puts it in front of those that are there; undo takes it away before the test does.
func putRule(t testing.TB, host *lab.Host, tool string, f ip.Family, r rule) (undo func()) {
	t.Helper()
	var put, take []string
	if tool == "nft" {
		family := ip.Dual[string]{V4: "ip", V6: "ip6"}.Of(f)
		put, take = []string{"nft", r.nft(family)}, []string{"nft", "delete", "table", family, "row"}
	} else {
		line := []string{ip.Dual[string]{V4: tool, V6: "ip6" + tool[len("ip"):]}.Of(f), "-w", "5", "-t", r.table}
		put = append(append(line[:5:5], "-I", r.chain), r.iptables()...)
		take = append(append(line[:5:5], "-D", r.chain), r.iptables()...)
	}
	onHost(t, host, put...)
	undo = sync.OnceFunc(func() { onHost(t, host, take...) })
	t.Cleanup(undo)
	return undo
}

// onHost runs a command where tulled runs, with the lock of iptables-legacy that it watches: Docker's machine has files of its own.
func onHost(t testing.TB, host *lab.Host, line ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), line[0], line[1:]...) // also to clean up, when the test's context is over
	var output, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &complaint
	err := host.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Errorf("on %s %q: %v: %s", host, line, err, &complaint)
	}
	return output.String()
}

func (r rule) iptables() (args []string) {
	if r.from.IsValid() {
		args = append(args, "-s", r.from.String())
	}
	if r.to.IsValid() {
		args = append(args, "-d", r.to.String())
	}
	if r.invalid {
		args = append(args, "-m", "conntrack", "--ctstate", "INVALID")
	}
	return append(args, map[string][]string{
		"drop": {"-j", "DROP"}, "dnat": {"-j", "DNAT", "--to-destination", r.as.String()}, "snat": {"-j", "SNAT", "--to-source", r.as.String()},
	}[r.then]...)
}

// nft is a table with that rule.
func (r rule) nft(family string) string {
	hook := map[string]string{
		"nat PREROUTING": "type nat hook prerouting priority dstnat - 5", "nat POSTROUTING": "type nat hook postrouting priority srcnat - 5",
		"raw PREROUTING": "type filter hook prerouting priority raw - 5", "filter FORWARD": "type filter hook forward priority filter - 5",
	}[r.table+" "+r.chain]
	var match string
	if r.from.IsValid() {
		match += family + " saddr " + r.from.String() + " "
	}
	if r.to.IsValid() {
		match += family + " daddr " + r.to.String() + " "
	}
	if r.invalid {
		match += "ct state invalid "
	}
	then := map[string]string{"drop": "drop", "dnat": "dnat to " + r.as.String(), "snat": "snat to " + r.as.String()}[r.then]
	return fmt.Sprintf("table %s row { chain c { %s; %s%s; }; }", family, hook, match, then)
}
