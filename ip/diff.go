package ip

import (
	"net/netip"
	"slices"
)

// Verb is what an Op does.
type Verb uint8

// The verbs.
const (
	Add Verb = iota + 1
	Replace
	Delete
)

// Object is a part of State: a Guard, Member, Link, Sysctl, Addr, FDB, Neighbor, Route, UnreachableRoute, Table, Opening or Leftover.
type Object interface {
	command(verb Verb, old Object) string
}

// Op is one change. Add has New, Delete has Old, Replace has both.
type Op struct {
	Verb Verb
	New  Object
	Old  Object
}

// String prints the op as a command.
func (op Op) String() string {
	if op.Verb == Delete {
		return op.Old.command(op.Verb, nil)
	}
	return op.New.command(op.Verb, op.Old)
}

// Brief is String for logs and messages, cut off where it gets long: a guard may have ten thousand peers.
func (op Op) Brief() string {
	const most = 400 // bytes
	text := op.String()
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}

// Plan is a sequence of changes, to be made in order.
type Plan []Op

// Diff returns the plan that turns have into want.
//
// It makes before it breaks: everything wanted is put in place from the bottom up (guard, link, address, forwarding entry,
// neighbour, route, rules) before anything is taken away from the top down. After no prefix of the plan does a route
// lack the neighbour that it had or needs, and an object that is the same in both is not touched.
func Diff(have, want State) Plan {
	p := plan{links: diffLinks(have.Links, want.Links)}
	all := layers()
	for _, l := range all {
		l.keepSurvivors(&have, p.links)
	}
	for _, l := range all {
		l.diff(&p, &have, &want)
	}
	out := p.set
	for i := len(p.del) - 1; i >= 0; i-- {
		out = append(out, p.del[i]...)
	}
	return out
}

// plan collects what Diff finds: what to put in place in order, and what to take away by layer, lowest first.
type plan struct {
	links linkChanges
	set   Plan
	del   [][]Op
}

// What becomes of an object that is there and not wanted.
const (
	keep = false
	drop = true
)

// The identities by which the kernel tells objects of one kind apart.
type (
	fdbID struct {
		link string
		mac  MAC
	}
	neighborID struct {
		link string
		ip   netip.Addr
	}
	routeID struct {
		dst    netip.Prefix
		metric uint32
	}
)

func sysctlKey(s Sysctl) string         { return s.Key }
func addrKey(a Addr) Addr               { return a }
func openingKey(o Opening) Opening      { return o }
func fdbKey(f FDB) fdbID                { return fdbID{f.Link, f.MAC} }
func neighborKey(n Neighbor) neighborID { return neighborID{n.Link, n.IP} }
func routeKey(r Route) routeID          { return routeID{r.Dst, r.Metric} }

// diff compares objects of one kind by their identity and adds the changes to p.
func diff[T interface {
	comparable
	Object
}, K comparable](p *plan, have, want []T, id func(T) K, dropUnwanted bool) {
	have, want = trim(have, want)
	wanted := make(map[K]T, len(want))
	for _, w := range want {
		wanted[id(w)] = w
	}
	current := make(map[K]T, len(have))
	var del []Op
	for _, h := range have {
		k := id(h)
		w, ok := wanted[k]
		old, seen := current[k]
		switch {
		case !ok:
			del = append(del, Op{Verb: Delete, Old: h})
		case !seen:
			current[k] = h
		case h == w && old != w:
			// Two objects share an identity, as IPv6 nexthops do: keep the right one.
			current[k] = h
			del = append(del, Op{Verb: Delete, Old: old})
		case h != old:
			del = append(del, Op{Verb: Delete, Old: h})
		}
	}
	for _, w := range want {
		switch h, ok := current[id(w)]; {
		case !ok:
			p.set = append(p.set, Op{Verb: Add, New: w})
		case h != w:
			p.set = append(p.set, Op{Verb: Replace, New: w, Old: h})
		}
	}
	if dropUnwanted {
		p.del = append(p.del, del)
	}
}

