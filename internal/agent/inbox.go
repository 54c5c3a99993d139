package agent

import (
	"sync"

	"tulle/subnet"
)

// inbox holds the newest view of the store and one wake-up.
type inbox struct {
	wake chan struct{}

	mu   sync.Mutex
	set  subnet.Set
	full bool
}

// poke asks for a pass. A wake-up that is waiting already serves this one too.
func (i *inbox) poke() {
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// put replaces the view.
func (i *inbox) put(set subnet.Set) {
	i.mu.Lock()
	i.set, i.full = set, true
	i.mu.Unlock()
	i.poke()
}

// view returns the newest view; false while the store has not shown one.
func (i *inbox) view() (subnet.Set, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.set, i.full
}
