package sim

import (
	"fmt"
	"net/netip"
	"time"

	"tulle/internal/invariant"
	"tulle/ip"
	"tulle/subnet/subnettest"
)

func (d dice) compacted(at time.Duration, _ int) {
	d.add(at, "the history of the store is compacted", (*fleet).compact)
}

// compactedUnseen compacts what a host has not heard of: once it hears again, it must read everything anew.
func (d dice) compactedUnseen(at time.Duration, h int) {
	spell := d.spell()
	faults := []struct {
		text   string
		change func(w *subnettest.Connection, bad bool)
	}{
		{"cut off from the store", func(w *subnettest.Connection, bad bool) { w.Cut = bad }},
		{"without news from the store", func(w *subnettest.Connection, bad bool) { w.NoEvents = bad }},
		{"seeing the store late", func(w *subnettest.Connection, bad bool) {
			if w.Lag = 0; bad {
				w.Lag = spell / 2
			}
		}},
	}
	fault := faults[d.IntN(len(faults))]
	set := func(bad bool) func(*host) {
		return func(h *host) { h.setConnection(func(w *subnettest.Connection) { fault.change(w, bad) }) }
	}
	d.on(at, h, fmt.Sprintf("%s for %v", fault.text, spell), set(true))
	if d.IntN(2) == 0 {
		d.on(at+spell/4, (h+1)%d.hosts, "gets another address", (*host).move)
	}
	d.compacted(at+spell/2, h)
	d.on(at+spell, h, "no longer "+fault.text, set(false))
}

// compact is preceded by a change, so that there is something to have missed.
func (f *fleet) compact() {
	f.store.Put("elsewhere", f.now().String(), 0)
	f.store.Compact()
}

// sleep suspends a machine. It is back at once and its network a little later.
func (d dice) sleep(at time.Duration, h int) {
	asleep := d.spell()
	d.on(at, h, fmt.Sprintf("the machine is suspended for %v, and wakes up without the store", asleep), func(h *host) {
		h.setConnection(func(w *subnettest.Connection) { w.Cut = true })
		h.sleep(asleep)
	})
	d.on(at+time.Duration(d.IntN(8000))*time.Millisecond, h, "no longer without the store", func(h *host) {
		h.setConnection(func(w *subnettest.Connection) { w.Cut = false })
	})
}

// sleep must end what the host believes, before any of its timers has run.
func (h *host) sleep(d time.Duration) {
	if h.proc == nil {
		return
	}
	h.proc.store.Sleep(d)
	if st, ok := h.status(); ok && d >= h.fleet.plan.ttl && st.Of("").Lease != nil && st.Of("").Lease.Held {
		h.fleet.fail("%s: %s says after a sleep of %v that it holds its lease, whose time was %v", invariant.OneOwner, h.name, d, h.fleet.plan.ttl)
	}
}

// tamperFilter is what others do to the filter.
func (d dice) tamperFilter(at time.Duration, h int) {
	kinds := []struct {
		text string
		do   func(h *host, g ip.Guard, n int)
	}{
		{"the peer filter is deleted", func(h *host, g ip.Guard, _ int) { h.undo(g) }},
		{"a peer is shut out", func(h *host, g ip.Guard, n int) { h.undo(pick(g.Members(), n)...) }},
		{"a stranger is let in", func(h *host, g ip.Guard, _ int) {
			stranger := netip.MustParseAddr("172.30.0.252")
			if g.Family == ip.IPv6 {
				stranger = netip.MustParseAddr("fd30::fc")
			}
			_ = h.kernel.External(ip.Plan{{Verb: ip.Add, New: ip.Member{Peer: ip.Peer{Addr: stranger}}}})
		}},
		{"the peer filter guards another port", func(h *host, g ip.Guard, _ int) {
			other := g
			other.Port++
			_ = h.kernel.External(ip.Plan{{Verb: ip.Replace, New: other, Old: g}})
		}},
	}
	kind, n := kinds[d.IntN(len(kinds))], d.Int()
	d.on(at, h, kind.text, func(h *host) {
		for _, o := range pick(h.owned().Guards, n) {
			kind.do(h, o.(ip.Guard), n)
		}
	})
}
