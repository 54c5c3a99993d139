package kernel_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tulle/ip"
)

// What was read of nf_tables before a change is not taken for what is there after it, whoever made the change: another kernel, which has read
// nothing before, sees the same.
func TestRulesAreReadAgainAfterChanges(t *testing.T) {
	w := newWorld(t)
	want := ip.State{Guards: guards(), Tables: []ip.Table{{Family: ip.IPv4, Rules: []ip.Rule{{Chain: ip.Forward, In: "cni0", Unrouted: true, Verdict: ip.DropSpoof}}}}}
	scope := podScope
	same := func(what string) ip.Snapshot {
		t.Helper()
		got, fresh := snapshot(t, w.Kernel, scope), snapshot(t, open(t, w.ns), scope)
		if d := cmp.Diff(fresh, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.IgnoreFields(ip.Snapshot{}, "Others")); d != "" {
			t.Errorf("%s: what a fresh kernel reads (-) and this one (+):\n%s", what, d)
		}
		return got
	}
	same("nothing")
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))
	was := same("tables of its own")
	for _, change := range []string{
		"add element ip tulle-peers peers { 192.0.2.77 }",
		"flush set ip tulle-peers peers",
		"add rule ip tulle forward accept",
		"add table ip tulle { flags dormant; }",
		"add table inet fw { chain forward { type filter hook forward priority 0; policy drop; }; }",
		"add rule inet fw forward ip saddr 10.0.0.0/8 accept",
		"flush chain inet fw forward",
		"delete table inet fw",
		"delete table ip tulle-peers",
		"flush ruleset",
	} {
		w.run(t, "", "nft", change)
		now := same(change)
		if cmp.Equal(was, now, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.IgnoreFields(ip.Snapshot{}, "Others")) {
			t.Errorf("%s changes nothing", change)
		}
		same(change + ", read again")
		was = now
	}
	w.run(t, "", "nft", "add table ip flannel-ipv4; add chain ip flannel-ipv4 postrtg; add rule ip flannel-ipv4 postrtg ip saddr 10.77.0.0/16 accept")
	same("another's table")
	scope.Networks = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}
	same("another network")
}
