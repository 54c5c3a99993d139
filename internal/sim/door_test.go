package sim

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"tulle/internal/invariant"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/subnettest"
)

// process is one run of an agent on a host.
type process struct {
	*door
	run    running
	cancel context.CancelFunc
	done   chan error
}

// door is a process's way to the kernel of its host. It sees every plan, and is where the process dies or stands still.
type door struct {
	ip.Kernel
	host  *host
	store *subnettest.Store

	mu     sync.Mutex
	scope  ip.Scope
	fuse   int // operations until the process dies; negative: it does not
	dead   bool
	halted chan struct{} // closed when the process goes on; nil while it runs

	seen atomic.Bool // the store has shown a complete view
}

// watched takes note of the first view.
type watched struct {
	*subnettest.Store
	door *door
}

func (w watched) Watch(ctx context.Context, deliver func(subnet.Set)) error {
	return w.Store.Watch(ctx, func(set subnet.Set) {
		w.door.seen.Store(true)
		deliver(set)
	})
}

// pass waits while the process is stopped. It does not return to one that is dead.
func (d *door) pass(ctx context.Context) {
	for {
		d.mu.Lock()
		dead, halted := d.dead, d.halted
		d.mu.Unlock()
		switch {
		case dead:
			runtime.Goexit()
		case halted == nil:
			return
		}
		select {
		case <-halted:
		case <-ctx.Done():
			runtime.Goexit() // killed while it was stopped
		}
	}
}

// Snapshot implements ip.Kernel.
func (d *door) Snapshot(ctx context.Context, scope ip.Scope) (ip.Snapshot, error) {
	d.pass(ctx)
	d.mu.Lock()
	d.scope = scope
	d.mu.Unlock()
	return d.Kernel.Snapshot(ctx, scope)
}

// Apply implements ip.Kernel.
func (d *door) Apply(ctx context.Context, plan ip.Plan) error {
	d.pass(ctx)
	d.mu.Lock()
	scope, fuse := d.scope, d.fuse
	d.mu.Unlock()
	f := d.host.fleet
	f.note("%s: applies %d operations, the first: %s", d.host.name, len(plan), plan[0])
	f.report(invariant.Owned(plan, scope)...)
	if !d.seen.Load() {
		f.report(invariant.Seen(plan, []ip.Part{{Scope: scope}})...)
	}
	f.report(f.kept(d.host, plan)...)
	d.host.applied.Add(1)
	if fuse >= 0 && fuse < len(plan) {
		_ = d.Kernel.Apply(ctx, plan[:fuse])
		f.note("%s: dies after %d of %d operations", d.host.name, fuse, len(plan))
		d.kill()
		d.store.SetConnection(subnettest.Connection{Stopped: true})
		d.host.died.Store(true)
		runtime.Goexit()
	}
	return d.Kernel.Apply(ctx, plan)
}

// kill ends the process without another step.
func (d *door) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	if d.halted != nil {
		close(d.halted)
		d.halted = nil
	}
}

// halt stops the process or lets it go on.
func (d *door) halt(stopped bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case stopped && d.halted == nil:
		d.halted = make(chan struct{})
	case !stopped && d.halted != nil:
		close(d.halted)
		d.halted = nil
	}
}

func (d *door) setFuse(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fuse = n
}
