package kernel

import (
	"context"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"

	"tulle/ip"
)

// reading is a snapshot in the making.
type reading struct {
	ip.Snapshot
	scope      ip.Scope
	scopeLinks map[string]bool
	names      map[uint32]string // of all links, by index
	noARP      map[string]bool   // links that resolve no addresses
	own        map[uint32]string // of the links in scope, by index
	filtered   map[uint32]string // of those, bridges of containers, the uplinks and what these are made of
	between    map[string]bool   // whether one of those carries packets between hosts
	links      linkReading
	leads      func(netip.Prefix) bool // whether a route to it may lead packets to what matters
	seed       maphash.Seed            // of Others.Sum
	hidden     ip.Dual[*routeMessage]  // a default route of the main table that does not name its interface
}

func (k *Kernel) newReading(scope ip.Scope) *reading {
	rd := &reading{
		scope:      scope,
		seed:       k.seed,
		leads:      k.destinations.touchedBy,
		scopeLinks: map[string]bool{},
		names:      map[uint32]string{},
		noARP:      map[string]bool{},
		own:        map[uint32]string{},
		filtered:   map[uint32]string{},
		between:    map[string]bool{},
	}
	for _, name := range scope.Links {
		rd.scopeLinks[name] = true
	}
	rd.links = newLinkReading(scope, rd.own)
	return rd
}

// Snapshot reads the namespace. The parts are read one after the other: what changes meanwhile shows in the next one.
func (k *Kernel) Snapshot(ctx context.Context, scope ip.Scope) (ip.Snapshot, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	rd := k.newReading(scope)
	k.destinations.within(scope.Networks)
	k.destinations.add(scope.Paths)
	for _, part := range []struct {
		name string
		read func() error
	}{
		{"links and routes", func() error {
			return k.hostLinks.read(&rd.links, func() error {
				err := rd.readLinks(k.links)
				k.filteredLinks.Store(&rd.filtered)
				k.ownLinks.Store(&rd.own) // before routes and neighbours are read: a change is either among them or notified
				k.destinations.add(addressesOf(rd.Interfaces))
				if err == nil {
					err = rd.readRoutes(k.route)
				}
				return err
			})
		}},
		{"kinds of links", func() error { return rd.readKinds(k) }},
		{"neighbours", func() error { return rd.readNeighbors(k.route) }},
		{"policy rules", func() error { return rd.readPolicy(k.route) }},
		{"paths", func() error { return rd.readPaths(k) }},
		{"sysctls", func() error { return k.inside(rd.readSysctls) }},
		{"rules", func() error { return rd.readRules(k) }},
		{"what hangs on links", func() error { return rd.readDeviceFilters(k) }},
		{"rules of iptables-legacy", func() error { return rd.readLegacy(k) }},
	} {
		if err := ctx.Err(); err != nil {
			return ip.Snapshot{}, err
		}
		if err := part.read(); err != nil {
			return ip.Snapshot{}, fmt.Errorf("read %s: %w", part.name, err)
		}
	}
	rd.Owned.Sort()
	ip.SortFilters(rd.Filters)
	k.names, k.noARP = rd.names, rd.noARP
	return rd.Snapshot, nil
}

// Lookup implements ip.Kernel.
func (k *Kernel) Lookup(ctx context.Context, questions []ip.Question) ([]ip.Answer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	asked := make([]netip.Addr, len(questions))
	for i, q := range questions {
		asked[i] = q.Dst
	}
	k.destinations.add(asked)
	answers, known, err := k.hostLinks.ask(k.route, k.names, k.noARP, questions)
	if err == nil && !known {
		rd := k.newReading(ip.Scope{})
		if err := rd.readLinks(k.links); err != nil {
			return nil, fmt.Errorf("look up routes: read links: %w", err)
		}
		k.names, k.noARP = rd.names, rd.noARP
		answers, _, err = k.hostLinks.ask(k.route, k.names, k.noARP, questions)
	}
	if err != nil {
		return nil, fmt.Errorf("look up routes: %w", err)
	}
	return answers, nil
}

// appendUpTo is append to a list that will not be much longer than most.
func appendUpTo[T any](list []T, most int, v T) []T {
	if list == nil {
		list = make([]T, 0, most)
	}
	return append(list, v)
}

func (rd *reading) inNetworks(p netip.Prefix) bool {
	return slices.ContainsFunc(rd.scope.Networks, func(n netip.Prefix) bool { return ip.Contains(n, p) })
}
