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

// echoes are those to be expected. Each lives as long as two generations at most.
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

// expected reports whether a notification is one of these.
func (e *echoes) expected(typ uint16, n neighborMessage) bool {
	x := echo{family: n.family, link: n.link, dst: n.dst}
	if n.family == unix.AF_BRIDGE {
		x.mac = n.mac
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if typ == unix.RTM_DELNEIGH {
		return e.gone[x] || e.older[1][x]
	}
	return e.made[x] || e.older[0][x]
}
