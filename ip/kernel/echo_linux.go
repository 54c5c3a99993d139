package kernel

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// echoLife is how long a notification of what we did ourselves may take, at least.
const echoLife = 2 * time.Second

// echo is a notification that names nobody, as those of forwarding entries and of deleted neighbours do. By what it says we
// know that it is of our own doing.
type echo struct {
	family uint8
	link   uint32
	dst    netip.Addr
	mac    ip.MAC // of a forwarding entry
}

// echoes are those to be expected. Each lives for one generation at least and two at most.
type echoes struct {
	mu         sync.Mutex
	made, gone map[echo]bool
	older      [2]map[echo]bool // the same, of the generation before
	generation time.Time
}

// expect takes note of what is about to be done. What was done before to the same object is expected no more: from now on somebody
// else may do it.
func (e *echoes) expect(verb ip.Verb, x echo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := time.Now(); e.made == nil || now.Sub(e.generation) > echoLife {
		e.older = [2]map[echo]bool{e.made, e.gone}
		e.made, e.gone, e.generation = map[echo]bool{}, map[echo]bool{}, now
	}
	now, before, old := e.made, e.gone, e.older[1]
	if verb == ip.Delete {
		now, before, old = e.gone, e.made, e.older[0]
	}
	now[x] = true
	delete(before, x)
	delete(old, x)
}

// expectFDB is expect for a forwarding entry. One that is replaced is expected no more either.
func (e *echoes) expectFDB(op ip.Op, link uint32) {
	x := func(f ip.FDB) echo { return echo{family: unix.AF_BRIDGE, link: link, dst: f.Dst, mac: f.MAC} }
	if old, ok := op.Old.(ip.FDB); ok {
		e.expect(ip.Delete, x(old))
	}
	if now, ok := op.New.(ip.FDB); ok {
		e.expect(op.Verb, x(now))
	}
}

// expected reports whether a notification is one of these.
func (e *echoes) expected(typ uint16, n neighborMessage) bool {
	if n.odd {
		return false // we make none
	}
	x := echo{family: n.family, link: n.link, dst: n.dst}
	if n.family == unix.AF_BRIDGE {
		x.mac = n.mac
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.generation) > 2*echoLife {
		return false // nothing has been done for long
	}
	if typ == unix.RTM_DELNEIGH {
		return e.gone[x] || e.older[1][x]
	}
	return e.made[x] || e.older[0][x]
}
