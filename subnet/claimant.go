package subnet

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// ClaimantTime is for how long a host counts as a claimant after it has asked: one that is refused asks again before that.
const ClaimantTime = 45 * time.Second

// mostClaimants bounds how many are known: whoever may write to the store can ask in any name.
const mostClaimants = 16

// Claimant is another host that claims the node id or a public address of one that holds a lease.
type Claimant struct {
	Node    string
	Address netip.Addr // public; may be invalid
}

// Describe says what the claimant is of the host with the given node id, and what to do about it.
func (c Claimant) Describe(node string) string {
	at := ""
	if c.Address.IsValid() {
		at = fmt.Sprintf(" at %s", c.Address)
	}
	if c.Node == node {
		return fmt.Sprintf("another machine%s claims this host's node id %s, and gets no lease while this host lives: give that machine another id with --node-id", at, node)
	}
	return fmt.Sprintf("node %s%s claims this host's public address, and gets no lease while this host lives: choose that node's own with --public-ip or --iface there", c.Node, at)
}

// Claimants are those of one host, and when they last asked.
type Claimants map[Claimant]time.Time

// Asked takes note of a claimant that asks now.
func (cs Claimants) Asked(c Claimant) {
	cs.forget()
	if _, known := cs[c]; CheckNodeID(c.Node) == nil && (known || len(cs) < mostClaimants) {
		cs[c] = time.Now()
	}
}

// Now lists those that have asked lately, in order.
func (cs Claimants) Now() []Claimant {
	cs.forget()
	return slices.SortedFunc(maps.Keys(cs), func(a, b Claimant) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.Address.Compare(b.Address))
	})
}

func (cs Claimants) forget() {
	maps.DeleteFunc(cs, func(_ Claimant, asked time.Time) bool { return time.Since(asked) >= ClaimantTime })
}