// trim cuts off what have and want begin and end with alike. Between two sorted states little remains.
func trim[T comparable](have, want []T) (restHave, restWant []T) {
	n := 0
	for n < len(have) && n < len(want) && have[n] == want[n] {
		n++
	}
	have, want = have[n:], want[n:]
	for len(have) > 0 && len(want) > 0 && have[len(have)-1] == want[len(want)-1] {
		have, want = have[:len(have)-1], want[:len(want)-1]
	}
	return have, want
}

// Where settings are put in place.
const (
	onOthers = iota
	onHost
	onOwn
)

// atHeight returns the wanted settings that belong there.
func atHeight(want *State, height int) []Sysctl {
	return without(want.Sysctls, func(s Sysctl) bool {
		switch {
		case s.Link == "":
			return height != onHost
		case slices.ContainsFunc(want.Links, func(l Link) bool { return l.Name == s.Link }):
			return height != onOwn
		}
		return height != onOthers
	})
}

func diffTables(p *plan, have, want []Table) {
	diffTablesBy(p, have, want, Table.id, func(h, w Table) {
		if !h.Equal(w) {
			p.set = append(p.set, Op{Verb: Replace, New: w, Old: h})
		}
	})
}

// diffTablesBy compares objects that are tables, and hands those that are in both to change.
func diffTablesBy[T Object](p *plan, have, want []T, id func(T) tableID, change func(have, want T)) {
	current := make(map[tableID]T, len(have))
	for _, h := range have {
		current[id(h)] = h
	}
	for _, w := range want {
		if h, ok := current[id(w)]; ok {
			delete(current, id(w))
			change(h, w)
		} else {
			p.set = append(p.set, Op{Verb: Add, New: w})
		}
	}
	var del []Op
	for _, h := range have {
		if _, unwanted := current[id(h)]; unwanted {
			del = append(del, Op{Verb: Delete, Old: h})
		}
	}
	p.del = append(p.del, del)
}

// linkChanges is what happens to links, and with them to everything that is on them.
type linkChanges struct {
	set, up, del Plan
	emptied      map[string]bool // made anew or deleted: the kernel drops all that is on them
	renamed      map[string]bool // get another MAC: the kernel flushes even their permanent neighbours
}

func diffLinks(have, want []Link) linkChanges {
	c := linkChanges{emptied: map[string]bool{}, renamed: map[string]bool{}}
	current := make(map[string]Link, len(have))
	for _, h := range have {
		current[h.Name] = h
	}
	for _, w := range want {
		h, ok := current[w.Name]
		delete(current, w.Name)
		if ok && h.Kind != w.Kind {
			c.set = append(c.set, Op{Verb: Delete, Old: h})
			ok = false
		}
		if !ok {
			down := w
			down.Up = false
			c.emptied[w.Name] = true
			c.set = append(c.set, Op{Verb: Add, New: down})
			if w.Up {
				c.up = append(c.up, Op{Verb: Replace, New: w, Old: down})
			}
			continue
		}
		if h != w {
			c.renamed[w.Name] = h.MAC != w.MAC || h.NoARP != w.NoARP
			c.set = append(c.set, Op{Verb: Replace, New: w, Old: h})
		}
	}
	for _, h := range have {
		if _, unwanted := current[h.Name]; unwanted {
			c.emptied[h.Name] = true
			c.del = append(c.del, Op{Verb: Delete, Old: h})
		}
	}
	return c
}

// without returns the elements for which gone is false; it copies only if there are others.
func without[T any](all []T, gone func(T) bool) []T {
	for i := range all {
		if gone(all[i]) {
			kept := append([]T(nil), all[:i]...)
			for _, v := range all[i+1:] {
				if !gone(v) {
					kept = append(kept, v)
				}
			}
			return kept
		}
	}
	return all
}
