//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tulle/internal/api"
	"tulle/internal/doctor"
	"tulle/internal/doctor/facts"
	"tulle/internal/doctor/far"
	"tulle/ip"
	"tulle/subnet"
)

const (
	// pairTime is how long the doctor may take for two hosts.
	pairTime = 15 * time.Second
	// storeTime is how long the store is waited for.
	storeTime = 3 * time.Second
)

// side is one end of the chain, and what its host says.
type side struct {
	doctor.Named
	facts doctor.Facts
	had   bool
	err   error // why it says nothing
}

// pair is two ends, seen from the host here.
type pair struct {
	doors facts.Doors
	store subnet.Asker
	here  string // node id
	is6   bool   // the family that is looked at
}

// between looks at the chain between two ends, on both their hosts.
func (d *doctorCommand) between(ctx context.Context, a, b string) (report doctor.Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, pairTime)
	defer cancel()
	d.store.config.RequestTimeout = storeTime
	store, err := d.store.open()
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	p := pair{doors: d.doors(), store: store}
	self := facts.Gather(ctx, p.doors, doctor.Question{})
	p.here = self.Node
	members, unread := d.members(ctx, store)
	if len(members) == 0 && unread != nil {
		return report, &commandError{code: exitUntold, err: fmt.Errorf("nobody says which hosts there are: %w", unread)}
	}
	if i := slices.IndexFunc(members, func(m doctor.Member) bool { return m.Node != "" && m.Node == p.here }); i < 0 {
		members = append(members, memberHere(self))
	}
	var sides [2]side
	for i, word := range []string{a, b} {
		if sides[i].Named, err = doctor.Resolve(word, members, p.here); err != nil {
			return report, usageError(err)
		}
		if sides[i].Addr.IsValid() {
			p.is6 = sides[i].Addr.Is6()
		}
	}
	if err := p.find(ctx, &sides); err != nil {
		return report, err
	}
	report = p.diagnose(ctx, &sides)
	if unread != nil {
		report.Untold = append(report.Untold, doctor.Untold{Host: p.here, Why: "the store: " + unread.Error()})
	}
	report.Distrust(p.here)
	return report, nil
}

// members are the hosts of the network: as the store has them or, where that does not answer, tulled on this host. The error is the store's.
func (d *doctorCommand) members(ctx context.Context, store subnet.Operator) ([]doctor.Member, error) {
	set, err := store.Snapshot(ctx)
	var members []doctor.Member
	if err == nil {
		for _, l := range set.Leases {
			members = append(members, doctor.Member{Node: l.Attrs.Node, Lease: subnet.KeyOf(l.Subnets), Subnets: ofFamilies(l.Subnets), Public: ip.Addrs(l.Attrs.Public)})
		}
		return members, nil
	}
	peers, peerErr := api.NewClient(d.runDir).Peers(ctx)
	if peerErr != nil {
		return nil, errors.Join(err, peerErr)
	}
	for _, p := range peers.Peers {
		members = append(members, doctor.Member{Node: p.Node, Lease: p.Lease, Subnets: p.Subnets, Public: p.Public})
	}
	return members, err
}

func ofFamilies(s subnet.Subnets) (list []netip.Prefix) {
	for _, f := range ip.Families() {
		if p := s.Of(f); p.IsValid() {
			list = append(list, p)
		}
	}
	return list
}

// memberHere is this host where it has no lease, by what it says itself.
func memberHere(self doctor.Facts) doctor.Member {
	m := doctor.Member{Node: self.Node}
	for _, n := range self.Networks() {
		m.Subnets = append(m.Subnets, n.Subnets...)
	}
	if up := self.Uplink(); up != nil {
		m.Public = up.Public
	}
	return m
}

