package agent

import (
	"sync"

	"tulle/ip"
	"tulle/subnet"
)

// inbox holds the newest view of the store and one wake-up.
type inbox struct {
	wake chan struct{}

	mu   sync.Mutex
	set  subnet.Set
	full bool
	by   []string // who has changed the kernel since the last pass began
}

// poke asks for a pass. A wake-up that is waiting already serves this one too.
func (i *inbox) poke() {
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// kernelChanged asks for a pass, and remembers who is to blame.
func (i *inbox) kernelChanged(by ip.Actor) {
	if by != (ip.Actor{}) {
		i.mu.Lock()
		i.by = mergeActors(i.by, []string{by.String()})
		i.mu.Unlock()
	}
	i.poke()
}

// actors returns who has changed the kernel since it was last called.
func (i *inbox) actors() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	by := i.by
	i.by = nil
	return by
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
