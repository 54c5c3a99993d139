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
	now  bool     // the pass that is asked for should not wait
	all  bool     // more than leases has changed since the last full pass began, or may have
	by   []string // processes that have changed the kernel since the last pass began
}

// poke asks for a full pass.
func (i *inbox) poke() {
	i.mu.Lock()
	i.all = true
	i.mu.Unlock()
	i.signal()
}

// hurry asks for a full pass without delay.
func (i *inbox) hurry() {
	i.mu.Lock()
	i.now = true
	i.mu.Unlock()
	i.poke()
}

// signal asks for a pass. A wake-up that is waiting already serves this one too.
func (i *inbox) signal() {
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// kernelChanged asks for a pass, and remembers the process that changed the kernel.
func (i *inbox) kernelChanged(by ip.Actor) {
	if by != (ip.Actor{}) {
		i.mu.Lock()
		i.by = mergeActors(i.by, []string{by.String()})
		i.mu.Unlock()
	}
	i.poke()
}

// known returns the processes that have changed the kernel since the last call of actors.
func (i *inbox) known() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.by
}

// actors returns the processes that have changed the kernel since it was last called.
func (i *inbox) actors() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	by := i.by
	i.by = nil
	return by
}

// put replaces the view. The first is waited for.
func (i *inbox) put(set subnet.Set) {
	i.mu.Lock()
	i.now = i.now || !i.full
	i.set, i.full = set, true
	i.mu.Unlock()
	i.signal()
}

// onlyLeases reports whether nothing but leases has changed.
func (i *inbox) onlyLeases() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.all
}

// urgent reports whether the pass that is asked for should not wait.
func (i *inbox) urgent() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.now
}

// begin takes note that a full pass begins.
func (i *inbox) begin() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all, i.now = false, false
}

// view returns the newest view; false while the store has not shown one.
func (i *inbox) view() (subnet.Set, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.set, i.full
}
