package subnet

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// RivalTime is for how long a host counts as a rival after it has asked: one that is refused asks again before that.
const RivalTime = 45 * time.Second

// mostRivals bounds how many are known: whoever may write to the store can ask in any name.
const mostRivals = 16

// Rival is another host that claims the node id or a public address of one that holds a lease.
type Rival struct {
	Node    string
	Address netip.Addr // public; may be invalid
}

// Describe says what the rival is of the host with the given node id, and what to do about it.
func (r Rival) Describe(node string) string {
	at := ""
	if r.Address.IsValid() {
		at = fmt.Sprintf(" at %s", r.Address)
	}
	if r.Node == node {
		return fmt.Sprintf("another machine%s claims this host's node id %s, and gets no lease while this host lives: give that machine another id with --node-id", at, node)
	}
	return fmt.Sprintf("node %s%s claims this host's public address, and gets no lease while this host lives: choose that node's own with --public-ip or --iface there", r.Node, at)
}

// Rivals are those of one host, and when they last asked.
type Rivals map[Rival]time.Time

// Asked takes note of a rival that asks now.
func (rs Rivals) Asked(r Rival) {
	rs.forget()
	if _, known := rs[r]; CheckNodeID(r.Node) == nil && (known || len(rs) < mostRivals) {
		rs[r] = time.Now()
	}
}

// Now lists those that have asked lately, in order.
func (rs Rivals) Now() []Rival {
	rs.forget()
	return slices.SortedFunc(maps.Keys(rs), func(a, b Rival) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.Address.Compare(b.Address))
	})
}

func (rs Rivals) forget() {
	maps.DeleteFunc(rs, func(_ Rival, asked time.Time) bool { return time.Since(asked) >= RivalTime })
}
