package fabric

import (
	"sync"
	"time"

	"tulle/subnet"
)

// LeaseGrace is how long a lease that is gone from the store is waited for: its host makes it anew as soon as it hears of that, and what leads
// to the host does no harm meanwhile.
const LeaseGrace = 250 * time.Millisecond

// grace hands on the views of a store. One that lacks leases of the last is handed on after LeaseGrace, or its successor is.
type grace struct {
	handOn func(subnet.Set)

	mu    sync.Mutex
	last  []*subnet.Lease // of the view that was handed on last
	next  *subnet.Set     // waits; nil if none does
	timer *time.Timer     // runs while one waits
}

// put takes the newest view.
func (g *grace) put(set subnet.Set) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next = &set
	if !lacks(set.Leases, g.last) {
		g.release()
	} else if g.timer == nil {
		g.timer = time.AfterFunc(LeaseGrace, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.release()
		})
	}
}

// release hands on the view that waits.
func (g *grace) release() {
	if g.next != nil {
		g.handOn(*g.next)
		g.last = g.next.Leases
	}
	g.stopLocked()
}

// stop forgets the view that waits.
func (g *grace) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopLocked()
}

func (g *grace) stopLocked() {
	g.next = nil
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
}

// lacks reports whether the subnet of an earlier lease has no lease any more.
func lacks(now, earlier []*subnet.Lease) bool {
	for _, j := range subnet.Changes(earlier, now) {
		if j < 0 {
			return true
		}
	}
	return false
}