// find has the addresses of ends that are named by something else.
func (p *pair) find(ctx context.Context, sides *[2]side) error {
	var wg sync.WaitGroup
	for i := range sides {
		s := &sides[i]
		switch {
		case s.Container && !s.Addr.IsValid():
			wg.Go(func() { p.ask(ctx, s, netip.Addr{}) })
		case !s.Container && s.Member != nil:
			s.Addr = s.Member.Inside(p.is6)
		}
	}
	wg.Wait()
	for i := range sides {
		s := &sides[i]
		if !s.Container || s.Addr.IsValid() || !s.had {
			continue
		}
		c := s.facts.Container
		if c == nil && s.facts.NoSuch {
			return noSuchContainer(s.Host, s.Of)
		}
		if c == nil {
			s.err = errors.New("it cannot look into its containers")
			continue
		}
		s.Addr = s.facts.AddrOf(*c, p.is6)
	}
	return nil
}

func noSuchContainer(host, name string) error {
	return usageError(fmt.Errorf("host %s has no container %.64q: name one of this host by its name or id, one of another as HOST/CONTAINER, any by its address, or a host by its node id or address", host, name))
}

// ask has the facts of the host of an end, about packets to an address.
func (p *pair) ask(ctx context.Context, s *side, toward netip.Addr) {
	q := doctor.Question{Of: s.Of, Toward: toward}
	switch {
	case s.err != nil: // it will not answer another time either
	case s.Host == p.here:
		s.facts, s.had = facts.Gather(ctx, p.doors, q), true
		s.facts.Node = p.here
	case s.Host == "":
		s.err = errors.New("its lease has no node id, as under flanneld: it cannot be asked")
	default:
		s.facts, s.err = far.Ask(ctx, p.store, s.Host, q)
		s.had = s.err == nil
	}
}

func (p *pair) diagnose(ctx context.Context, sides *[2]side) doctor.Report {
	a, b := &sides[0], &sides[1]
	if a.Host == b.Host && a.Host != "" {
		return p.sameHost(ctx, a, b)
	}
	if !b.Addr.IsValid() && b.Member != nil {
		b.Addr = b.Member.Inside(p.is6)
	}
	if !a.Addr.IsValid() && a.Member != nil {
		a.Addr = a.Member.Inside(p.is6)
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.ask(ctx, a, b.Addr) })
	wg.Go(func() { p.ask(ctx, b, a.Addr) })
	wg.Wait()
	if !a.had && b.had {
		a, b = b, a
	}
	var untold []doctor.Untold
	for _, s := range sides {
		if s.err != nil {
			untold = append(untold, doctor.Untold{Host: s.Host, Why: s.err.Error()})
		}
	}
	if !a.had {
		return doctor.Report{Findings: []doctor.Finding{}, Untold: untold}
	}
	c := doctor.Case{Here: a.facts, A: a.End, B: b.End}
	if a.Member != nil {
		c.Lease = a.Member.Lease
	}
	if b.Member != nil {
		c.Peer = &doctor.Peer{Member: *b.Member, Silent: errors.Is(b.err, subnet.ErrSilent)}
	}
	if b.had {
		c.There = &b.facts
	}
	report := doctor.Diagnose(c)
	report.Untold = append(report.Untold, untold...)
	for _, h := range c.Hosts() {
		if h.Status != nil && !h.Status.Probes {
			report.Untold = append(report.Untold, doctor.Untold{Host: h.Node, Why: "whether packets arrive: its tulled runs without --probe=on"})
		}
	}
	return report
}

// sameHost looks at two ends on one host.
func (p *pair) sameHost(ctx context.Context, a, b *side) doctor.Report {
	p.ask(ctx, a, netip.Addr{})
	if a.Of != b.Of && b.Of != "" {
		p.ask(ctx, b, netip.Addr{})
	}
	if !a.had {
		return doctor.Report{Findings: []doctor.Finding{}, Untold: []doctor.Untold{{Host: a.Host, Why: a.err.Error()}}}
	}
	here := a.facts
	if c := b.facts.Container; c != nil {
		here.Containers, here.Container = append(here.All(), *c), nil
	}
	return doctor.Diagnose(doctor.Case{Here: here, A: a.End, B: b.End})
}
