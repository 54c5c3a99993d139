package sim

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"tulle/internal/hostfiles"
	"tulle/ip"
	"tulle/subnet"
)

func (f *fleet) backup() { f.backups = append(f.backups, f.store.Backup()) }

func (f *fleet) configure() {
	if value, _, _ := f.store.Get("config"); value != f.plan.config {
		f.store.Put("config", f.plan.config, 0)
	}
}

func (f *fleet) reform() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reformed = true
}

func (f *fleet) setDown(down bool) {
	f.down = down
	f.store.SetDown(down)
	for _, h := range f.everyone() {
		f.reachability(h)
	}
}

func (f *fleet) poison(key, value string) {
	f.mu.Lock()
	f.poisoned = append(f.poisoned, key)
	f.mu.Unlock()
	f.store.Put(key, value, 0)
}

// address hands out addresses of the segment.
func (f *fleet) address() int {
	f.nextIP++
	return f.nextIP
}

func (f *fleet) newHost(name, node string) *host {
	h := &host{fleet: f, name: name, node: node, addr: f.address(), dir: filepath.Join(f.dir, name)}
	h.boot()
	h.latency = f.plan.delays(len(f.hosts))
	h.connection.Latency = h.latency
	f.reachability(h)
	f.mu.Lock()
	f.hosts = append(f.hosts, h)
	f.mu.Unlock()
	return h
}

// clone starts a copy of a machine: its disk, and nothing of its memory.
func (f *fleet) clone(h *host) {
	f.mu.Lock()
	f.cloned[h.node] = true
	f.mu.Unlock()
	c := f.newHost(fmt.Sprintf("%s-clone%d", h.name, len(f.hosts)), h.node)
	if err := os.CopyFS(c.path("state"), os.DirFS(h.path("state"))); err != nil && !os.IsNotExist(err) {
		f.t.Error(err)
	}
	c.start()
}

func (h *host) loseState() {
	if h.proc != nil {
		return
	}
	h.forget("state")
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	h.earlier = subnet.Subnets{}
}

// move gives the host another address of the segment.
func (h *host) move() {
	h.addr = h.fleet.address()
	h.kernel.SetInterface(eth0(h.addr))
}

// tampering is what others do to objects of Tulle.
type tampering struct {
	text string
	do   func(h *host, n int)
}

func tamperings() []tampering {
	return []tampering{
		{"a route is deleted", func(h *host, n int) { h.undo(pick(h.owned().Routes, n)...) }},
		{"a neighbour is deleted", func(h *host, n int) { h.undo(pick(h.owned().Neighbors, n)...) }},
		{"a forwarding entry is deleted", func(h *host, n int) { h.undo(pick(h.owned().FDB, n)...) }},
		{"an address is deleted", func(h *host, n int) { h.undo(pick(h.owned().Addrs, n)...) }},
		{"a link is deleted", func(h *host, n int) { h.undo(pick(h.owned().Links, n)...) }},
		{"a table is deleted", func(h *host, n int) { h.undo(pick(h.owned().Tables, n)...) }},
		{"all routes are deleted", func(h *host, _ int) { h.undo(objects(h.owned().Routes)...) }},
		{"all neighbours are deleted", func(h *host, _ int) { h.undo(objects(h.owned().Neighbors)...) }},
		{"a link goes down", func(h *host, n int) {
			h.alter(n, func(l *ip.Link) { l.Up = false })
		}},
		{"a link gets another MAC and MTU", func(h *host, n int) {
			h.alter(n, func(l *ip.Link) { l.MAC[5]++; l.MTU -= 100 })
		}},
		{"a forwarding entry leads elsewhere", func(h *host, n int) {
			for _, o := range pick(h.owned().FDB, n) {
				fdb := o.(ip.FDB)
				fdb.Dst = fdb.Dst.Next()
				_ = h.kernel.External(ip.Plan{{Verb: ip.Replace, New: fdb, Old: o}})
			}
		}},
		{"a neighbour gets another MAC", func(h *host, n int) {
			for _, o := range pick(h.owned().Neighbors, n) {
				neighbor := o.(ip.Neighbor)
				neighbor.MAC[5]++
				_ = h.kernel.External(ip.Plan{{Verb: ip.Replace, New: neighbor, Old: o}})
			}
		}},
		{"a forwarding entry is deleted and nobody is told", func(h *host, n int) {
			h.kernel.Unseen(deletions(pick(h.owned().FDB, n)))
		}},
		{"forwarding is switched off", func(h *host, _ int) {
			_ = h.kernel.External(ip.Plan{{Verb: ip.Replace, New: ip.Sysctl{Key: "net/ipv4/ip_forward", Value: "0"}}})
		}},
		{"the uplink flaps", func(h *host, _ int) {
			down := eth0(h.addr)
			down.Up = false
			h.kernel.SetInterface(down)
			h.kernel.SetInterface(eth0(h.addr))
			h.defaults()
		}},
	}
}

// pick returns the n-th of all, counted round and round; none of none.
func pick[T ip.Object](all []T, n int) []ip.Object {
	if len(all) == 0 {
		return nil
	}
	return []ip.Object{all[n%len(all)]}
}

func objects[T ip.Object](all []T) []ip.Object {
	var out []ip.Object
	for _, o := range all {
		out = append(out, o)
	}
	return out
}

func (h *host) undo(all ...ip.Object) { _ = h.kernel.External(deletions(all)) }

func deletions(all []ip.Object) ip.Plan {
	var plan ip.Plan
	for _, o := range all {
		plan = append(plan, ip.Op{Verb: ip.Delete, Old: o})
	}
	return plan
}

func (h *host) alter(n int, change func(*ip.Link)) {
	for _, o := range pick(h.owned().Links, n) {
		l := o.(ip.Link)
		change(&l)
		_ = h.kernel.External(ip.Plan{{Verb: ip.Replace, New: l, Old: o}})
	}
}

// owned is what Tulle has made on the host, as far as its record tells.
func (h *host) owned() ip.State {
	rec, err := hostfiles.ReadRecord(h.path("state"))
	if err != nil {
		return ip.State{}
	}
	scope := rec.Scope()
	snap, err := h.kernel.Snapshot(context.Background(), scope)
	if err != nil {
		h.fleet.t.Error(err)
	}
	snap.Owned.Sort() // so that the n-th is the same in every run
	return snap.Owned
}

// defaults are the routes that the host's own configuration makes.
func (h *host) defaults() {
	_ = h.kernel.External(ip.Plan{
		{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.30.0.254"), Link: "eth0"}},
		{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd30::fe"), Link: "eth0"}},
	})
}
