package fastpath

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// attach hangs the programs on the uplinks and on the ports of containers, and takes them away from all else.
func (f *FastPath) attach(want ip.FastPath) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	qdiscs, err := readQdiscs()
	if err != nil {
		return err
	}
	bridges := map[int]bool{}
	for _, l := range links {
		if slices.Contains(want.Bridges, l.Attrs().Name) {
			bridges[l.Attrs().Index] = true
		}
	}
	f.churn.look(links)
	wanted, relevant := map[hook]string{}, map[int]bool{}
	for _, facts := range f.links {
		relevant[int(facts.index)] = true
	}
	var notes []string
	var errs []error
	left := false // a port has the programs, and is to have them no more
	others, ports := map[int]string{}, map[int]bool{}
	for _, l := range links {
		a := l.Attrs()
		index := uint32(a.Index)
		uplink := slices.Contains(want.Uplinks, a.Name)
		if uplink || bridges[a.Index] || bridges[a.MasterIndex] {
			relevant[a.Index] = true
		}
		if !uplink && (l.Type() != "veth" || !bridges[a.MasterIndex] || a.NetNsID < 0) { // what has no other end in a namespace of its own cannot be handed packets
			continue
		}
		if !uplink {
			_, seen := f.ports[a.Index]
			ports[a.Index] = seen || !f.churn.high()
			if !ports[a.Index] {
				signal(f.arrivals) // there is to be a next look
				continue
			}
			if !seen {
				f.churn.came(a.Index)
			}
		}
		var err error
		what, known := f.others[a.Index]
		if filtered := qdiscs.filtered[a.Index]; !known || filtered != "" || what != "" {
			if what, err = f.hooks.others(index, filtered); err != nil {
				errs = append(errs, fmt.Errorf("look at %s: %w", a.Name, err))
			}
		}
		if err == nil {
			others[a.Index] = what
		}
		if uplink {
			if what != "" {
				notes = append(notes, fmt.Sprintf("%s has %s of another program, which may keep flows from being seen", a.Name, what))
			}
			for _, p := range uplinkPrograms() {
				wanted[hook{index, p}] = a.Name
			}
			continue
		}
		if what == "" {
			what = qdiscs.shaper[a.Index]
		}
		if what != "" {
			notes = append(notes, fmt.Sprintf("%s stays on the plain path: it has %s of another program", a.Name, what))
			ports[a.Index], left = false, left || f.ports[a.Index]
			continue
		}
		for _, p := range portPrograms() {
			wanted[hook{index, p}] = a.Name
		}
	}
	f.relevant.Store(&relevant)
	errs = append(errs, f.detachUnwanted(wanted)...)
	if left { // what is admitted would go past what is there now
		errs = append(errs, f.raise(causeLinks))
	}
	for _, h := range slices.SortedFunc(maps.Keys(wanted), compareHooks) {
		p := f.programs[h.program]
		if have := f.attached[h]; have != nil {
			if intact, _ := have.look(h, p); intact {
				continue
			}
			errs = append(errs, have.Close())
			delete(f.attached, h)
		}
		now, err := f.hooks.attach(h, p)
		if err == nil {
			f.attached[h] = now
		} else if !isGone(err) { // a container that has ended since
			errs = append(errs, fmt.Errorf("attach %s to %s: %w", h.program, wanted[h], err))
		}
	}
	errs = append(errs, f.hooks.forget(func(h hook) bool { return wanted[h] != "" }))
	slices.Sort(notes)
	f.ports, f.notes, f.others = ports, notes, others
	return errors.Join(errs...)
}

// fastPorts is how many containers have the fast path.
func (f *FastPath) fastPorts() (n int) {
	for _, fast := range f.ports {
		if fast {
			n++
		}
	}
	return n
}

func (f *FastPath) detachUnwanted(wanted map[hook]string) (errs []error) {
	for h, a := range f.attached {
		if wanted[h] == "" {
			errs = append(errs, a.detach())
			delete(f.attached, h)
		}
	}
	return errs
}

// intact reports whether all that hangs somewhere still does, and of others what is known.
func (f *FastPath) intact() bool {
	if f.hooks.notifies() {
		return true
	}
	all := true
	for h, a := range f.attached {
		intact, alone := a.look(h, f.programs[h.program])
		if !alone && f.others[int(h.link)] == "" {
			delete(f.others, int(h.link)) // so that it is asked what it is
			intact = false
		}
		all = all && intact
	}
	for index, what := range f.others {
		if what != otherProgram {
			continue
		}
		if now, err := f.hooks.others(uint32(index), ""); err == nil && now == "" {
			all = false
		}
	}
	return all
}

func compareHooks(a, b hook) int {
	if a.link != b.link {
		return int(a.link) - int(b.link)
	}
	switch {
	case a.program < b.program:
		return -1
	case a.program > b.program:
		return 1
	}
	return 0
}

// qdiscs are the queueing disciplines that links of containers do not have by themselves.
type qdiscs struct {
	filtered map[int]string // the kind of the one that takes filters, by index of the link
	shaper   map[int]string // what packets that went past it would miss
}

func readQdiscs() (qdiscs, error) {
	q := qdiscs{map[int]string{}, map[int]string{}}
	all, err := netlink.QdiscList(nil)
	if err != nil {
		return q, fmt.Errorf("list queueing disciplines: %w", err)
	}
	for _, one := range all {
		a := one.Attrs()
		switch {
		case one.Type() == "noqueue":
		case one.Type() == clsactName || one.Type() == ingressName:
			q.filtered[a.LinkIndex] = one.Type()
		case a.Parent == netlink.HANDLE_ROOT:
			q.shaper[a.LinkIndex] = "the queueing discipline " + one.Type()
		}
	}
	return q, nil
}

// linkFacts is what programs know of a link.
type linkFacts struct {
	index uint32
	mtu   int // bytes

	device ip.FastDevice // zero: it is none of Tulle's
}

// linksOf returns the links that packets to peers leave by. They are looked up anew once f.links is gone.
func (f *FastPath) linksOf(want ip.FastPath) (map[string]linkFacts, error) {
	if f.named == nil || !f.namedFor.Shares(want.Peers) {
		f.named, f.namedFor = linksTo(want.Peers), want.Peers
	}
	all := make(map[string]linkFacts, len(f.named))
	for _, name := range f.named {
		facts, known := f.links[name]
		if !known {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return nil, fmt.Errorf("look up %s: %w", name, err)
			}
			facts = linkFacts{index: uint32(i.Index), mtu: i.MTU}
		}
		facts.device = ip.FastDevice{}
		for _, d := range want.Devices {
			if d.Name == name {
				facts.device, facts.mtu = d, min(facts.mtu, d.MTU)
			}
		}
		all[name] = facts
	}
	f.links = all
	return all, nil
}

// linksTo are the names of the links that packets to peers leave by.
func linksTo(peers ip.FastPeers) []string {
	names, last := []string{}, ""
	for p := range peers.All() {
		if p.Link != last && !slices.Contains(names, p.Link) {
			names = append(names, p.Link)
		}
		last = p.Link
	}
	return names
}

// isGone reports whether a link went away meanwhile.
func isGone(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) }
