//go:build linux && flanneld

package lab_test

import (
	"fmt"
	"testing"

	"tulle/ip"
)

// Whatever drops what is forwarded, nothing passes beside a real flanneld that does not pass beside tulled, except for the rows of docs/flows.md
// that are the operator's.
func TestFlowsBesideFlanneld(t *testing.T) {
	requireFlanneld(t)
	both := ip.Families()
	network := flannelNetwork{"vxlan dual iptables", both[:], map[string]any{"Type": "vxlan"}, false}
	theirs, ours := network.newLab(t, 2), network.newLab(t, 2)
	for i, host := range theirs.Hosts {
		f := prepareFlanneld(t, theirs, host)
		f.start(t, theirs.Hosts[:i])
		f.lowerMTU(t)
		startTulled(t, ours.Hosts[i])
	}
	theirs.Config.Containers, ours.Config.Containers = 2, 2
	if err := theirs.StartContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ours.StartContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	there, here := newFlowWorld(t, theirs), newFlowWorld(t, ours)
	compare := func(t *testing.T, opened func(flowRow) bool) {
		t.Helper()
		mine, _ := here.tried(opened)
		others, _ := there.tried(func(flowRow) bool { return false })
		for _, f := range both {
			for _, r := range flowTable() {
				name := fmt.Sprintf("%s: %s to %s", f, r.from, r.to)
				t.Logf("%s: flanneld: %v, tulled: %v", name, others[name], mine[name])
				if r.opened != byOperator && others[name] == nil && mine[name] != nil {
					t.Errorf("%s passes beside flanneld, and not beside tulled: %v", name, mine[name])
				}
			}
		}
	}
	t.Run("no filter", func(t *testing.T) {
		for _, f := range both {
			for _, r := range flowTable() {
				eventually(flanneldTimeout, func() bool { return r.try(there, f) == nil })
			}
		}
		compare(t, func(flowRow) bool { return true })
	})
	for engine, name := range engines() {
		t.Run("policy of iptables"+name, func(t *testing.T) {
			for _, w := range []*flowWorld{there, here} {
				iptables(t, w.host, engine, "-P", "FORWARD", "DROP")
			}
			compare(t, func(r flowRow) bool { return r.opened != byOperator })
			for _, w := range []*flowWorld{there, here} {
				iptables(t, w.host, engine, "-P", "FORWARD", "ACCEPT")
			}
		})
	}
	t.Run("table of nft", func(t *testing.T) {
		for _, w := range []*flowWorld{there, here} {
			run(t, w.host, "table inet fw {\nchain forward {\ntype filter hook forward priority 10; policy drop;\nct state established,related accept\n}\n}\n", "nft", "-f", "-")
		}
		compare(t, func(r flowRow) bool { return r.opened == byNobody })
	})
}
