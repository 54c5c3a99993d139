package agent

import (
	"context"
	"sync"
	"time"

	"tulle/ip"
)

// inbox holds one wake-up, and what is known of it.
type inbox struct {
	wake chan struct{}

	mu  sync.Mutex
	now bool     // the pass that is asked for should not wait
	all bool     // more than leases has changed since the last full pass began, or may have
	by  []string // processes that have changed the kernel since the last pass began
}

// Wake asks for a full pass.
func (i *inbox) Wake() {
	i.mu.Lock()
	i.all = true
	i.mu.Unlock()
	i.LeasesChanged()
}

// Hurry asks for a full pass without delay.
func (i *inbox) Hurry() {
	i.mu.Lock()
	i.now = true
	i.mu.Unlock()
	i.Wake()
}

// LeasesChanged asks for a pass. A wake-up that is waiting already serves this one too.
func (i *inbox) LeasesChanged() {
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
	i.Wake()
}

// known returns the processes that have changed the kernel since the last call of actors.
func (i *inbox) known() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.by
}

// actorWait is for how long notifications may be on their way: they are left to come together.
const actorWait = 50 * time.Millisecond

// knownSoon is known once what has happened until now has been told. What changed the kernel first may be told without its name, and what else it changed with it
// shortly after, when all has been made right already.
func (i *inbox) knownSoon(ctx context.Context) []string {
	select {
	case <-ctx.Done():
	case <-time.After(actorWait):
	}
	return i.known()
}

// actors returns the processes that have changed the kernel since it was last called.
func (i *inbox) actors() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	by := i.by
	i.by = nil
	return by
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
